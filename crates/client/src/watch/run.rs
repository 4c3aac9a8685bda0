//! Looking, sending, and going on.

use super::{Filter, Queue, Queued};
use crate::{
    ci::error::Result, local_store::LocalStore, progress::Progress, storage::push_to_storage,
};
use firn_formats::nix::{PublicKey, StorePath};
use firn_store::shared::SharedStore;
use serde::Serialize;
use std::time::Duration;

/// Paths of one batch; their closures are larger.
const BATCH_PATHS_MAX: u32 = 256;
/// Rows read from the Nix database at once.
const LOOK_PATHS_MAX: u32 = 4096;
/// How often the watch looks whether it shall end.
const STEP: Duration = Duration::from_millis(100);

/// A store that is watched.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Watch<'a> {
    pub store: &'a SharedStore,
    pub cache: &'a str,
    pub local: &'a LocalStore,
    pub filter: Filter,
    pub upstream_keys: &'a [PublicKey],
    /// Told in what is published.
    pub writer: &'a str,
    /// Between two looks at the Nix database.
    pub interval: Duration,
}

/// What a watch did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct WatchReport {
    pub paths_seen: u64,
    pub paths_queued: u64,
    pub paths_pushed: u64,
    pub paths_upstream: u64,
    /// Not valid any more, or tried too often.
    pub paths_dropped: u64,
    pub paths_waiting: u64,
    pub chunks_sent: u64,
    pub bytes_sent: u64,
    pub batches: u64,
    pub failures: u64,
}

impl Watch<'_> {
    /// Looks and sends until `go_on` says no; then once more, so that nothing that was built before is left.
    ///
    /// # Errors
    /// If the queue or the Nix database cannot be read. A place that fails is tried again.
    pub fn run(
        &self,
        queue: &mut Queue,
        go_on: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<WatchReport> {
        let mut report = WatchReport::default();
        if queue.last_id()?.is_none() {
            queue.add(&[], Some(self.local.last_id()?))?;
        }
        loop {
            let last = !go_on();
            self.look(queue, &mut report)?;
            while self.send(queue, progress, &mut report)? && (last || go_on()) {}
            if last {
                report.paths_waiting = queue.waiting()?;
                return Ok(report);
            }
            let mut slept = Duration::ZERO;
            while slept < self.interval && go_on() {
                std::thread::sleep(STEP.min(self.interval));
                slept += STEP;
            }
        }
    }

    /// Queues what became valid since the last look.
    fn look(&self, queue: &mut Queue, report: &mut WatchReport) -> Result<()> {
        loop {
            let from = queue.last_id()?.unwrap_or(0);
            let (paths, last) = self.local.valid_after(from, LOOK_PATHS_MAX)?;
            if last == from {
                return Ok(());
            }
            report.paths_seen += paths.len() as u64;
            let wanted: Vec<StorePath> = paths
                .into_iter()
                .filter(|recent| self.filter.takes(&recent.path, recent.nar_size))
                .map(|recent| recent.path)
                .collect();
            report.paths_queued += wanted.len() as u64;
            queue.add(&wanted, Some(last))?;
        }
    }

    /// Sends one batch. False when nothing waits whose time has come.
    fn send(
        &self,
        queue: &mut Queue,
        progress: &dyn Progress,
        report: &mut WatchReport,
    ) -> Result<bool> {
        let batch = queue.next(BATCH_PATHS_MAX)?;
        if batch.is_empty() {
            return Ok(false);
        }
        report.batches += 1;
        let (valid, gone) = self.still_wanted(batch)?;
        report.paths_dropped += gone.len() as u64;
        queue.done(&gone)?;
        if valid.is_empty() {
            return Ok(true);
        }
        match self.push(&valid, progress, report) {
            Ok(()) => {
                let paths: Vec<StorePath> = valid.into_iter().map(|queued| queued.path).collect();
                queue.done(&paths)?;
                Ok(true)
            }
            Err(error) => {
                report.failures += 1;
                progress.note(&format!("sending failed, and is tried again: {error}"));
                let dropped = queue.failed(&valid)?;
                report.paths_dropped += dropped.len() as u64;
                Ok(false)
            }
        }
    }

    /// A path may have been collected since it was queued; one that the hook queued has not been filtered.
    fn still_wanted(&self, batch: Vec<Queued>) -> Result<(Vec<Queued>, Vec<StorePath>)> {
        let paths: Vec<StorePath> = batch.iter().map(|queued| queued.path.clone()).collect();
        let sizes = self.local.nar_sizes(&paths)?;
        let (mut wanted, mut gone) = (Vec::new(), Vec::new());
        for (queued, size) in batch.into_iter().zip(sizes) {
            match size.filter(|size| self.filter.takes(&queued.path, *size)) {
                Some(_) => wanted.push(queued),
                None => gone.push(queued.path),
            }
        }
        Ok((wanted, gone))
    }

    fn push(
        &self,
        paths: &[Queued],
        progress: &dyn Progress,
        report: &mut WatchReport,
    ) -> Result<()> {
        let roots: Vec<StorePath> = paths.iter().map(|queued| queued.path.clone()).collect();
        let closure = self.local.closure(&roots)?;
        let run = self.store.run(self.writer)?;
        let pushed = push_to_storage(
            self.store,
            &run,
            self.cache,
            self.local,
            &closure,
            self.upstream_keys,
            progress,
        )?;
        let published = run.publish()?;
        report.paths_pushed += pushed.paths_pushed;
        report.paths_upstream += pushed.paths_upstream;
        report.chunks_sent += pushed.chunks_sent;
        report.bytes_sent += published.bytes_written;
        Ok(())
    }
}
