//! Hashing a blob from its frames: what makes a blob's row (rule 2).

use crate::StoreError;
use crate::codec;
use crate::db::Database;
use crate::db::blobs::NewBlob;
use crate::db::chunks::{self, Located};
use crate::db::damage;
use crate::read::{Extent, FrameSource};
use crate::store::LOOKS_MAX;
use crate::types::{DomainId, Session};
use firn_chunks::{ChunkId, ChunkList, VerifiedFrame};
use firn_formats::Sha256;
use firn_formats::sha256::Sha256Hasher;
use std::cell::RefCell;
use std::sync::Arc;

/// Chunks looked up at once.
const LOOKUP_MAX: usize = 512;
/// Frame bytes read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// Computes a blob's hashes as its chunks come in. Lives as long as its session.
pub struct BlobVerifier {
    db: Arc<Database>,
    source: Arc<FrameSource>,
    domain: DomainId,
    pub(crate) session: String,
    list: ChunkList,
    hashes: Hashes,
    listener: Option<Listener>,
}

/// Hears a blob's raw bytes as they are hashed: where they begin, and the bytes. Begins anew, at 0, if hashing does;
/// hears only some of a blob that is known.
pub type Listener = Box<dyn FnMut(u64, &[u8]) + Send>;

/// A chunk that has just been decoded, so that its blobs need not decode it again.
#[derive(Debug, Clone, Copy)]
pub struct FreshChunk<'a> {
    /// What `frame` decodes to.
    pub raw: &'a [u8],
    /// The frame that is stored, or is about to be.
    pub frame: &'a VerifiedFrame,
}

/// Hashes of both representations, up to some chunk.
#[derive(Default)]
pub(crate) struct Hashes {
    identity: Sha256Hasher,
    raw_length: u64,
    zstd: Sha256Hasher,
    zstd_length: u64,
    /// Of each frame hashed: to tell in the end whether it is the one that is held. Two senders of one chunk may
    /// have compressed it differently, and the digest must be of the stored frames.
    frames: Vec<(u64, u32)>,
}

impl Hashes {
    /// For a stream whose raw bytes were hashed elsewhere.
    pub(crate) fn with_identity(mut self, identity: Sha256Hasher) -> Self {
        self.identity = identity;
        self
    }

    fn add(&mut self, raw: &[u8], frame: &[u8], checksum: u64, listener: &mut Option<Listener>) {
        self.identity.update(raw);
        if let Some(listener) = listener {
            listener(self.raw_length, raw);
        }
        self.raw_length += raw.len() as u64;
        self.add_frame(frame, checksum);
    }

    /// A stored frame, in order.
    pub(crate) fn add_frame(&mut self, frame: &[u8], checksum: u64) {
        self.zstd.update(frame);
        self.zstd_length += frame.len() as u64;
        self.frames.push((checksum, frame.len() as u32));
    }
}

thread_local! {
    static FRAMES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What [`BlobVerifier::finish`] found.
pub(crate) struct Hashed {
    pub(crate) blob: NewBlob,
    pub(crate) seen: Seen,
    pub(crate) session: String,
}

/// What was true of the database when all chunks were valid and had the frames that were hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// [`chunks::condemnations`].
    pub(crate) condemnations: i64,
    /// [`damage::reframings`].
    pub(crate) reframings: i64,
}

impl Seen {
    pub(crate) fn now(connection: &rusqlite::Connection) -> Result<Self, StoreError> {
        Ok(Self {
            condemnations: chunks::condemnations(connection)?,
            reframings: damage::reframings(connection)?,
        })
    }
}

impl BlobVerifier {
    pub(crate) fn new(
        db: Arc<Database>,
        source: Arc<FrameSource>,
        session: &Session,
        list: ChunkList,
    ) -> Self {
        Self {
            db,
            source,
            domain: session.domain,
            session: session.id.clone(),
            list,
            hashes: Hashes::default(),
            listener: None,
        }
    }

    /// Lets someone hear the raw bytes, in the same pass.
    #[must_use]
    pub fn heard_by(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// One whose frames have all been hashed.
    pub(crate) fn from_hashes(
        db: Arc<Database>,
        source: Arc<FrameSource>,
        session: &Session,
        list: ChunkList,
        hashes: Hashes,
    ) -> Self {
        Self {
            hashes,
            ..Self::new(db, source, session, list)
        }
    }

    /// The chunks.
    pub fn list(&self) -> &ChunkList {
        &self.list
    }

    /// Lets another session of the same domain finish it; one of another domain sees none of its chunks.
    pub(crate) fn for_session(mut self, session: &Session) -> Self {
        self.session.clone_from(&session.id);
        if self.domain != session.domain {
            self.domain = session.domain;
            self.hashes = Hashes::default();
        }
        self
    }

    pub(crate) fn domain(&self) -> DomainId {
        self.domain
    }

    /// Goes on from where it stands: a chunk just decoded comes from `fresh`, others from the store; stops at the first that is in neither. No harm if never called.
    ///
    /// # Errors
    /// [`StoreError::WrongList`] if a chunk does not have the length that the list declares.
    pub fn advance<'a>(
        &mut self,
        fresh: &dyn Fn(&ChunkId) -> Option<FreshChunk<'a>>,
    ) -> Result<(), StoreError> {
        loop {
            while let Some(chunk) = self.list.chunks.get(self.hashes.frames.len()) {
                let Some(FreshChunk { raw, frame }) = fresh(&chunk.id) else {
                    break;
                };
                check_length(&chunk.id, chunk.raw_length, raw.len())?;
                let checksum = frame.record().checksum;
                self.hashes
                    .add(raw, frame.frame(), checksum, &mut self.listener);
            }
            if !self.advance_stored(fresh)? {
                return Ok(());
            }
        }
    }

    /// Hashes the stored frames that follow, up to the first that is fresh or not here; false if there
    /// is nothing more to do.
    fn advance_stored<'a>(
        &mut self,
        fresh: &dyn Fn(&ChunkId) -> Option<FreshChunk<'a>>,
    ) -> Result<bool, StoreError> {
        let position = self.hashes.frames.len();
        let rest = self.list.chunks.get(position..).unwrap_or_default();
        // Ends at the first that is missing or fresh; the very first is known not to be fresh.
        let located = self.db.snapshot(|connection| {
            let mut located: Vec<Located> = Vec::new();
            for chunk in rest.iter().take(LOOKUP_MAX) {
                if !located.is_empty() && fresh(&chunk.id).is_some() {
                    break;
                }
                let Some(found) = chunks::locate_one(connection, self.domain, chunk.id)? else {
                    break;
                };
                check_length(&chunk.id, chunk.raw_length, found.raw_length as usize)?;
                located.push(found);
            }
            Ok(located)
        })?;
        let held = Held {
            db: &self.db,
            source: &self.source,
            domain: self.domain,
        };
        held.hash(&located, |frame, located| {
            codec::decode(frame, located.raw_length, |raw| {
                self.hashes
                    .add(raw, frame, located.checksum, &mut self.listener);
            })
        })?;
        Ok(!located.is_empty())
    }

    /// Hashes to the end and checks every frame against what is held.
    pub(crate) fn finish(&mut self) -> Result<Hashed, StoreError> {
        self.advance(&|_| None)?;
        let (located, seen) = self.locate_all()?;
        let same = |hashes: &Hashes| {
            hashes.frames.len() == located.len()
                && hashes
                    .frames
                    .iter()
                    .zip(&located)
                    .all(|((checksum, length), held)| {
                        *checksum == held.checksum && *length == held.frame_length
                    })
        };
        if !same(&self.hashes) {
            // Someone else's frame of a chunk was kept instead of the one hashed.
            self.hashes = Hashes::default();
            self.advance(&|_| None)?;
            if !same(&self.hashes) {
                return Err(StoreError::Damaged("frames changed while hashed".into()));
            }
        }
        let hashes = std::mem::take(&mut self.hashes);
        Ok(Hashed {
            blob: new_blob(
                self.domain,
                &self.list,
                hashes.identity.finish(),
                hashes.zstd.finish(),
                hashes.zstd_length,
            ),
            seen,
            session: self.session.clone(),
        })
    }

    /// Where all chunks are; `MissingChunks` names those that are not here.
    pub(crate) fn locate_all(&self) -> Result<(Vec<Located>, Seen), StoreError> {
        let (located, seen) = self.db.snapshot(|connection| {
            let ids = self.list.chunks.iter().map(|chunk| chunk.id);
            let located = chunks::locate(connection, self.domain, ids)?;
            Ok((located, Seen::now(connection)?))
        })?;
        let missing: Vec<ChunkId> = self
            .list
            .chunks
            .iter()
            .zip(&located)
            .filter_map(|(chunk, located)| located.is_none().then_some(chunk.id))
            .collect();
        if missing.is_empty() {
            Ok((located.into_iter().flatten().collect(), seen))
        } else {
            Err(StoreError::MissingChunks(missing))
        }
    }
}

fn check_length(id: &ChunkId, declared: u32, actual: usize) -> Result<(), StoreError> {
    if declared as usize == actual {
        return Ok(());
    }
    Err(StoreError::WrongList(format!(
        "chunk {id} has {actual} bytes, not {declared} as the list declares"
    )))
}

/// A domain's frames in the packs.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) db: &'a Database,
    pub(crate) source: &'a FrameSource,
    pub(crate) domain: DomainId,
}

impl Held<'_> {
    /// Reads stored frames in pieces and hands each to `take`.
    pub(crate) fn hash(
        self,
        located: &[Located],
        mut take: impl FnMut(&[u8], &Located) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        FRAMES.with_borrow_mut(|buffer| {
            let mut rest = located;
            while !rest.is_empty() {
                let mut bytes = 0;
                let count = rest
                    .iter()
                    .take_while(|located| {
                        bytes += located.frame_length as usize;
                        bytes <= READ_BYTES_MAX
                    })
                    .count()
                    .max(1);
                let (batch, after) = rest.split_at(count);
                let read = self.read(batch, buffer)?;
                let mut frames = buffer.as_slice();
                for located in read.as_deref().unwrap_or(batch) {
                    let (frame, following) = frames.split_at(located.frame_length as usize);
                    take(frame, located)?;
                    frames = following;
                }
                rest = after;
            }
            Ok(())
        })
    }

    /// Reads frames where they lie; where they lie now, if a collector has moved them meanwhile.
    fn read(
        self,
        batch: &[Located],
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Vec<Located>>, StoreError> {
        let mut moved: Option<Vec<Located>> = None;
        for _ in 0..LOOKS_MAX {
            let places = moved.as_deref().unwrap_or(batch);
            let extents: Vec<Extent> = places.iter().map(extent).collect();
            match self.source.read(&extents, buffer) {
                Err(StoreError::Collected(_)) => {}
                read => return read.map(|()| moved),
            }
            let ids = batch.iter().map(|located| located.id);
            let found = self
                .db
                .snapshot(|connection| chunks::locate(connection, self.domain, ids))?;
            let all: Option<Vec<Located>> = found.into_iter().collect();
            // A session that has ended holds nothing.
            let ids = batch.iter().map(|located| located.id).collect();
            moved = Some(all.ok_or(StoreError::MissingChunks(ids))?);
        }
        Err(StoreError::Damaged(
            "frames never stay where they are".into(),
        ))
    }
}

fn extent(located: &Located) -> Extent {
    Extent {
        pack: located.pack,
        offset: located.offset,
        length: located.frame_length,
        checksum: located.checksum,
    }
}

fn new_blob(
    domain: DomainId,
    list: &ChunkList,
    identity_sha256: Sha256,
    zstd_sha256: Sha256,
    zstd_length: u64,
) -> NewBlob {
    NewBlob {
        domain,
        list_id: list.id(),
        chunks: u32::try_from(list.chunks.len()).unwrap_or(u32::MAX),
        list: list.encode(),
        identity_sha256,
        identity_length: list.raw_length(),
        zstd_sha256,
        zstd_length,
    }
}
