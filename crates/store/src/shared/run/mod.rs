//! Writing: frames into packs, packs to the place, and all of it made visible by one segment.

mod batch;
pub(super) mod merge;
mod pack;
mod publish;

use super::{Inner, Located, StoredPack, clock};
use crate::{EntryKind, StoreError};
use batch::Batch;
use firn_chunks::{
    ChunkId, ListId, VerifiedFrame,
    pack::Placed,
    segment::{BlobRecord, Record},
};
use pack::Uploads;
pub(super) use pack::{PackBuilder, ReadyPack};
pub(super) use publish::RELIANCE_MAX;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a run wrote so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RunReport {
    pub packs: u64,
    pub frames_new: u64,
    /// Frames that the store, or this run, had already.
    pub frames_known: u64,
    /// Of packs and segments, as sent to the backend.
    pub bytes_written: u64,
    pub segments_merged: u64,
}

/// One writer's packs and records. Many threads may add at once. Nothing is visible before
/// [`Run::publish`]; what a run that dies has uploaded is garbage for the collector. After a pack could not be
/// uploaded every call fails: begin a new run.
///
/// Between two checkpoints no more than half a day may pass (see `docs/on-disk-format.md`, "Collection").
#[derive(Debug)]
pub struct Run {
    shared: Arc<Inner>,
    writer: String,
    uploads: Uploads,
    state: Mutex<State>,
    /// Held while a segment is made.
    publishing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    pack: Option<PackBuilder>,
    /// Chunks in packs of this run that are not published yet.
    own: HashSet<ChunkId>,
    batch: Batch,
    sequence: u64,
    report: RunReport,
}

#[allow(clippy::missing_errors_doc)]
impl Run {
    pub(super) fn new(shared: Arc<Inner>, writer: &str) -> Result<Self, StoreError> {
        let batch = Batch::new(shared.index.refreshed_at()?);
        Ok(Self {
            uploads: Uploads::new(shared.backend.clone()),
            shared,
            writer: writer.to_owned(),
            state: Mutex::new(State {
                pack: None,
                own: HashSet::new(),
                batch,
                sequence: 0,
                report: RunReport::default(),
            }),
            publishing: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame, unless it is known: then false. Packs that are full are uploaded meanwhile, on threads of
    /// the run's own; this waits while several are under way.
    pub fn add_frame(&self, frame: &VerifiedFrame) -> Result<bool, StoreError> {
        let id = frame.record().id;
        if self.is_known(&id)? {
            self.state().report.frames_known += 1;
            return Ok(false);
        }
        let full = {
            let mut state = self.state();
            if !state.own.insert(id) {
                state.report.frames_known += 1;
                return Ok(false);
            }
            let mut builder = match state.pack.take() {
                Some(builder) => builder,
                None => PackBuilder::new(&self.shared.temporary)?,
            };
            builder.append(frame)?;
            state.report.frames_new += 1;
            state.batch.touch();
            match builder.is_full(self.shared.options.pack_bytes_target) {
                true => Some((self.uploads.ticket(), builder)),
                false => {
                    state.pack = Some(builder);
                    None
                }
            }
        };
        if let Some((ticket, builder)) = full {
            self.uploads.send(ticket, builder.seal())?;
        }
        Ok(true)
    }

    /// Which of these frames the run brings itself; [`super::SharedStore::locate`] tells of the store's.
    pub fn brings(&self, ids: &[ChunkId]) -> Vec<bool> {
        let state = self.state();
        ids.iter().map(|id| state.own.contains(id)).collect()
    }

    fn is_known(&self, id: &ChunkId) -> Result<bool, StoreError> {
        {
            let state = self.state();
            if state.own.contains(id) || state.batch.relies_on(id) {
                return Ok(true);
            }
        }
        let Some(located) = self.shared.index.locate(&[*id])?.pop().flatten() else {
            return Ok(false);
        };
        self.rely_on(vec![located])?;
        Ok(true)
    }

    /// Counts on frames that the store has.
    fn rely_on(&self, located: Vec<Located>) -> Result<(), StoreError> {
        let mut new: Vec<Arc<str>> = Vec::new();
        {
            let state = self.state();
            for found in &located {
                if state.batch.pack_length(&found.pack).is_none() && !new.contains(&found.pack) {
                    new.push(found.pack.clone());
                }
            }
        }
        let mut lengths = Vec::with_capacity(new.len());
        for name in new {
            let pack = self.shared.index.pack(&name)?;
            lengths.push((name, pack.map_or(0, |pack| pack.length)));
        }
        let mut state = self.state();
        for (name, length) in lengths {
            state.batch.note_pack(name, length);
        }
        for found in located {
            state.batch.rely_on(found);
        }
        Ok(())
    }

    /// Adds a blob; all its chunks are in the store or in this run when the run is published.
    pub fn add_blob(&self, blob: BlobRecord) -> Result<(), StoreError> {
        let ids: Vec<ChunkId> = blob.list.chunks.iter().map(|chunk| chunk.id).collect();
        let located = self.shared.index.locate(&ids)?;
        self.rely_on(located.into_iter().flatten().collect())?;
        self.state().batch.blobs.push(blob);
        Ok(())
    }

    /// Adds an entry. It is newer than any of its key that the index knows.
    pub fn add_entry(
        &self,
        cache: &str,
        kind: EntryKind,
        key: &str,
        value: &[u8],
        blobs: &[ListId],
    ) -> Result<(), StoreError> {
        self.put_entry(cache, kind, key, Some((value, blobs)))
    }

    /// Takes back an entry.
    pub fn delete_entry(&self, cache: &str, kind: EntryKind, key: &str) -> Result<(), StoreError> {
        self.put_entry(cache, kind, key, None)
    }

    /// `None` is a tombstone.
    fn put_entry(
        &self,
        cache: &str,
        kind: EntryKind,
        key: &str,
        content: Option<(&[u8], &[ListId])>,
    ) -> Result<(), StoreError> {
        let before = self.shared.index.sequence(cache, kind, key)?.unwrap_or(0);
        let (value, blobs) = content.unwrap_or_default();
        let mut state = self.state();
        let sequence = clock::micros().max(state.sequence + 1).max(before + 1);
        state.sequence = sequence;
        state.batch.entries.push(Record::Entry {
            cache: cache.to_owned(),
            kind: kind as u16,
            key: key.to_owned(),
            value: value.to_vec(),
            blobs: blobs.iter().map(|id| id.0).collect(),
            sequence,
            at: clock::seconds(),
            deleted: content.is_none(),
        });
        Ok(())
    }

    /// Frames that lie already where the backend can read them (an image layer in a registry): `name` is what
    /// [`super::Backend::read`] takes.
    pub fn add_stored_pack(&self, pack: StoredPack, frames: &[Placed]) -> Result<(), StoreError> {
        let mut state = self.state();
        state
            .own
            .extend(frames.iter().map(|placed| placed.record.id));
        state.batch.touch();
        state.batch.packs.push(ReadyPack {
            pack,
            frames: frames.to_vec(),
        });
        Ok(())
    }

    /// Makes what was added so far visible, and goes on. Blobs of which a chunk is not here yet, and the entries
    /// that name them, wait for the next time.
    pub fn checkpoint(&self) -> Result<RunReport, StoreError> {
        self.flush(false)
    }

    /// Uploads what is left, then makes all of it visible in one segment, into which small older segments are
    /// merged. `MissingChunks` if a blob has a chunk that is not here, `MissingEntry` if an entry names a blob
    /// that is not. A run with nothing in it publishes nothing.
    pub fn publish(self) -> Result<RunReport, StoreError> {
        self.flush(true)
    }

    /// Makes a segment of what is there. If that fails, what was taken is put back.
    fn flush(&self, last: bool) -> Result<RunReport, StoreError> {
        let _one = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let begun = {
            let mut state = self.state();
            state.pack.take().map(|pack| (self.uploads.ticket(), pack))
        };
        if let Some((ticket, builder)) = begun {
            self.uploads.send(ticket, builder.seal())?;
        }
        let ready = self.uploads.wait()?;
        let refreshed_at = self.shared.index.refreshed_at()?;
        let mut batch = {
            let mut state = self.state();
            state.report.packs += ready.len() as u64;
            state.report.bytes_written += ready.iter().map(|ready| ready.pack.length).sum::<u64>();
            let mut batch = std::mem::replace(&mut state.batch, Batch::new(refreshed_at));
            batch.packs.extend(ready);
            batch
        };
        let published = self.publish_batch(&mut batch, last);
        let mut state = self.state();
        if let Ok(published) = &published {
            for id in &published.chunks {
                state.own.remove(id);
            }
            state.report.bytes_written += published.bytes;
            state.report.segments_merged += published.merged;
        }
        // What waits, or everything.
        state.batch.absorb(batch);
        published.map(|_| state.report)
    }
}
