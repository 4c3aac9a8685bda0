//! Writing packs: one open pack a domain, to which many callers' frames go together.
//!
//! Whoever comes first leads: writes what is queued with one system call, syncs once, and makes the chunks
//! valid in one operation; the others wait for the answer. Then the first of those who came
//! meanwhile leads. No threads of its own, and the batches grow with the load.

mod file;
mod heal;

pub(crate) use file::OpenPack;

use crate::db::chunks::{self, Appended};
use crate::db::{Database, Durability, caches, lock, sessions};
use crate::failpoint::{Point, reach};
use crate::files::Folder;
use crate::presence::Presence;
use crate::quarantine::Suspects;
use crate::types::{DomainId, Session};
use crate::{StoreError, layout};
use crossbeam_channel::{Sender, bounded};
use file::seal_file;
use firn_chunks::{ChunkId, VerifiedFrame};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Most frame bytes in one batch, beyond the leader's own.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Most frames likewise.
const BATCH_FRAMES_MAX: usize = 1 << 16;
/// A pack with so many frames is sealed however short it is: trailers have a limit
/// ([`firn_chunks::pack::FRAMES_MAX`]), and a batch still fits below it.
pub(crate) const PACK_FRAMES_TARGET: usize = 1 << 18;

/// The open packs of all domains.
pub(crate) struct Packs {
    shared: Arc<Shared>,
    domains: Mutex<HashMap<DomainId, Arc<DomainPacks>>>,
}

struct Shared {
    db: Arc<Database>,
    folder: Arc<Folder>,
    presence: Arc<Presence>,
    bytes_target: u64,
    suspects: Suspects,
    new_total: AtomicU64,
    known_total: AtomicU64,
}

/// One domain's queue and open pack.
struct DomainPacks {
    domain: DomainId,
    name: String,
    shared: Arc<Shared>,
    queue: Mutex<Queue>,
    open: Mutex<Option<OpenPack>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    led: bool,
}

struct Job {
    session: String,
    frames: Arc<Vec<VerifiedFrame>>,
    turn: Sender<Turn>,
}

/// One answer a job of a batch.
type Answers = Vec<Result<usize, StoreError>>;
/// A frame and the job that brought it.
type Owned<'a> = (usize, &'a VerifiedFrame);

enum Turn {
    Lead,
    Done(Result<usize, StoreError>),
}

impl Packs {
    pub(crate) fn new(
        db: Arc<Database>,
        folder: Arc<Folder>,
        presence: Arc<Presence>,
        bytes_target: u64,
        suspects: Suspects,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                db,
                folder,
                presence,
                bytes_target,
                suspects,
                new_total: AtomicU64::new(0),
                known_total: AtomicU64::new(0),
            }),
            domains: Mutex::default(),
        }
    }

    /// Stores frames durably, makes their chunks valid and pins them; says how many were new.
    pub(crate) fn put(
        &self,
        session: &Session,
        frames: Vec<VerifiedFrame>,
    ) -> Result<usize, StoreError> {
        if frames.is_empty() {
            return Ok(0);
        }
        let count = frames.len() as u64;
        let db = &self.shared.db;
        let healing = db.read(crate::db::damage::any)?;
        let frames = match healing {
            true => heal::as_they_were(db, session.domain, frames)?,
            false => frames,
        };
        let new = self.domain(session.domain)?.put(session, frames)?;
        if healing {
            self.shared.suspects.remake();
        }
        self.shared
            .new_total
            .fetch_add(new as u64, Ordering::Relaxed);
        self.shared
            .known_total
            .fetch_add(count.saturating_sub(new as u64), Ordering::Relaxed);
        Ok(new)
    }

    /// Chunks that were known without their frames being sent.
    pub(crate) fn count_known(&self, known: u64) {
        self.shared.known_total.fetch_add(known, Ordering::Relaxed);
    }

    /// Frames that were new, and those that were known, since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (
            self.shared.new_total.load(Ordering::Relaxed),
            self.shared.known_total.load(Ordering::Relaxed),
        )
    }

    /// Seals all open packs.
    pub(crate) fn seal_all(&self) -> Result<(), StoreError> {
        let domains: Vec<_> = lock(&self.domains).values().cloned().collect();
        for domain in domains {
            let mut open = lock(&domain.open);
            if let Some(pack) = open.take() {
                pack.seal(&self.shared.db)?;
            }
        }
        Ok(())
    }

    /// Seals a pack if it is the open one of its domain; false if it is not.
    pub(crate) fn seal_one(&self, domain: DomainId, row: i64) -> Result<bool, StoreError> {
        let Some(domain) = lock(&self.domains).get(&domain).cloned() else {
            return Ok(false);
        };
        let mut open = lock(&domain.open);
        match open.take_if(|pack| pack.row == row && pack.durable_length > 0) {
            Some(pack) => pack.seal(&self.shared.db).map(|()| true),
            None => Ok(false),
        }
    }

    fn domain(&self, id: DomainId) -> Result<Arc<DomainPacks>, StoreError> {
        if let Some(domain) = lock(&self.domains).get(&id) {
            return Ok(domain.clone());
        }
        let name = self
            .shared
            .db
            .read(|connection| caches::domain_name(connection, id))?;
        let made = Arc::new(DomainPacks {
            domain: id,
            name,
            shared: self.shared.clone(),
            queue: Mutex::default(),
            open: Mutex::default(),
        });
        Ok(lock(&self.domains).entry(id).or_insert(made).clone())
    }
}

/// Finishes what a crash left: packs without a trailer are cut to what the database knows, and sealed.
pub(crate) fn recover(db: &Database, folder: &Folder) -> Result<(), StoreError> {
    for pack in db.read(chunks::packs_open)? {
        let key = pack.key();
        let row = pack.id;
        if pack.durable_length == 0 {
            // The row came first, and nothing was ever said to lie in the file.
            folder.delete(&key)?;
            reach(Point::EmptyPackDeleted)?;
            db.write(Durability::Ordered, move |connection| {
                chunks::pack_forget(connection, row)
            })?;
            continue;
        }
        if folder.length(&key)?.unwrap_or(0) < pack.durable_length {
            tracing::error!(pack = %key, "a pack is shorter than the database knows it");
            continue;
        }
        let mut file = folder.reopen(&key, pack.durable_length)?;
        reach(Point::OpenPackCut)?;
        match seal_file(db, row, &mut file) {
            Ok(()) => tracing::info!(pack = %key, "sealed a pack that a crash left open"),
            Err(StoreError::Full(error)) => {
                tracing::warn!(pack = %key, %error, "no room to seal a pack");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The right to write a domain's packs.
struct Lead<'a>(&'a DomainPacks);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        match queue.jobs.front() {
            // Its thread waits for this: nobody leaves the queue but by an answer.
            Some(next) => {
                let _ = next.turn.send(Turn::Lead);
            }
            None => queue.led = false,
        }
    }
}

impl DomainPacks {
    fn put(&self, session: &Session, frames: Vec<VerifiedFrame>) -> Result<usize, StoreError> {
        let (turn, turns) = bounded(2);
        let lead = {
            let mut queue = lock(&self.queue);
            queue.jobs.push_back(Job {
                session: session.id.clone(),
                frames: Arc::new(frames),
                turn,
            });
            !std::mem::replace(&mut queue.led, true)
        };
        if lead {
            self.lead();
        }
        loop {
            match turns.recv() {
                Ok(Turn::Lead) => self.lead(),
                Ok(Turn::Done(result)) => return result,
                Err(_) => {
                    return Err(StoreError::Io {
                        path: layout::PACKS.into(),
                        source: std::io::ErrorKind::BrokenPipe.into(),
                    });
                }
            }
        }
    }

    /// Serves the head of the queue, which is the caller's own job, and those behind it; then hands on.
    fn lead(&self) {
        // Hands on by its drop, so that a panic does not leave the others waiting for ever.
        let _lead = Lead(self);
        let batch = self.take_batch();
        let results = self.store(&batch);
        for (job, result) in batch.iter().zip(results) {
            // Nobody waits for a job whose thread is gone.
            let _ = job.turn.send(Turn::Done(result));
        }
    }

    fn take_batch(&self) -> Vec<Job> {
        let mut queue = lock(&self.queue);
        let mut batch = Vec::new();
        let (mut bytes, mut frames) = (0, 0);
        while let Some(job) = queue.jobs.pop_front() {
            bytes += job
                .frames
                .iter()
                .map(|frame| frame.frame().len())
                .sum::<usize>();
            frames += job.frames.len();
            batch.push(job);
            if bytes >= BATCH_BYTES_MAX || frames >= BATCH_FRAMES_MAX {
                break;
            }
        }
        batch
    }

    fn store(&self, batch: &[Job]) -> Answers {
        let mut open = lock(&self.open);
        loop {
            match self.try_store(&mut open, batch) {
                Ok(Some(results)) => return results,
                // A chunk that was known was condemned meanwhile: look again.
                Ok(None) => {}
                Err(error) => return batch.iter().map(|_| Err(error.duplicate())).collect(),
            }
        }
    }

    fn try_store(
        &self,
        open: &mut Option<OpenPack>,
        batch: &[Job],
    ) -> Result<Option<Answers>, StoreError> {
        let (unknown, condemnations) = self.unknown(batch)?;
        let appended = if unknown.is_empty() {
            None
        } else {
            let frames: Vec<&VerifiedFrame> = unknown.iter().map(|(_, frame)| *frame).collect();
            Some(self.append(open, &frames)?)
        };
        let news = count_by_job(batch.len(), unknown.iter().map(|(job, _)| *job));
        let results = self.commit(batch, appended, condemnations, news);
        let Some(pack) = open.as_mut() else {
            return results;
        };
        if matches!(results, Ok(Some(_))) {
            pack.committed(unknown.len());
            if pack.is_full(self.shared.bytes_target)
                && let Some(full) = open.take()
                && let Err(error) = full.seal(&self.shared.db)
            {
                tracing::warn!(%error, "sealing a pack");
            }
        } else {
            self.take_back(open);
        }
        results
    }

    /// The frames of `batch` whose chunks are not valid yet, each once, with the job that brought it first.
    fn unknown<'a>(&self, batch: &'a [Job]) -> Result<(Vec<Owned<'a>>, i64), StoreError> {
        let mut seen = HashSet::new();
        let candidates: Vec<Owned<'a>> = batch
            .iter()
            .enumerate()
            .flat_map(|(job, content)| content.frames.iter().map(move |frame| (job, frame)))
            .filter(|(_, frame)| seen.insert(frame.record().id))
            .collect();
        let ids: Vec<ChunkId> = candidates
            .iter()
            .map(|(_, frame)| frame.record().id)
            .collect();
        let (known, condemnations) = self.shared.db.snapshot(|connection| {
            let known = chunks::present(connection, self.domain, &ids)?;
            Ok((known, chunks::condemnations(connection)?))
        })?;
        let unknown = candidates
            .into_iter()
            .zip(known)
            .filter_map(|(candidate, known)| (!known).then_some(candidate))
            .collect();
        Ok((unknown, condemnations))
    }

    /// Appends frames to the open pack and syncs it (rule 1), or leaves it as it was.
    fn append(
        &self,
        open: &mut Option<OpenPack>,
        frames: &[&VerifiedFrame],
    ) -> Result<Appended, StoreError> {
        if open.is_none() {
            let Shared { db, folder, .. } = &*self.shared;
            // What is written where a disk is to be mounted vanishes when it is.
            self.shared.presence.check()?;
            *open = Some(OpenPack::create(db, folder, self.domain, &self.name)?);
        }
        let Some(pack) = open.as_mut() else {
            return Err(StoreError::Damaged("no open pack".into()));
        };
        let frames = frames
            .iter()
            .map(|frame| (frame.record(), &frame.frame()[..]));
        let placed = match pack.append(frames) {
            Ok(placed) => placed,
            Err(error) => {
                self.take_back(open);
                return Err(error);
            }
        };
        if let Err(error) = pack.file.sync() {
            self.take_back(open);
            // After a failed sync nobody knows what a second one would mean: this file gets no more frames.
            *open = None;
            return Err(error);
        }
        if let Err(error) = reach(Point::FramesSynced) {
            self.take_back(open);
            return Err(error);
        }
        Ok(Appended {
            pack: pack.row,
            domain: self.domain,
            frames: placed,
            durable_length: pack.file.length(),
        })
    }

    /// Gives the room of an unfinished batch back, so that a full disk leaves the pack as it was.
    fn take_back(&self, open: &mut Option<OpenPack>) {
        let Some(pack) = open.as_mut() else { return };
        let row = pack.row;
        let first = crate::db::signed(pack.durable_length);
        // A commit that failed may have reached the database all the same: only bytes that no row names go.
        let unnamed = self
            .shared
            .db
            .read(|connection| chunks::of_pack(connection, row, first, i64::MAX))
            .is_ok_and(|frames| frames.is_empty());
        if !unnamed || pack.file.truncate(pack.durable_length).is_err() {
            *open = None;
        }
    }

    /// Rows and pins, in one operation; `None` if what was known may be so no more.
    fn commit(
        &self,
        batch: &[Job],
        appended: Option<Appended>,
        condemnations: i64,
        news: Vec<usize>,
    ) -> Result<Option<Answers>, StoreError> {
        let domain = self.domain;
        let pins: Vec<(String, Vec<u8>)> = batch
            .iter()
            .map(|job| {
                let ids = job.frames.iter().flat_map(|frame| frame.record().id.0);
                (job.session.clone(), ids.collect())
            })
            .collect();
        let results = self
            .shared
            .db
            .write(Durability::Ordered, move |connection| {
                if chunks::condemnations(connection)? != condemnations {
                    return Ok(None);
                }
                if let Some(appended) = &appended {
                    chunks::insert(connection, appended)?;
                }
                let mut results = Vec::with_capacity(pins.len());
                for ((session, ids), new) in pins.iter().zip(news) {
                    // Rule 5: valid and pinned in one transaction. Another's dead session is not this one's fault.
                    let result = match sessions::row(connection, session) {
                        Ok(row) => {
                            chunks::pin(connection, row, domain, ids)?;
                            Ok(new)
                        }
                        Err(error @ StoreError::SessionGone(_)) => Err(error),
                        Err(error) => return Err(error),
                    };
                    results.push(result);
                }
                Ok(Some(results))
            })?;
        reach(Point::ChunksValid)?;
        Ok(results)
    }
}

fn count_by_job(jobs: usize, owners: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; jobs];
    owners.for_each(|owner| counts[owner] += 1);
    counts
}
