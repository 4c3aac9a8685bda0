//! Healing a server's damaged chunks from another store that has them, or from an upstream cache that has the paths.

use crate::api::Server;
use crate::error::{ClientError, Result};
use crate::pull::BinaryCache;
use crate::storage::{SharedStore, StorageLocation, open_storage};
use firn_chunks::boundaries::V1;
use firn_chunks::{ChunkId, Encoder, Format, FormatChunker, VerifiedFrame};
use firn_formats::nix::StorePath;
use firn_formats::{Sha256, push::encode_frame};
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

/// Bytes of frames sent at once.
const BODY_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 128 << 10;

/// A store that may have what another has lost.
pub enum Replica {
    /// A server's data folder, such as a backup.
    Folder(Box<firn_store::Replica>),
    /// A store without a server.
    Shared(SharedStore),
}

impl Replica {
    /// Opens a data folder, or whatever [`StorageLocation`] names.
    pub fn open(text: &str) -> Result<Self> {
        if firn_store::Replica::is_one(Path::new(text)) {
            return Ok(Self::Folder(Box::new(firn_store::Replica::open(
                Path::new(text),
            )?)));
        }
        let store = open_storage(&StorageLocation::parse(text)?, None)?;
        store.refresh()?;
        Ok(Self::Shared(store))
    }

    fn frame(&self, id: &ChunkId) -> Result<Option<VerifiedFrame>> {
        Ok(match self {
            Self::Folder(replica) => replica.frame(id)?,
            Self::Shared(store) => store.frame(id)?,
        })
    }
}

/// Sends the server frames for those of its damaged chunks that the replica has; says how many were healed. The
/// server verifies each.
pub fn heal(server: &Server, replica: &Replica) -> Result<u64> {
    let mut sending = Sending::new(server);
    for id in damaged(server)? {
        if let Some(frame) = replica.frame(&id)? {
            sending.add(&frame)?;
        }
    }
    sending.finish()
}

/// Sends the server those of its damaged chunks that the NARs of `broken` paths hold in a binary cache of whatever
/// make; says how many were healed. No signature is asked for: a chunk is known by its hash, which the server checks.
pub fn heal_from_cache(server: &Server, cache: &BinaryCache, broken: &[StorePath]) -> Result<u64> {
    let mut search = Search {
        wanted: damaged(server)?,
        found: Vec::new(),
        encoder: Encoder::new(V1.zstd_level),
        sending: Sending::new(server),
    };
    for path in broken {
        if search.wanted.is_empty() {
            break;
        }
        if let Some(nar) = cache.nar(path)? {
            search.through(nar, path, cache.url())?;
        }
    }
    search.sending.finish()
}

/// All chunks in quarantine.
fn damaged(server: &Server) -> Result<HashSet<ChunkId>> {
    let mut all = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let some = server.damaged(after.as_deref())?;
        let Some(last) = some.last() else {
            return Ok(all);
        };
        after = Some(format!("{}-{}", last.domain, last.chunk));
        for chunk in &some {
            let id = Sha256::from_hex(&chunk.chunk).ok_or_else(|| ClientError::BadAnswer {
                url: server.url().to_string(),
                what: format!("{:?} is no chunk", chunk.chunk),
            })?;
            all.insert(ChunkId(id.0));
        }
    }
}

/// Frames on their way to the server, some at a time.
struct Sending<'a> {
    server: &'a Server,
    body: Vec<u8>,
    healed: u64,
}

impl<'a> Sending<'a> {
    fn new(server: &'a Server) -> Self {
        Self {
            server,
            body: Vec::new(),
            healed: 0,
        }
    }

    fn add(&mut self, frame: &VerifiedFrame) -> Result<()> {
        encode_frame(&frame.record().id.0, frame.frame(), &mut self.body);
        match self.body.len() >= BODY_BYTES {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> Result<()> {
        self.healed += self.server.heal(&self.body)?.chunks;
        self.body.clear();
        Ok(())
    }

    /// Sends the rest; says how many chunks were healed in all.
    fn finish(mut self) -> Result<u64> {
        if !self.body.is_empty() {
            self.send()?;
        }
        Ok(self.healed)
    }
}

/// Chunks looked for in NARs.
struct Search<'a> {
    wanted: HashSet<ChunkId>,
    /// Those of the block at hand.
    found: Vec<VerifiedFrame>,
    encoder: Encoder,
    sending: Sending<'a>,
}

impl Search<'_> {
    fn take(&mut self, raw: &[u8]) {
        let id = ChunkId::of(raw);
        if self.wanted.remove(&id) {
            self.found.push(self.encoder.encode_with_id(id, raw));
        }
    }

    fn send_found(&mut self) -> Result<()> {
        let found = std::mem::take(&mut self.found);
        found.iter().try_for_each(|frame| self.sending.add(frame))
    }

    fn through(&mut self, mut nar: impl Read, path: &StorePath, url: &str) -> Result<()> {
        let bad = |error: &dyn std::fmt::Display| ClientError::BadAnswer {
            url: url.to_owned(),
            what: format!("the NAR of {}: {error}", path.absolute()),
        };
        let mut chunker = FormatChunker::new(Format::Nar, V1);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = nar.read(&mut block).map_err(|error| bad(&error))?;
            if count == 0 {
                break;
            }
            chunker
                .push(&block[..count], &mut |raw| self.take(raw))
                .map_err(|error| bad(&error))?;
            self.send_found()?;
        }
        chunker
            .finish(&mut |raw| self.take(raw))
            .map_err(|error| bad(&error))?;
        self.send_found()
    }
}
