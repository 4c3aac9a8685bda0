//! The stages between walking the store and publishing, each on its own threads, joined by bounded
//! channels so that memory does not grow with the closure:
//!
//! ```text
//! chunk (one thread a core) → propose (one thread) → read, compress, send (a few threads)
//!                                   └────────── events ──────────┴→ publish (the caller's thread)
//! ```
//!
//! Order matters thrice. Chunks go out in the order of their blobs, so that the server can hash each
//! blob as its frames come in. A layer is proposed together with the NARs of its paths, so that each
//! frame is decoded once for both. And a chunk that two blobs share is sent with the first, so a blob
//! is complete only when every group of frames formed up to its own proposal has arrived.

use super::{
    propose,
    send::{self, Group, Turns},
    session::Session,
    units::Units,
    work::{Chunked, Failure, Job, Work},
};
use crate::{error::Result, progress::Progress};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Units of chunked blobs that wait to be proposed.
const CHUNKED_WAITING_MAX: usize = 64;
/// Groups that wait to be sent; they hold ranges, not bytes.
const GROUPS_WAITING_MAX: usize = 64;

/// What the stages tell the publisher.
#[derive(Debug)]
pub(super) enum Event {
    Proposed(Proposed),
    /// All frames of a group have arrived.
    Delivered {
        group: usize,
    },
}

/// A blob the server has a handle for.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) job: Job,
    pub(super) handle: u32,
    /// The blob is complete when this many groups, from the first, have arrived.
    pub(super) groups_needed: usize,
    pub(super) chunks: u64,
    pub(super) chunks_missing: u64,
}

/// What all stages see.
pub(super) struct Stage<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) work: &'a Work<'a>,
    pub(super) jobs: &'a [Job],
    pub(super) progress: &'a dyn Progress,
    pub(super) failure: Failure,
    pub(super) turns: Turns,
    next_job: AtomicUsize,
    units: Units,
}

/// Runs the stages; `publish` gets the events on the caller's thread until it has seen all.
pub(super) fn run(
    session: &Session<'_>,
    work: &Work<'_>,
    jobs: &[Job],
    progress: &dyn Progress,
    publish: impl FnOnce(&Receiver<Event>, &Failure) -> Result<()>,
) -> Result<()> {
    let stage = Stage {
        session,
        work,
        jobs,
        progress,
        failure: Failure::default(),
        turns: Turns::default(),
        next_job: AtomicUsize::new(0),
        units: Units::new(work, jobs),
    };
    let cores = super::cores().min(jobs.len().max(1));
    std::thread::scope(|scope| {
        let (chunked_in, chunked_out) = bounded::<Vec<Chunked>>(CHUNKED_WAITING_MAX);
        let (groups_in, groups_out) = bounded::<Group>(GROUPS_WAITING_MAX);
        let (events_in, events_out) = unbounded::<Event>();
        let stage = &stage;
        for _ in 0..cores {
            let chunked_in = chunked_in.clone();
            scope.spawn(move || stage.failure.note(chunk_jobs(stage, &chunked_in)));
        }
        drop(chunked_in);
        let events = events_in.clone();
        scope.spawn(move || {
            let proposed = propose::run(stage, &chunked_out, &groups_in, &events);
            stage.failure.note(proposed);
        });
        for _ in 0..super::sender_threads() {
            let groups_out = groups_out.clone();
            let events = events_in.clone();
            scope.spawn(move || stage.failure.note(send::run(stage, &groups_out, &events)));
        }
        // Only the stages may keep the channels open: their end is how the others learn of an end.
        drop((groups_out, events_in));
        stage.failure.note(publish(&events_out, &stage.failure));
        drop(events_out);
    });
    stage.failure.take().map_or(Ok(()), Err)
}

fn chunk_jobs(stage: &Stage<'_>, out: &Sender<Vec<Chunked>>) -> Result<()> {
    while !stage.failure.is_set() {
        let index = stage.next_job.fetch_add(1, Ordering::Relaxed);
        let Some(&job) = stage.jobs.get(index) else {
            break;
        };
        if let Job::Layer(layer) = job {
            stage.units.wait_for_paths(layer, &stage.failure);
        }
        let chunked = stage.work.chunk(job)?;
        let unit = stage.units.add(chunked);
        if !unit.is_empty() && out.send(unit).is_err() {
            break;
        }
    }
    Ok(())
}
