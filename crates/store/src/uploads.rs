//! Uploads that go on after a restart: a stream into the store whose progress is durable.
//!
//! ```text
//! bytes 0 … durable ……………………… offset
//!       └─ chunks in rows ─┴─ tail ─┘       tail: bytes that lie in no chunk yet, below one chunk's maximum
//! ```
//! Chunks are told to the database as they are stored, and [`Upload::checkpoint`] adds the tail, so that
//! every byte a client was told of is there. What is durable never goes back: chunks that end before it
//! wait until there are enough of them. The upload's session pins its chunks (rule 5). Cuts depend only on
//! the bytes from the last cut on, so a stream that goes on at its tail has the chunks of one that never broke.

use crate::StoreError;
use crate::db::writer::lock;
use crate::db::{Durability, sessions, uploads};
use crate::ingest::Ingest;
use crate::store::Inner;
use crate::types::{BlobInfo, CacheId, CacheRow, Session, UploadLimits};
use firn_chunks::ChunkRef;
use firn_formats::Sha256;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An upload under way. Dropping it leaves what is durable, to be found by [`crate::Store::upload_resume`].
pub struct Upload {
    inner: Arc<Inner>,
    session: Session,
    owner: String,
    idle: Duration,
    /// Absent once it is finished.
    ingest: Option<Ingest>,
    offset: u64,
    progress: Arc<Progress>,
}

/// What the database knows of an upload.
struct Progress {
    inner: Arc<Inner>,
    id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// End of the stored chunks.
    stored: u64,
    /// End of what is durable: chunks and tail.
    durable: u64,
    /// Stored chunks that the database was not told of yet.
    waiting: Vec<ChunkRef>,
    /// Its upload is gone. What is still on its way must not be told: the next holder has read what there is.
    over: bool,
}

fn gone(id: &str) -> StoreError {
    StoreError::SessionGone(id.to_owned())
}

impl Drop for Upload {
    fn drop(&mut self) {
        lock(&self.progress.state).over = true;
    }
}

impl Progress {
    /// Chunks were stored; without a tail they are told only if nothing durable would be forgotten.
    fn stored(&self, chunks: &[ChunkRef]) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        if state.over {
            return Err(gone(&self.id));
        }
        state.waiting.extend_from_slice(chunks);
        state.stored += chunks
            .iter()
            .map(|chunk| u64::from(chunk.raw_length))
            .sum::<u64>();
        match state.stored >= state.durable {
            true => self.tell(&mut state, &[]),
            false => Ok(()),
        }
    }

    fn tell(&self, state: &mut State, tail: &[u8]) -> Result<(), StoreError> {
        let durable = state.stored + tail.len() as u64;
        if state.waiting.is_empty() && durable == state.durable {
            return Ok(());
        }
        let (id, tail) = (self.id.clone(), tail.to_vec());
        let chunks = std::mem::take(&mut state.waiting);
        self.inner
            .db
            .write(Durability::Ordered, move |connection| {
                uploads::advance(connection, &id, &chunks, &tail)
            })?;
        state.durable = durable;
        Ok(())
    }
}

impl Upload {
    pub(crate) fn begin(
        inner: &Arc<Inner>,
        cache: &CacheRow,
        owner: &str,
        limits: UploadLimits,
    ) -> Result<Self, StoreError> {
        let (cache, name) = (cache.clone(), owner.to_owned());
        let session = inner.db.write(Durability::Ordered, move |connection| {
            let UploadLimits {
                idle,
                fresh,
                open_max,
            } = limits;
            uploads::open(connection, &cache, &name, idle, fresh, open_max)
        })?;
        let row = uploads::Row {
            session,
            owner: owner.to_owned(),
            chunks: Vec::new(),
            tail: Vec::new(),
        };
        Self::go_on(inner, row, limits.idle)
    }

    pub(crate) fn resume(
        inner: &Arc<Inner>,
        id: &str,
        limits: UploadLimits,
    ) -> Result<Self, StoreError> {
        let row = inner
            .db
            .snapshot(|connection| uploads::find(connection, id))?;
        Self::go_on(inner, row, limits.idle)
    }

    fn go_on(inner: &Arc<Inner>, row: uploads::Row, idle: Duration) -> Result<Self, StoreError> {
        let stored = row
            .chunks
            .iter()
            .map(|chunk| u64::from(chunk.raw_length))
            .sum::<u64>();
        let offset = stored + row.tail.len() as u64;
        let progress = Arc::new(Progress {
            inner: inner.clone(),
            id: row.session.id.clone(),
            state: Mutex::new(State {
                stored,
                durable: offset,
                waiting: Vec::new(),
                over: false,
            }),
        });
        let watch = progress.clone();
        let mut ingest = Ingest::resumed(
            inner.clone(),
            &row.session,
            row.chunks,
            Box::new(move |chunks| watch.stored(chunks)),
        );
        ingest.write(&row.tail)?;
        Ok(Self {
            inner: inner.clone(),
            session: row.session,
            owner: row.owner,
            idle,
            ingest: Some(ingest),
            offset,
            progress,
        })
    }

    /// Its id, by which it is resumed.
    pub fn id(&self) -> &str {
        &self.session.id
    }

    /// The cache it goes into.
    pub fn cache(&self) -> CacheId {
        self.session.cache
    }

    /// What its beginner called it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Bytes taken in.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many of them are durable.
    pub fn durable(&self) -> u64 {
        lock(&self.progress.state).durable
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Whatever storing fails with; the upload may then be resumed where it is durable.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let ingest = self.ingest.as_mut().ok_or_else(|| gone(&self.session.id))?;
        ingest.write(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes all that was taken in durable, and puts the upload's end off.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        let ingest = self.ingest.as_mut().ok_or_else(|| gone(&self.session.id))?;
        ingest.flush()?;
        let mut state = lock(&self.progress.state);
        self.progress.tell(&mut state, ingest.held())?;
        drop(state);
        self.touch()
    }

    /// Puts the upload's end off. Written only when half of its time has gone.
    ///
    /// # Errors
    /// [`StoreError::SessionGone`] if it has ended.
    pub fn touch(&mut self) -> Result<(), StoreError> {
        let session = self
            .inner
            .db
            .read(|connection| sessions::find(connection, &self.session.id))?;
        if session.expires_in >= self.idle / 2 {
            return Ok(());
        }
        let (id, idle) = (self.session.id.clone(), self.idle);
        self.inner.db.write(Durability::Ordered, move |connection| {
            sessions::renew(connection, &id, idle)
        })
    }

    /// The blob, under a lease. The session goes on, until [`crate::Store::session_close`] ends it: so the
    /// blob's chunks are pinned until an entry names it.
    ///
    /// # Errors
    /// As [`Upload::write`]; as [`crate::Ingest::finish_as`].
    pub fn finish_as(mut self, promised: Option<Sha256>) -> Result<BlobInfo, StoreError> {
        let ingest = self.ingest.take().ok_or_else(|| gone(&self.session.id))?;
        ingest.finish_as(promised)
    }
}
