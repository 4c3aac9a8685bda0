//! Damaged frames: out of the way of readers, and back when somebody sends them again.
//!
//! Who meets a frame that is not as it was written (a reader, the scrub, a check) tells it here. A thread reads it
//! once more; if it is damaged indeed, or its pack lost ([`crate::presence`]), its chunk is taken out of the valid
//! ones, and in the same transaction the
//! blobs that list it are marked as broken, which hides the entries that name them: readers get "not found" before
//! any status line (rule 9), and pushers are told that it is missing. The frame that is sent then makes all of
//! them whole at once. Where it is another frame than the lost one, digests of blobs are made anew here.

mod again;

use crate::StoreError;
use crate::db::damage::{self, ChunkAt, Place};
use crate::db::{Database, Durability, blobs, caches, lock, remade, sessions};
use crate::entry_cache::EntryCache;
use crate::read::{Extent, FrameSource, Layouts};
use crate::types::{BlobId, CacheId, Change, DomainId, Remake, Session};
use crate::verifier::{BlobVerifier, Seen};
use crossbeam_channel::{Receiver, Sender, bounded};
use firn_chunks::{ChunkId, VerifiedFrame};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

/// Suspects that wait; more are dropped, and found again by whoever reads them next.
const WAITING_MAX: usize = 4096;
/// Chunks taken out in one transaction.
const BATCH_MAX: usize = 1024;
/// Blobs made anew before suspects are looked at again.
const REMADE_MAX: usize = 16;

enum Task {
    Suspect(Place),
    /// Blobs may wait to be made anew.
    Remake,
    /// To be answered when all before it is done.
    Settle(Sender<()>),
}

/// Where readers tell of what they find.
#[derive(Clone)]
pub(crate) struct Suspects {
    tasks: Sender<Task>,
}

impl Suspects {
    /// A frame that is not as it was written. Never waits.
    pub(crate) fn tell(&self, pack: i64, offset: u64) {
        let _ = self.tasks.try_send(Task::Suspect(Place { pack, offset }));
    }

    /// The frames that could not be read.
    pub(crate) fn tell_all(&self, extents: &[Extent]) {
        for extent in extents {
            self.tell(extent.pack, extent.offset);
        }
    }

    /// A damaged chunk may have got another frame.
    pub(crate) fn remake(&self) {
        let _ = self.tasks.try_send(Task::Remake);
    }
}

/// The receiving end, until a thread takes it.
pub(crate) struct Told(Receiver<Task>);

pub(crate) fn channel() -> (Suspects, Told) {
    let (tasks, told) = bounded(WAITING_MAX);
    (Suspects { tasks }, Told(told))
}

/// What the thread and its callers share.
pub(crate) struct Ward {
    pub(crate) db: Arc<Database>,
    pub(crate) source: Arc<FrameSource>,
    pub(crate) layouts: Arc<Layouts>,
    pub(crate) entries: Arc<EntryCache>,
    /// Grows with every change of what can be served: for caches outside the store.
    pub(crate) changes: AtomicU64,
    pub(crate) remake: OnceLock<Remake>,
    /// Where looking again at what is in quarantine goes on.
    pub(crate) looked: Mutex<Option<(DomainId, ChunkId)>>,
}

/// The thread that examines.
pub(crate) struct Quarantine {
    pub(crate) ward: Arc<Ward>,
    suspects: Suspects,
    thread: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Quarantine {
    pub(crate) fn start(ward: Ward, suspects: Suspects, told: Told) -> Result<Self, StoreError> {
        let ward = Arc::new(ward);
        let (stop, stopped) = bounded::<()>(0);
        let inside = ward.clone();
        let thread = std::thread::Builder::new()
            .name("firn-quarantine".into())
            .spawn(move || serve(&inside, &told.0, &stopped))
            .map_err(|error| StoreError::io("thread firn-quarantine", error))?;
        Ok(Self {
            ward,
            suspects,
            thread: Mutex::new(Some((stop, thread))),
        })
    }

    /// Waits until all that was told before has been looked at.
    pub(crate) fn settle(&self) {
        let (done, waiting) = bounded(1);
        if self.suspects.tasks.send(Task::Settle(done)).is_ok() {
            // The thread may end first: then nothing more is looked at.
            let _ = waiting.recv();
        }
    }

    pub(crate) fn stop(&self) {
        if let Some((stop, thread)) = lock(&self.thread).take() {
            drop(stop);
            // The thread's panic has been reported by the runtime already.
            let _ = thread.join();
        }
    }
}

fn serve(ward: &Ward, told: &Receiver<Task>, stopped: &Receiver<()>) {
    // Damage outlives a restart, and so do blobs that wait to be made anew.
    tend(ward, &[], true);
    loop {
        let first = crossbeam_channel::select! {
            recv(told) -> task => match task { Ok(task) => task, Err(_) => return },
            recv(stopped) -> _ => return,
        };
        let (mut places, mut remake, mut settled) = (Vec::new(), false, Vec::new());
        for task in std::iter::once(first).chain(told.try_iter().take(WAITING_MAX)) {
            match task {
                Task::Suspect(place) => places.push(place),
                Task::Remake => remake = true,
                Task::Settle(done) => settled.push(done),
            }
        }
        tend(ward, &places, remake);
        // Who does not wait any more needs no answer.
        for done in settled {
            let _ = done.send(());
        }
    }
}

fn tend(ward: &Ward, places: &[Place], remake: bool) {
    if !places.is_empty()
        && let Err(error) = ward.examine(places, "reader")
    {
        tracing::error!(%error, "a damaged frame could not be put into quarantine");
    }
    if remake && let Err(error) = ward.remake_all() {
        tracing::warn!(%error, "blobs wait to be made anew");
    }
}

impl Ward {
    /// Reads suspected frames once more, and takes the chunks of those that are damaged out of the valid ones. Says
    /// how many.
    pub(crate) fn examine(&self, places: &[Place], found_by: &str) -> Result<usize, StoreError> {
        let mut by_pack: BTreeMap<i64, HashSet<u64>> = BTreeMap::new();
        for place in places {
            by_pack.entry(place.pack).or_default().insert(place.offset);
        }
        let mut damaged = Vec::new();
        for (pack, offsets) in by_pack {
            for offset in offsets {
                let place = Place { pack, offset };
                let found = self
                    .db
                    .read(|connection| damage::chunks_from(connection, place, 1))?;
                // It may have been collected, or be in quarantine already.
                let chunk = found.into_iter().find(|chunk| chunk.place == place);
                let Some(chunk) = chunk else { continue };
                match self.is_damaged(&chunk) {
                    Ok(true) => damaged.push(chunk),
                    Ok(false) => {}
                    // Nothing is known of what cannot be read; who asked for it was told so.
                    Err(error) if again::may_pass(&error) => {
                        tracing::warn!(pack, offset, error = error.chain(), "not looked at");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.quarantine(&damaged, found_by)
    }

    /// Whether a frame is not as it was written.
    fn is_damaged(&self, chunk: &ChunkAt) -> Result<bool, StoreError> {
        match self.source.read_quietly(&[extent(chunk)], &mut Vec::new()) {
            Ok(()) => Ok(false),
            Err(error) if is_damage(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes chunks out of the valid ones, in batches.
    pub(crate) fn quarantine(
        &self,
        chunks: &[ChunkAt],
        found_by: &str,
    ) -> Result<usize, StoreError> {
        let mut taken = 0;
        for batch in chunks.chunks(BATCH_MAX) {
            taken += self.quarantine_batch(batch, found_by)?;
        }
        Ok(taken)
    }

    fn quarantine_batch(&self, chunks: &[ChunkAt], found_by: &str) -> Result<usize, StoreError> {
        let ids: HashSet<_> = chunks
            .iter()
            .map(|chunk| (chunk.domain, chunk.id))
            .collect();
        // All lists are read outside of the writer; inside it only those that were added meanwhile (as rule 6).
        let (mut broken, newest) = self.db.snapshot(|connection| {
            Ok((
                damage::listing(connection, &ids, 0)?,
                damage::newest_blob(connection)?,
            ))
        })?;
        let (chunks, by) = (chunks.to_vec(), found_by.to_owned());
        let (taken, broken) = self.db.write(Durability::Synced, move |connection| {
            broken.extend(damage::listing(connection, &ids, newest)?);
            let mut taken = HashSet::new();
            for chunk in &chunks {
                if damage::quarantine(connection, chunk, &by)? {
                    taken.insert((chunk.domain, chunk.id));
                }
            }
            broken.retain(|(domain, _, id)| taken.contains(&(*domain, *id)));
            damage::break_blobs(connection, &broken)?;
            damage::tidy(connection)?;
            Ok((taken.len(), broken.len()))
        })?;
        self.changed();
        if taken > 0 {
            tracing::error!(
                chunks = taken,
                blobs = broken,
                found_by,
                "damaged chunks are in quarantine"
            );
        }
        Ok(taken)
    }

    /// What could be served before may not be any more, or may have other bytes.
    pub(crate) fn changed(&self) {
        self.entries.published();
        self.layouts.forget_all();
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What becomes of entries whose blob is made anew. Without a word from above they stay.
    pub(crate) fn remake(&self) -> Remake {
        self.remake.get().copied().unwrap_or(|_, _, _| Change::Keep)
    }

    /// Makes the digests of blobs anew whose chunks are here with other frames than were hashed.
    fn remake_all(&self) -> Result<(), StoreError> {
        // Some may fail; each is tried once.
        let mut tried = HashSet::new();
        loop {
            let waiting = self
                .db
                .read(|connection| damage::to_remake(connection, REMADE_MAX + tried.len()))?;
            let Some(id) = waiting.into_iter().find(|id| tried.insert(*id)) else {
                return Ok(());
            };
            match self.remake_one(id) {
                Ok(()) => tracing::info!(blob = id.0, "a blob got another zstd representation"),
                Err(error) => tracing::warn!(blob = id.0, %error, "a blob waits to be made anew"),
            }
        }
    }

    fn remake_one(&self, id: BlobId) -> Result<(), StoreError> {
        let found = self.db.snapshot(|connection| {
            Ok(match blobs::by_id(connection, id)? {
                Some(blob) => Some((blob.domain, blobs::list(connection, id)?)),
                None => None,
            })
        })?;
        let Some((domain, list)) = found else {
            return Ok(());
        };
        let session = Session::of_nobody(domain);
        let mut verifier = BlobVerifier::new(self.db.clone(), self.source.clone(), &session, list);
        let hashed = verifier.finish()?;
        let change = self.remake();
        self.db.write(Durability::Synced, move |connection| {
            if Seen::now(connection)? != hashed.seen {
                return Err(StoreError::Damaged("frames changed while hashed".into()));
            }
            remade::remake(connection, id, &hashed.blob, change).map(drop)
        })?;
        self.changed();
        Ok(())
    }
}

/// Whether an error says that stored bytes are not what they were, or lost for sure. Others may pass.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged(_))
}

/// Where a chunk's frame lies.
pub(crate) fn extent(chunk: &ChunkAt) -> Extent {
    Extent {
        pack: chunk.place.pack,
        offset: chunk.place.offset,
        length: chunk.frame_length,
        checksum: chunk.checksum,
    }
}

impl crate::store::Inner {
    /// See `Store::heal`.
    pub(crate) fn heal(&self, frames: Vec<VerifiedFrame>) -> Result<u64, StoreError> {
        let mut by_cache: BTreeMap<i64, Vec<VerifiedFrame>> = BTreeMap::new();
        for frame in frames {
            let id = frame.record().id;
            let caches = self
                .db
                .read(|connection| damage::caches_lacking(connection, id))?;
            for cache in caches {
                by_cache.entry(cache.0).or_default().push(frame.clone());
            }
        }
        let mut healed = 0;
        for (cache, frames) in by_cache {
            let ttl = self.options.session_ttl;
            // Frames are stored for a session, as a push stores them.
            let session = self.db.write(Durability::Ordered, move |connection| {
                let cache = caches::expect(connection, CacheId(cache))?;
                sessions::open(connection, &cache, ttl)
            })?;
            healed += self.packs.put(&session, frames)? as u64;
            self.db.write(Durability::Synced, move |connection| {
                sessions::close(connection, &session.id)
            })?;
        }
        Ok(healed)
    }
}
