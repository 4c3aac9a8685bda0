//! A Firn server behind a substituter: it tells how a NAR is stored, and the frames that this machine lacks are
//! fetched by ranges of the NAR's zstd representation. `docs/pull-protocol.md` has the exchange.

use super::{NarStream, Substituter, count, find::Found, names, plan, stream::Origin};
use crate::{
    api::Server,
    error::{ClientError, Result},
    http::ServerUrl,
    parallel,
    pull::{BinaryCache, Passed, decompress},
    push::work::lock,
};
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Decoder};
use firn_formats::{
    nix::{Compression, NarInfo, StorePathHash},
    pull::{NarLayout, StoredFrame},
};
use firn_store::{StoreError, shared::ChunkSink};
use std::{
    collections::HashMap,
    io::Read,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Stands for the server where sources have an index.
const SERVER: usize = usize::MAX;
/// Narinfos that are remembered until their NARs are asked for.
const NARINFOS_MAX: usize = 16_384;
/// A smaller NAR is fetched whole, …
const NAR_BYTES_MIN: u64 = 64 << 10;
/// … and so is one of whose frames, by their bytes, not more than one in so many is here.
const HERE_SHARE_MIN: u64 = 16;
/// Ranges asked for at once, …
const RANGES: usize = 6;
/// … each of at most so many bytes, unless a single frame is longer …
const RANGE_BYTES_MAX: u64 = 1 << 20;
/// … and over so many that are not needed: a request costs more.
const GAP_BYTES_MAX: u64 = 8 << 10;

/// A cache of a Firn server.
#[derive(Debug)]
pub struct ServerSource {
    api: Server,
    cache: String,
    nix: BinaryCache,
    /// Whether it tells layouts, once that is known: older servers do not.
    tells_layouts: Mutex<Option<bool>>,
    /// The server's narinfos of paths that were asked for.
    narinfos: Mutex<HashMap<StorePathHash, NarInfo>>,
    bytes_fetched: AtomicU64,
}

impl ServerSource {
    /// Asks nothing yet.
    pub fn new(api: Server, cache: &str) -> Result<Self> {
        let url = ServerUrl::parse(&api.url().join(cache))?;
        Ok(Self {
            nix: BinaryCache::new(url, api.token().map(str::to_owned))?,
            api,
            cache: cache.to_owned(),
            tells_layouts: Mutex::default(),
            narinfos: Mutex::default(),
            bytes_fetched: AtomicU64::new(0),
        })
    }

    /// The cache's URL.
    pub fn url(&self) -> &str {
        self.nix.url()
    }

    /// Bytes of NARs, frames and layouts that came from the server.
    pub fn bytes_fetched(&self) -> u64 {
        self.bytes_fetched.load(Ordering::Relaxed)
    }

    /// A file of the cache as it is; `None` if it has none of this name.
    pub fn pass_on(self: &Arc<Self>, path: &str) -> Result<Option<Passed>> {
        let passed = self.nix.pass_on(path)?;
        Ok(passed.map(|passed| Passed {
            length: passed.length,
            reader: Box::new(self.counted(passed.reader)),
        }))
    }

    /// The narinfo's text as it is offered here: its NAR is put together here if the server tells how. Signatures are
    /// the server's own, and what they cover is not changed.
    pub fn narinfo(&self, hash: &str) -> Result<Option<String>> {
        let Some((narinfo, text)) = self.fetch_narinfo(hash)? else {
            return Ok(None);
        };
        if !self.tells_layouts(hash)? {
            return Ok(Some(text));
        }
        let mut offered = narinfo.clone();
        offered.url = format!(
            "nar/{}",
            names::nar(&narinfo.nar_hash, &narinfo.store_path.hash())
        );
        offered.compression = Compression::None;
        offered.file_hash = Some(narinfo.nar_hash.into());
        offered.file_size = Some(narinfo.nar_size);
        self.remember(narinfo);
        Ok(Some(offered.to_string()))
    }

    fn remember(&self, narinfo: NarInfo) {
        let mut narinfos = lock(&self.narinfos);
        if narinfos.len() >= NARINFOS_MAX {
            narinfos.clear();
        }
        narinfos.insert(narinfo.store_path.hash(), narinfo);
    }

    fn fetch_narinfo(&self, hash: &str) -> Result<Option<(NarInfo, String)>> {
        let Ok(parsed) = StorePathHash::parse(hash) else {
            return Ok(None);
        };
        let Some(text) = self.nix.narinfo_text(hash)? else {
            return Ok(None);
        };
        let bad = |what: &str| ClientError::BadAnswer {
            url: format!("{}/{hash}.narinfo", self.url()),
            what: what.to_owned(),
        };
        let narinfo = NarInfo::parse(&text).map_err(|error| bad(&error.to_string()))?;
        match narinfo.store_path.hash() == parsed {
            true => Ok(Some((narinfo, text))),
            false => Err(bad("it is of another path")),
        }
    }

    /// Whether this server is of those that tell layouts; asked with a path that it has.
    fn tells_layouts(&self, hash: &str) -> Result<bool> {
        if let Some(known) = *lock(&self.tells_layouts) {
            return Ok(known);
        }
        let tells = self.layout(hash)?.is_some();
        *lock(&self.tells_layouts) = Some(tells);
        Ok(tells)
    }

    /// How the NAR of a path is stored; `None` if the server does not tell.
    fn layout(&self, hash: &str) -> Result<Option<NarLayout>> {
        let Some(bytes) = self.api.nar_layout(&self.cache, hash)? else {
            return Ok(None);
        };
        count(&self.bytes_fetched, bytes.len() as u64);
        match NarLayout::decode(&bytes) {
            Ok(layout) => Ok(Some(layout)),
            Err(error) => {
                tracing::warn!(url = self.url(), hash, %error, "a layout is passed over");
                Ok(None)
            }
        }
    }

    fn fetch(&self, file: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let bytes = self.nix.range(file, range)?;
        count(&self.bytes_fetched, bytes.len() as u64);
        Ok(bytes)
    }

    /// All of a NAR, decompressed.
    fn whole(self: &Arc<Self>, narinfo: &NarInfo) -> Result<Option<NarStream>> {
        let Some(passed) = self.pass_on(&narinfo.url)? else {
            return Ok(None);
        };
        Ok(Some(NarStream {
            length: narinfo.nar_size,
            reader: decompress(narinfo, passed.reader)?,
        }))
    }

    fn counted(self: &Arc<Self>, reader: Box<dyn Read + Send>) -> Counted {
        Counted {
            reader,
            source: Arc::clone(self),
        }
    }
}

struct Counted {
    reader: Box<dyn Read + Send>,
    source: Arc<ServerSource>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        count(&self.source.bytes_fetched, read as u64);
        Ok(read)
    }
}

impl Substituter {
    /// A NAR of the server's by the name that its narinfo was offered with.
    pub fn server_nar(
        self: &Arc<Self>,
        server: &Arc<ServerSource>,
        name: &str,
    ) -> Result<Option<NarStream>> {
        let Some((nar_hash, hash)) = names::parse_nar(name) else {
            return Ok(None);
        };
        let known = StorePathHash::parse(&hash)
            .ok()
            .and_then(|hash| lock(&server.narinfos).get(&hash).cloned());
        let narinfo = match known {
            Some(narinfo) => narinfo,
            // Nix remembers narinfos for longer than a process lives.
            None => match server.fetch_narinfo(&hash)? {
                Some((narinfo, _)) => narinfo,
                None => return Ok(None),
            },
        };
        match narinfo.nar_hash == nar_hash {
            true => self.server_nar_of(server, narinfo),
            false => Ok(None),
        }
    }

    /// The NAR of a narinfo of the server's: from chunks, or whole where the server does not tell how it is stored,
    /// or what it told turned out to be wrong.
    pub fn server_nar_of(
        self: &Arc<Self>,
        server: &Arc<ServerSource>,
        narinfo: NarInfo,
    ) -> Result<Option<NarStream>> {
        let hash = narinfo.store_path.hash().to_string();
        count(&self.counters.nars, 1);
        if narinfo.nar_size < NAR_BYTES_MIN || self.is_broken(SERVER, &hash) {
            return server.whole(&narinfo);
        }
        let layout = server.layout(&hash)?;
        let fits = |list: &ChunkList| list.raw_length() == narinfo.nar_size;
        let Some((layout, list)) = layout
            .map(|layout| (chunk_list(&layout.frames), layout))
            .filter(|(list, _)| fits(list))
            .map(|(list, layout)| (layout, list))
        else {
            return server.whole(&narinfo);
        };
        let found = Found {
            source: SERVER,
            located: vec![SERVER; list.chunks.len()],
            narinfo,
            list,
        };
        let pieces = plan::make(&self.local, &found);
        let frames = || std::iter::zip(&pieces, &layout.frames);
        let bytes = |here: bool| -> u64 {
            let these = frames().filter(|(piece, _)| piece.local.is_some() || !here);
            these.map(|(_, frame)| u64::from(frame.frame_length)).sum()
        };
        if bytes(true) * HERE_SHARE_MIN <= bytes(false) {
            self.local.learn(&found.narinfo.store_path, &found.list);
            return server.whole(&found.narinfo);
        }
        let nar = ServerNar::new(Arc::clone(server), found.narinfo.clone(), layout);
        self.stream(Origin::Server(Arc::new(nar)), found, pieces)
            .map(Some)
    }
}

fn chunk_list(frames: &[StoredFrame]) -> ChunkList {
    let chunks = frames.iter().map(|frame| ChunkRef {
        id: ChunkId(frame.id),
        raw_length: frame.raw_length,
    });
    ChunkList {
        chunks: chunks.collect(),
    }
}

/// A NAR's frames at the server.
pub(super) struct ServerNar {
    server: Arc<ServerSource>,
    narinfo: NarInfo,
    /// Its zstd representation.
    file: String,
    frames: Vec<StoredFrame>,
    /// Where each frame begins.
    starts: Vec<u64>,
}

/// Frames that are fetched together.
#[derive(Debug, PartialEq, Eq)]
struct Stretch {
    range: Range<u64>,
    /// By their index in the NAR.
    frames: Vec<usize>,
}

impl ServerNar {
    fn new(server: Arc<ServerSource>, narinfo: NarInfo, layout: NarLayout) -> Self {
        let mut next = 0;
        let starts = layout.frames.iter().map(|frame| {
            let start = next;
            next += u64::from(frame.frame_length);
            start
        });
        Self {
            server,
            narinfo,
            file: format!("nar/{}.nar.zst", layout.zstd_sha256.base32()),
            starts: starts.collect(),
            frames: layout.frames,
        }
    }

    /// Gives the raw bytes of some chunks, in order, each checked against its id.
    pub(super) fn read(&self, wanted: &[usize], sink: &mut ChunkSink<'_>) -> Result<()> {
        let mut decoder = Decoder::new();
        let mut raw = Vec::new();
        for batch in self.stretches(wanted).chunks(RANGES) {
            let bodies = parallel::each(batch.len(), RANGES, |at| match batch.get(at) {
                Some(stretch) => self.server.fetch(&self.file, stretch.range.clone()),
                None => Ok(Vec::new()),
            })?;
            for (stretch, body) in batch.iter().zip(bodies) {
                for index in &stretch.frames {
                    let (id, frame) = self.cut(*index, stretch, &body)?;
                    decoder
                        .decode(frame, &mut raw)
                        .map_err(|error| damaged(&id, &error.to_string()))?;
                    if ChunkId::of(&raw) != id {
                        return Err(damaged(&id, "it holds something else"));
                    }
                    sink(&id, &raw)?;
                }
            }
        }
        Ok(())
    }

    /// All of the NAR, as the server serves it to everybody.
    pub(super) fn whole(&self) -> Result<Box<dyn Read + Send>> {
        match self.server.whole(&self.narinfo)? {
            Some(nar) => Ok(nar.reader),
            None => Err(ClientError::NotCached {
                path: self.narinfo.store_path.absolute(),
                url: self.server.url().to_owned(),
            }),
        }
    }

    fn range(&self, index: usize) -> Option<Range<u64>> {
        let start = *self.starts.get(index)?;
        let length = self.frames.get(index)?.frame_length;
        Some(start..start + u64::from(length))
    }

    fn cut<'a>(
        &self,
        index: usize,
        stretch: &Stretch,
        body: &'a [u8],
    ) -> Result<(ChunkId, &'a [u8])> {
        let id = ChunkId(self.frames.get(index).map_or([0; 32], |frame| frame.id));
        let cut = self.range(index).and_then(|range| {
            let start = usize::try_from(range.start.checked_sub(stretch.range.start)?).ok()?;
            let length = usize::try_from(range.end - range.start).ok()?;
            body.get(start..start.checked_add(length)?)
        });
        let frame = cut.ok_or_else(|| damaged(&id, "its frame is not where it should be"))?;
        Ok((id, frame))
    }

    /// Frames that lie close together are asked for together.
    fn stretches(&self, wanted: &[usize]) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for index in wanted {
            let Some(range) = self.range(*index) else {
                continue;
            };
            match stretches.last_mut() {
                Some(last)
                    if range.start >= last.range.end
                        && range.start - last.range.end <= GAP_BYTES_MAX
                        && range.end - last.range.start <= RANGE_BYTES_MAX =>
                {
                    last.range.end = range.end;
                    last.frames.push(*index);
                }
                _ => stretches.push(Stretch {
                    range,
                    frames: vec![*index],
                }),
            }
        }
        stretches
    }
}

fn damaged(id: &ChunkId, what: &str) -> ClientError {
    StoreError::Damaged(format!("chunk {id} of a server: {what}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_lie_close_share_a_request() {
        let url = ServerUrl::parse("http://127.0.0.1:9").expect("a URL");
        let server = Server::new(url, None).expect("a server");
        let source = ServerSource::new(server, "main").expect("a source");
        let frame = |frame_length| StoredFrame {
            id: [1; 32],
            raw_length: 1,
            frame_length,
        };
        let layout = NarLayout {
            zstd_sha256: firn_formats::Sha256([2; 32]),
            frames: [100, 5000, 200, 20_000, 300, 1 << 20, 400]
                .map(frame)
                .into(),
        };
        let narinfo = "StorePath: /nix/store/00c89v0sz1j42g5sg6mffiwplzccay6p-a\nURL: nar/a.nar\nCompression: none\n\
                       NarHash: sha256:0000000000000000000000000000000000000000000000000000\nNarSize: 1\n";
        let narinfo = NarInfo::parse(narinfo).expect("a narinfo");
        let nar = ServerNar::new(Arc::new(source), narinfo, layout);
        let stretches: Vec<(Range<u64>, Vec<usize>)> = nar
            .stretches(&[0, 2, 4, 5, 6])
            .into_iter()
            .map(|stretch| (stretch.range, stretch.frames))
            .collect();
        let big = 25_600 + (1 << 20);
        assert_eq!(
            stretches,
            [
                (0..5300, vec![0, 2]),
                (25_300..25_600, vec![4]),
                (25_600..big, vec![5]),
                (big..big + 400, vec![6]),
            ]
        );
    }
}
