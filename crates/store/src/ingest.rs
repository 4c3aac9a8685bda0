//! Taking in a stream of bytes: cut, hash, compress what is new, store.
//!
//! ```text
//! caller: SHA-256, chunking ─batch─▶ BLAKE3, look-up, zstd (rayon) ─batch─▶ pack, rows, zstd's SHA-256
//! ```
//! Each stage works on one batch while the others work on theirs. A stream that fits into one
//! batch needs no threads: the caller does all.

use crate::db::{Durability, chunks, lock};
use crate::store::Inner;
use crate::types::{BlobInfo, Session};
use crate::verifier::{BlobVerifier, Hashes, hash_stored};
use crate::{StoreError, codec};
use crossbeam_channel::{Receiver, Sender, bounded};
use firn_chunks::boundaries::V1;
use firn_chunks::{ChunkId, ChunkList, ChunkRef, Format, FormatChunker, VerifiedFrame};
use firn_formats::sha256::Sha256Hasher;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Raw bytes in a batch.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes given to the chunker at once, so that hashing and cutting find them in the processor's cache.
const PIECE_BYTES: usize = 128 << 10;

/// A stream on its way in. Dropping it without [`Ingest::finish`] leaves nothing visible.
pub struct Ingest {
    inner: Arc<Inner>,
    session: Session,
    identity: Sha256Hasher,
    chunker: Option<FormatChunker>,
    batch: Batch,
    pipeline: Option<Pipeline>,
}

/// Chunks back to back.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    _permit: Option<Permit>,
}

impl Batch {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        self.ends.push(self.bytes.len());
    }

    fn chunks(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
            .collect()
    }
}

/// Bounds the batches in flight, over all streams.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Permit(Arc<Permits>);

impl Permits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        })
    }

    fn acquire(self: &Arc<Self>) -> Permit {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self
                .freed
                .wait(free)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *free -= 1;
        Permit(self.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

/// A batch whose new chunks are compressed.
struct Encoded {
    chunks: Vec<ChunkRef>,
    frames: Vec<VerifiedFrame>,
    _permit: Option<Permit>,
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
    encoder: JoinHandle<Result<(), StoreError>>,
    storer: JoinHandle<Result<Stored, StoreError>>,
}

impl Ingest {
    pub(crate) fn new(inner: Arc<Inner>, session: &Session, format: Format) -> Self {
        Self {
            inner,
            session: session.clone(),
            identity: Sha256Hasher::new(),
            chunker: Some(FormatChunker::new(format, V1)),
            batch: Batch::default(),
            pipeline: None,
        }
    }

    /// Takes the next bytes; blocks while storage is busy.
    ///
    /// # Errors
    /// [`StoreError::Format`] if the stream is not of its format; whatever storing fails with.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            let chunker = self.chunker.as_mut().ok_or_else(failed_before)?;
            self.identity.update(piece);
            let pushed = chunker.push(piece, &mut |chunk| self.batch.add(chunk));
            if let Err(error) = pushed {
                self.chunker = None;
                return Err(error.into());
            }
            if self.batch.bytes.len() >= BATCH_BYTES {
                self.dispatch()?;
            }
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Result<(), StoreError> {
        let pipeline = match self.pipeline.take() {
            Some(pipeline) => pipeline,
            None => Pipeline::start(&self.inner, &self.session)?,
        };
        // A stream that filled one batch is likely to fill another; only the first grows as it must.
        let next = Batch {
            bytes: Vec::with_capacity(BATCH_BYTES + V1.chunk_bytes_max),
            ..Batch::default()
        };
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch._permit = Some(self.inner.permits.acquire());
        match pipeline.batches.send(batch) {
            Ok(()) => {
                self.pipeline = Some(pipeline);
                Ok(())
            }
            Err(_) => {
                self.chunker = None;
                pipeline.finish().and_then(|_| Err(failed_before()))
            }
        }
    }

    /// The blob, its bytes durable, under a lease.
    ///
    /// # Errors
    /// As [`Ingest::write`].
    pub fn finish(mut self) -> Result<BlobInfo, StoreError> {
        let chunker = self.chunker.take().ok_or_else(failed_before)?;
        chunker.finish(&mut |chunk| self.batch.add(chunk))?;
        let stored = if self.pipeline.is_some() {
            if !self.batch.ends.is_empty() {
                self.dispatch()?;
            }
            match self.pipeline.take() {
                Some(pipeline) => pipeline.finish()?,
                None => return Err(failed_before()),
            }
        } else {
            let mut stored = Stored::default();
            let encoded = encode(&self.inner, &self.session, std::mem::take(&mut self.batch))?;
            store(&self.inner, &self.session, encoded, &mut stored)?;
            stored
        };
        let verifier = BlobVerifier::from_hashes(
            self.inner.db.clone(),
            self.inner.source.clone(),
            &self.session,
            stored.list,
            stored.hashes.with_identity(self.identity),
        );
        self.inner.put_blob(verifier)
    }
}

fn failed_before() -> StoreError {
    StoreError::Upload(io::Error::other("the upload has failed already"))
}

impl Pipeline {
    fn start(inner: &Arc<Inner>, session: &Session) -> Result<Self, StoreError> {
        let (batches, waiting) = bounded::<Batch>(0);
        let (encoded, compressed) = bounded::<Encoded>(0);
        let (first, second) = (
            (inner.clone(), session.clone()),
            (inner.clone(), session.clone()),
        );
        Ok(Self {
            batches,
            encoder: spawn("firn-compress", move || {
                encode_all(&first.0, &first.1, &waiting, &encoded)
            })?,
            storer: spawn("firn-store", move || {
                store_all(&second.0, &second.1, &compressed)
            })?,
        })
    }

    /// Waits for all batches. The storer's error is the cause of the encoder's, if both have one.
    fn finish(self) -> Result<Stored, StoreError> {
        drop(self.batches);
        let panicked = |_| Err(failed_before());
        let encoded = self.encoder.join().unwrap_or_else(panicked);
        let stored = self
            .storer
            .join()
            .unwrap_or_else(|_| Err(failed_before()))?;
        encoded.map(|()| stored)
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
    batches: &Receiver<Batch>,
    encoded: &Sender<Encoded>,
) -> Result<(), StoreError> {
    for batch in batches {
        if encoded.send(encode(inner, session, batch)?).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn store_all(
    inner: &Inner,
    session: &Session,
    batches: &Receiver<Encoded>,
) -> Result<Stored, StoreError> {
    let mut stored = Stored::default();
    for encoded in batches {
        store(inner, session, encoded, &mut stored)?;
    }
    Ok(stored)
}

/// Names a batch's chunks, pins those that are known, compresses the others, each once.
fn encode(inner: &Inner, session: &Session, batch: Batch) -> Result<Encoded, StoreError> {
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
    let frames = unique
        .par_iter()
        .zip(&raw)
        .zip(&missing)
        .filter(|(_, missing)| **missing)
        .map(|((id, raw), _)| codec::with_encoder(|encoder| encoder.encode_with_id(*id, raw)))
        .collect();
    let chunks = ids
        .iter()
        .zip(&pieces)
        .map(|(id, piece)| ChunkRef {
            id: *id,
            raw_length: u32::try_from(piece.len()).unwrap_or(u32::MAX),
        })
        .collect();
    Ok(Encoded {
        chunks,
        frames,
        _permit: batch._permit,
    })
}

/// Stores a batch's new frames, and hashes the frames that are held for its chunks.
fn store(
    inner: &Inner,
    session: &Session,
    encoded: Encoded,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    inner.session_touch(&session.id)?;
    let fresh: HashMap<ChunkId, VerifiedFrame> = encoded
        .frames
        .iter()
        .map(|frame| (frame.record().id, frame.clone()))
        .collect();
    inner.packs.put(session, encoded.frames)?;
    let ids = || encoded.chunks.iter().map(|chunk| chunk.id);
    let located = inner
        .db
        .snapshot(|connection| chunks::locate(connection, session.domain, ids()))?;
    let missing: Vec<ChunkId> = ids()
        .zip(&located)
        .filter_map(|(id, located)| located.is_none().then_some(id))
        .collect();
    if !missing.is_empty() {
        return Err(StoreError::MissingChunks(missing));
    }
    let placed: Vec<_> = ids().zip(located.into_iter().flatten()).collect();
    // Runs of what was just compressed and runs of what lies in packs, in order.
    let held = |id: &ChunkId, checksum: u64| {
        fresh
            .get(id)
            .filter(|frame| frame.record().checksum == checksum)
    };
    let is_held = |entry: &(ChunkId, chunks::Located)| held(&entry.0, entry.1.checksum).is_some();
    for run in placed.chunk_by(|a, b| is_held(a) == is_held(b)) {
        if run.first().is_some_and(is_held) {
            for (id, located) in run {
                if let Some(frame) = held(id, located.checksum) {
                    stored.hashes.add_frame(frame.frame(), located.checksum);
                }
            }
        } else {
            let located: Vec<_> = run.iter().map(|(_, located)| *located).collect();
            hash_stored(&inner.source, &located, |frame, located| {
                stored.hashes.add_frame(frame, located.checksum);
                Ok(())
            })?;
        }
    }
    stored.list.chunks.extend(encoded.chunks);
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
