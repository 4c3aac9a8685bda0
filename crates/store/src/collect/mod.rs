//! The collector: what nothing needs any more goes, while everybody works.
//!
//! Expire and drop, mark, condemn, rewrite, delete, compact: each step is small, can be stopped after, and is
//! found again by the next run. `docs/on-disk-format.md`, "Collection in a server's store", says why nobody is
//! hurt.

mod condemn;
mod marks;
mod packs;
mod plan;
mod rewrite;

use crate::StoreError;
use crate::db::collection::expire;
use crate::db::damage;
use crate::db::{Durability, lock};
use crate::failpoint::{Point, reach};
use crate::segments::compact;
use crate::store::Inner;
use crate::types::BlobId;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Entries, or blobs, looked at in one snapshot.
const LOOK_MAX: usize = 4096;
/// Entries, or blobs, taken away in one transaction.
const REMOVE_MAX: usize = 64;
/// Longest pause between two batches.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectionOptions {
    /// How long a pack is kept, for its readers, after the last chunk in it ceased to be valid (rule 7).
    pub grace: Duration,
    /// A pack of which more than this share is dead is rewritten, in percent …
    pub dead_percent: u8,
    /// … if it is at least so many bytes.
    pub dead_bytes_min: u64,
    /// How much of the time the collector may work, in percent: it rests after each batch for the others.
    pub busy_percent: u8,
    /// Compact segments even if few of them tell of things that are gone.
    pub compact_always: bool,
}

impl Default for CollectionOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(3600),
            dead_percent: 50,
            dead_bytes_min: 64 << 10,
            busy_percent: 100,
            compact_always: false,
        }
    }
}

/// What a collection is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CollectionStep {
    /// Clears away sessions that have ended.
    Sessions,
    /// Takes away entries whose lease has ended.
    Entries,
    /// Drops blobs that no entry names.
    Blobs,
    /// Reads the lists of some blobs.
    Mark,
    /// Looks at some chunks.
    Scan,
    /// Condemns chunks it has found dead.
    Condemn,
    /// Copies frames of a pack that is mostly dead.
    Copy,
    /// Says where the copies lie.
    Move,
    /// Says that packs are about to be deleted.
    Delete,
    /// Deletes a pack's file.
    DeleteFile,
    /// Deletes rows of a pack whose file is gone.
    DeleteRows,
    /// Writes a segment of all that lives.
    Compact,
    /// Deletes a segment that others cover.
    DeleteSegment,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CollectionReport {
    pub sessions_ended: u64,
    pub entries_expired: u64,
    pub blobs_dropped: u64,
    /// Valid chunks that were looked at.
    pub chunks_total: u64,
    pub chunks_condemned: u64,
    pub bytes_condemned: u64,
    pub packs_rewritten: u64,
    /// Frames copied out of rewritten packs.
    pub bytes_rewritten: u64,
    pub packs_deleted: u64,
    pub bytes_deleted: u64,
    /// Packs that hold nothing any more and wait for their readers' grace.
    pub packs_waiting: u64,
    pub bytes_waiting: u64,
    /// Packs that are neither rewritten nor deleted, since a frame in them is damaged or cannot be read.
    pub packs_damaged: u64,
    pub segments_written: u64,
    pub segments_deleted: u64,
    /// It was told to stop; the next one goes on.
    pub stopped: bool,
}

/// Why a step was the last.
enum Halt {
    Stopped,
    Failed(StoreError),
}

impl<E: Into<StoreError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

type Outcome<T> = Result<T, Halt>;

/// A collection under way.
struct Collector<'a> {
    inner: &'a Inner,
    options: &'a CollectionOptions,
    go_on: &'a dyn Fn(CollectionStep) -> bool,
    report: CollectionReport,
}

/// Collects; one at a time.
pub(crate) fn collect(
    inner: &Inner,
    options: &CollectionOptions,
    go_on: &dyn Fn(CollectionStep) -> bool,
) -> Result<CollectionReport, StoreError> {
    let _one = lock(&inner.collecting);
    let mut collector = Collector::new(inner, options, go_on);
    let outcome = collector.run();
    collector.finish(outcome)
}

/// What [`collect`] would do now; changes nothing.
pub(crate) fn plan(
    inner: &Inner,
    options: &CollectionOptions,
    go_on: &dyn Fn(CollectionStep) -> bool,
) -> Result<CollectionReport, StoreError> {
    let mut collector = Collector::new(inner, options, go_on);
    let outcome = collector.plan();
    collector.finish(outcome)
}

impl<'a> Collector<'a> {
    fn new(
        inner: &'a Inner,
        options: &'a CollectionOptions,
        go_on: &'a dyn Fn(CollectionStep) -> bool,
    ) -> Self {
        Self {
            inner,
            options,
            go_on,
            report: CollectionReport::default(),
        }
    }

    fn finish(mut self, outcome: Outcome<()>) -> Result<CollectionReport, StoreError> {
        match outcome {
            Ok(()) => Ok(self.report),
            Err(Halt::Stopped) => {
                self.report.stopped = true;
                Ok(self.report)
            }
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn run(&mut self) -> Outcome<()> {
        self.step(CollectionStep::Sessions)?;
        self.report.sessions_ended = self.inner.reap_sessions()? as u64;
        self.inner.reap_staged()?;
        self.expire_entries()?;
        self.drop_blobs()?;
        self.condemn_unmarked()?;
        self.inner.db.write(Durability::Ordered, damage::tidy)?;
        // What is dead already makes room for what is copied.
        self.delete_packs()?;
        self.rewrite_packs()?;
        self.delete_packs()?;
        self.compact_segments()
    }

    /// Asks whether to go on.
    fn step(&self, step: CollectionStep) -> Outcome<()> {
        match (self.go_on)(step) {
            true => Ok(()),
            false => Err(Halt::Stopped),
        }
    }

    /// Leaves the machine to others, in proportion to the work since `began`.
    fn rest(&self, began: Instant) {
        let busy = u32::from(self.options.busy_percent.clamp(1, 100));
        let pause = began.elapsed() * (100 - busy) / busy;
        if !pause.is_zero() {
            std::thread::sleep(pause.min(PAUSE_MAX));
        }
    }

    fn expire_entries(&mut self) -> Outcome<()> {
        let mut after = (0, 0);
        loop {
            self.step(CollectionStep::Entries)?;
            let began = Instant::now();
            let (found, last) = self
                .inner
                .db
                .snapshot(|connection| expire::entries(connection, after, LOOK_MAX))?;
            for some in found.chunks(REMOVE_MAX) {
                let some = some.to_vec();
                let removed = self.inner.db.write(Durability::Ordered, move |connection| {
                    count(&some, |sequence| {
                        expire::remove_entry(connection, *sequence)
                    })
                });
                self.inner.entries.published();
                self.report.entries_expired += removed?;
                reach(Point::EntriesExpired)?;
            }
            self.rest(began);
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    fn drop_blobs(&mut self) -> Outcome<()> {
        let none = HashSet::new();
        let mut after = BlobId(0);
        loop {
            self.step(CollectionStep::Blobs)?;
            let began = Instant::now();
            let (found, last) = self
                .inner
                .db
                .snapshot(|connection| expire::blobs(connection, after, LOOK_MAX, &none))?;
            for some in found.chunks(REMOVE_MAX) {
                let ids = some.to_vec();
                self.report.blobs_dropped += self
                    .inner
                    .db
                    .write(Durability::Ordered, move |connection| {
                        count(&ids, |id| expire::remove_blob(connection, *id))
                    })?;
                some.iter().for_each(|id| self.inner.layouts.forget(*id));
                reach(Point::BlobsDropped)?;
            }
            self.rest(began);
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    fn compact_segments(&mut self) -> Outcome<()> {
        let segments = &self.inner.segments;
        let step = |step| (self.go_on)(step);
        if self.options.compact_always || compact::is_due(segments)? {
            self.step(CollectionStep::Compact)?;
            match compact::write(segments, &step)? {
                Some(written) => self.report.segments_written = written,
                None => return Err(Halt::Stopped),
            }
        }
        let (deleted, complete) = compact::delete_covered(segments, self.options.grace, &step)?;
        self.report.segments_deleted = deleted;
        match complete {
            true => Ok(()),
            false => Err(Halt::Stopped),
        }
    }
}

/// How many of `items` something was done to.
fn count<T>(
    items: &[T],
    mut each: impl FnMut(&T) -> Result<bool, StoreError>,
) -> Result<u64, StoreError> {
    items
        .iter()
        .try_fold(0, |sum, item| Ok(sum + u64::from(each(item)?)))
}
