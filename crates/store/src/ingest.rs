//! Taking in a stream of bytes: cut, hash, compress what is new, store.
//!
//! ```text
//! caller: chunking ─batch─▶ BLAKE3, look-up, zstd, SHA-256 (rayon) ─frames─▶ pack, rows, zstd's SHA-256
//! ```
//! Each stage works while the others work. Batches are small, so that little of a stream is in memory raw;
//! frames are gathered before they are stored, so that a sync and a transaction serve many. A stream that
//! fits into one batch needs no threads: the caller does all.

mod batch;

pub(crate) use batch::BatchPool;

use crate::db::{Durability, chunks};
use crate::store::Inner;
use crate::types::{BlobInfo, Session};
use crate::verifier::{BlobVerifier, Hashes, Held};
use crate::{StoreError, codec};
use batch::{BATCH_BYTES, Batch};
use crossbeam_channel::{Receiver, Sender, bounded};
use firn_chunks::boundaries::V1;
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Format, FormatChunker, VerifiedFrame};
use firn_formats::Sha256;
use firn_formats::sha256::Sha256Hasher;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes given to the chunker at once, so that what it cuts is found in the processor's cache.
const PIECE_BYTES: usize = 128 << 10;
/// Frame bytes stored at once.
const STORE_BYTES: usize = 4 << 20;
/// Chunks stored, or looked up, at once.
const STORE_CHUNKS: usize = 512;

/// A stream on its way in. Dropping it without [`Ingest::finish`] leaves nothing visible.
pub struct Ingest {
    inner: Arc<Inner>,
    session: Session,
    chunker: Option<FormatChunker>,
    batch: Batch,
    pipeline: Option<Pipeline>,
    /// What earlier pipelines did; it is with the present one while there is one.
    done: Done,
    /// Told of chunks once they are stored.
    watch: Option<Watch>,
    /// Whether the first chunks were stored by another process, so that their hashes are not known here.
    resumed: bool,
}

/// Told of chunks, in order, once they are stored.
pub(crate) type Watch = Box<dyn FnMut(&[ChunkRef]) -> Result<(), StoreError> + Send>;

/// The hash of the raw bytes, and what is stored.
#[derive(Default)]
struct Done {
    identity: Sha256Hasher,
    stored: Stored,
}

/// Chunks in order, and the frames of those that are new, each once.
#[derive(Default)]
struct Encoded {
    chunks: Vec<ChunkRef>,
    frames: Vec<VerifiedFrame>,
}

/// What is stored so far.
#[derive(Default)]
struct Stored {
    list: ChunkList,
    hashes: Hashes,
}

/// The two stages behind the caller.
struct Pipeline {
    batches: Sender<Batch>,
    encoder: JoinHandle<Result<Sha256Hasher, StoreError>>,
    storer: JoinHandle<(Option<Watch>, Result<Stored, StoreError>)>,
}

impl Ingest {
    pub(crate) fn new(inner: Arc<Inner>, session: &Session, format: Format) -> Self {
        Self {
            batch: Batch::new(&inner.batches),
            inner,
            session: session.clone(),
            chunker: Some(FormatChunker::new(format, V1)),
            pipeline: None,
            done: Done::default(),
            watch: None,
            resumed: false,
        }
    }

    /// An opaque stream whose first chunks are stored already.
    pub(crate) fn resumed(
        inner: Arc<Inner>,
        session: &Session,
        chunks: Vec<ChunkRef>,
        watch: Watch,
    ) -> Self {
        let mut ingest = Self::new(inner, session, Format::Opaque);
        ingest.resumed = !chunks.is_empty();
        ingest.done.stored.list = ChunkList { chunks };
        ingest.watch = Some(watch);
        ingest
    }

    /// Takes the next bytes; blocks while storage is busy.
    ///
    /// # Errors
    /// [`StoreError::Format`] if the stream is not of its format; whatever storing fails with.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            let chunker = self.chunker.as_mut().ok_or_else(failed_before)?;
            let pushed = chunker.push(piece, &mut |chunk| self.batch.add(chunk));
            if let Err(error) = pushed {
                self.chunker = None;
                return Err(error.into());
            }
            if self.batch.bytes().len() >= BATCH_BYTES {
                self.dispatch()?;
            }
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Result<(), StoreError> {
        let pipeline = match self.pipeline.take() {
            Some(pipeline) => pipeline,
            None => {
                let done = std::mem::take(&mut self.done);
                Pipeline::start(&self.inner, &self.session, done, self.watch.take())?
            }
        };
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(&self.inner.batches));
        batch.depart();
        match pipeline.batches.send(batch) {
            Ok(()) => {
                self.pipeline = Some(pipeline);
                Ok(())
            }
            Err(_) => {
                self.chunker = None;
                pipeline.finish().1.and_then(|_| Err(failed_before()))
            }
        }
    }

    /// Stores every chunk that is whole; [`Ingest::held`] is then all that is not stored.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        let flushed = self.try_flush();
        if flushed.is_err() {
            self.chunker = None;
        }
        flushed
    }

    fn try_flush(&mut self) -> Result<(), StoreError> {
        if self.pipeline.is_some() {
            if !self.batch.bytes().is_empty() {
                self.dispatch()?;
            }
            let pipeline = self.pipeline.take().ok_or_else(failed_before)?;
            let (watch, done) = pipeline.finish();
            self.watch = watch;
            self.done = done?;
        } else if !self.batch.bytes().is_empty() {
            let batch = std::mem::replace(&mut self.batch, Batch::new(&self.inner.batches));
            let Done { identity, stored } = &mut self.done;
            let encoded = encode(&self.inner, &self.session, &batch, identity)?;
            store(&self.inner, &self.session, encoded, stored, &mut self.watch)?;
        }
        Ok(())
    }

    /// The last bytes of an opaque stream, which lie in no chunk yet.
    pub(crate) fn held(&self) -> &[u8] {
        self.chunker.as_ref().map_or(&[], FormatChunker::held)
    }

    /// The blob, its bytes durable, under a lease.
    ///
    /// # Errors
    /// As [`Ingest::write`].
    pub fn finish(self) -> Result<BlobInfo, StoreError> {
        self.finish_as(None)
    }

    /// As [`Ingest::finish`]; bytes whose SHA-256 is not `promised` are left without a blob and its lease, so that
    /// the collector may take them at once.
    ///
    /// # Errors
    /// As [`Ingest::write`]; [`StoreError::WrongDigest`].
    pub fn finish_as(mut self, promised: Option<Sha256>) -> Result<BlobInfo, StoreError> {
        let chunker = self.chunker.take().ok_or_else(failed_before)?;
        chunker.finish(&mut |chunk| self.batch.add(chunk))?;
        self.try_flush()?;
        let Done { identity, stored } = self.done;
        let length = stored.list.raw_length();
        let wrong = |found: Sha256| promised.is_some_and(|promised| promised != found);
        if !self.resumed {
            let found = identity.clone().finish();
            if wrong(found) {
                return Err(StoreError::WrongDigest { length, found });
            }
        }
        let (db, source) = (self.inner.db.clone(), self.inner.source.clone());
        let verifier = match self.resumed {
            true => BlobVerifier::new(db, source, &self.session, stored.list),
            false => BlobVerifier::from_hashes(
                db,
                source,
                &self.session,
                stored.list,
                stored.hashes.with_identity(identity),
            ),
        };
        let blob = self.inner.put_blob(verifier)?;
        match wrong(blob.identity_sha256) {
            true => Err(StoreError::WrongDigest {
                length,
                found: blob.identity_sha256,
            }),
            false => Ok(blob),
        }
    }
}

fn failed_before() -> StoreError {
    StoreError::Upload(io::Error::other("the upload has failed already"))
}

impl Pipeline {
    fn start(
        inner: &Arc<Inner>,
        session: &Session,
        done: Done,
        mut watch: Option<Watch>,
    ) -> Result<Self, StoreError> {
        let (batches, waiting) = bounded::<Batch>(0);
        let (encoded, compressed) = bounded::<Encoded>(0);
        let (first, second) = (
            (inner.clone(), session.clone()),
            (inner.clone(), session.clone()),
        );
        Ok(Self {
            batches,
            encoder: spawn("firn-compress", move || {
                encode_all(&first.0, &first.1, done.identity, &waiting, &encoded)
            })?,
            storer: spawn("firn-store", move || {
                let stored = store_all(&second.0, &second.1, done.stored, &compressed, &mut watch);
                (watch, stored)
            })?,
        })
    }

    /// Waits for all batches. The storer's error is the cause of the encoder's, if both have one.
    fn finish(self) -> (Option<Watch>, Result<Done, StoreError>) {
        drop(self.batches);
        let encoded = self.encoder.join().unwrap_or_else(|_| Err(failed_before()));
        let (watch, stored) = self
            .storer
            .join()
            .unwrap_or_else(|_| (None, Err(failed_before())));
        let done = stored.and_then(|stored| encoded.map(|identity| Done { identity, stored }));
        (watch, done)
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| StoreError::io(format!("thread {name}"), error))
}

fn encode_all(
    inner: &Inner,
    session: &Session,
    mut identity: Sha256Hasher,
    batches: &Receiver<Batch>,
    encoded: &Sender<Encoded>,
) -> Result<Sha256Hasher, StoreError> {
    for batch in batches {
        let made = encode(inner, session, &batch, &mut identity)?;
        // Its room is another's while this one waits for storage.
        drop(batch);
        if encoded.send(made).is_err() {
            break;
        }
    }
    Ok(identity)
}

fn store_all(
    inner: &Inner,
    session: &Session,
    mut stored: Stored,
    batches: &Receiver<Encoded>,
    watch: &mut Option<Watch>,
) -> Result<Stored, StoreError> {
    let mut gathered = Encoded::default();
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    for encoded in batches {
        gathered.chunks.extend(encoded.chunks);
        for frame in encoded.frames {
            // A chunk that came again before its first frame was stored was compressed again.
            if seen.insert(frame.record().id) {
                bytes += frame.frame().len();
                gathered.frames.push(frame);
            }
        }
        if bytes >= STORE_BYTES || gathered.chunks.len() >= STORE_CHUNKS {
            let gathered = std::mem::take(&mut gathered);
            store(inner, session, gathered, &mut stored, watch)?;
            seen.clear();
            bytes = 0;
        }
    }
    store(inner, session, gathered, &mut stored, watch)?;
    Ok(stored)
}

/// Names a batch's chunks, pins those that are known, compresses the others, each once.
fn encode(
    inner: &Inner,
    session: &Session,
    batch: &Batch,
    identity: &mut Sha256Hasher,
) -> Result<Encoded, StoreError> {
    let pieces = batch.chunks();
    let ids: Vec<ChunkId> = pieces.par_iter().map(|piece| ChunkId::of(piece)).collect();
    let mut seen = HashSet::new();
    let (unique, raw): (Vec<ChunkId>, Vec<&[u8]>) = ids
        .iter()
        .zip(&pieces)
        .filter(|(id, _)| seen.insert(**id))
        .map(|(id, raw)| (*id, *raw))
        .unzip();
    let missing = inner.pin(session, &unique)?;
    let compress = || {
        unique
            .par_iter()
            .zip(&raw)
            .zip(&missing)
            .filter(|(_, missing)| **missing)
            .map(|((id, raw), _)| codec::with_encoder(|encoder| encoder.encode_with_id(*id, raw)))
            .collect()
    };
    let (frames, ()) = rayon::join(compress, || identity.update(batch.bytes()));
    let chunks = ids
        .iter()
        .zip(&pieces)
        .map(|(id, piece)| ChunkRef {
            id: *id,
            raw_length: u32::try_from(piece.len()).unwrap_or(u32::MAX),
        })
        .collect();
    Ok(Encoded { chunks, frames })
}

/// Stores new frames, and hashes the frames that are held for the chunks.
fn store(
    inner: &Inner,
    session: &Session,
    encoded: Encoded,
    stored: &mut Stored,
    watch: &mut Option<Watch>,
) -> Result<(), StoreError> {
    inner.session_touch(&session.id)?;
    let fresh: HashMap<ChunkId, VerifiedFrame> = encoded
        .frames
        .iter()
        .map(|frame| (frame.record().id, frame.clone()))
        .collect();
    // If all were new, what is held of them is what was sent; else it may be another sender's.
    let all_new = inner.packs.put(session, encoded.frames)? == fresh.len();
    let ids = encoded.chunks.iter().map(|chunk| chunk.id);
    let elsewhere: Vec<ChunkId> = ids
        .filter(|id| !all_new || !fresh.contains_key(id))
        .collect();
    let mut located = locate(inner, session, &elsewhere)?.into_iter();
    // Runs of what lies in packs are read as such.
    let mut run = Vec::new();
    for chunk in &encoded.chunks {
        let frame = fresh.get(&chunk.id);
        let held = match frame {
            Some(_) if all_new => None,
            _ => located.next(),
        };
        let same = |frame: &&VerifiedFrame| {
            held.is_none_or(|held| held.checksum == frame.record().checksum)
        };
        if let Some(frame) = frame.filter(same) {
            hash_run(inner, session, &mut run, stored)?;
            stored
                .hashes
                .add_frame(frame.frame(), frame.record().checksum);
        } else {
            run.extend(held);
        }
    }
    hash_run(inner, session, &mut run, stored)?;
    if let Some(watch) = watch {
        watch(&encoded.chunks)?;
    }
    stored.list.chunks.extend(encoded.chunks);
    Ok(())
}

fn locate(
    inner: &Inner,
    session: &Session,
    ids: &[ChunkId],
) -> Result<Vec<chunks::Located>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let located = inner
        .db
        .snapshot(|connection| chunks::locate(connection, session.domain, ids.iter().copied()))?;
    let missing: Vec<ChunkId> = ids
        .iter()
        .zip(&located)
        .filter_map(|(id, located)| located.is_none().then_some(*id))
        .collect();
    match missing.is_empty() {
        true => Ok(located.into_iter().flatten().collect()),
        false => Err(StoreError::MissingChunks(missing)),
    }
}

fn hash_run(
    inner: &Inner,
    session: &Session,
    run: &mut Vec<chunks::Located>,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    let held = Held {
        db: &inner.db,
        source: &inner.source,
        domain: session.domain,
    };
    held.hash(run, |frame, located| {
        stored.hashes.add_frame(frame, located.checksum);
        Ok(())
    })?;
    run.clear();
    Ok(())
}

impl Inner {
    /// See `Store::session_touch`.
    pub(crate) fn session_touch(&self, id: &str) -> Result<Session, StoreError> {
        let mut session = self
            .db
            .read(|connection| crate::db::sessions::find(connection, id))?;
        // Heartbeats come with every request; only one in many needs to be written.
        let ttl = self.options.session_ttl;
        if session.expires_in < ttl / 2 {
            let id = id.to_owned();
            self.db.write(Durability::Ordered, move |connection| {
                crate::db::sessions::renew(connection, &id, ttl)
            })?;
            session.expires_in = ttl;
        }
        Ok(session)
    }
}
