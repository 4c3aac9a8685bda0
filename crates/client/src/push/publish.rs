//! Makes blobs visible as soon as they and their references are there.

use super::{
    pipeline::{Event, Proposed},
    session::Session,
    work::{Failure, Job, Work},
};
use crate::error::Result;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use firn_formats::{
    nix::StorePath,
    push::{LayerDescriptor, PATHS_PER_REQUEST_MAX, Publish, PublishLayer, PublishPath},
};
use firn_image::closure::PathInfo;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

/// While more is on its way, this many paths at least, and this much time between publications:
/// each costs the server a durable commit.
const BATCH_PATHS_MIN: usize = 32;
const BATCH_INTERVAL: Duration = Duration::from_millis(300);

/// Figures of what was published.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) layers: BTreeMap<String, LayerDescriptor>,
    pub(super) chunks_total: u64,
    pub(super) chunks_sent: u64,
}

pub(super) struct Publisher<'a> {
    session: &'a Session<'a>,
    work: &'a Work<'a>,
    /// Also ask for layers' gzip representation.
    gzip: bool,
    /// Blobs not yet published, by job.
    waiting: HashMap<Job, Proposed>,
    jobs_left: usize,
    /// Paths that are not visible yet, and so may not be referred to.
    absent: HashSet<&'a StorePath>,
    delivered: HashSet<usize>,
    delivered_from_first: usize,
    last: Instant,
    outcome: Outcome,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(
        session: &'a Session<'a>,
        work: &'a Work<'a>,
        jobs: &[Job],
        gzip: bool,
    ) -> Self {
        let absent = jobs
            .iter()
            .filter_map(|job| match job {
                Job::Path(index) => Some(&work.info(*index).path),
                Job::Layer(_) => None,
            })
            .collect();
        Self {
            session,
            work,
            gzip,
            waiting: HashMap::new(),
            jobs_left: jobs.len(),
            absent,
            delivered: HashSet::new(),
            delivered_from_first: 0,
            last: Instant::now(),
            outcome: Outcome::default(),
        }
    }

    /// Takes events until everything is published or the stages have ended.
    pub(super) fn run(
        mut self,
        events: &Receiver<Event>,
        failure: &Failure,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let done = self.take_events(events, failure);
        *outcome = self.outcome;
        done
    }

    fn take_events(&mut self, events: &Receiver<Event>, failure: &Failure) -> Result<()> {
        while self.jobs_left > 0 && !failure.is_set() {
            match events.recv_timeout(BATCH_INTERVAL) {
                Ok(event) => {
                    self.note(event);
                    events.try_iter().for_each(|event| self.note(event));
                }
                Err(RecvTimeoutError::Timeout) => self.session.keep_alive()?,
                Err(RecvTimeoutError::Disconnected) => {
                    // The stages have ended; whatever is ready now is all that ever will be.
                    let published = self.publish_ready()?;
                    if !published && self.jobs_left > 0 && !failure.is_set() {
                        return Err(crate::ClientError::WorkerLost);
                    }
                    continue;
                }
            }
            self.publish_if_worthwhile()?;
        }
        Ok(())
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Proposed(blob) => {
                self.outcome.chunks_total += blob.chunks;
                self.outcome.chunks_sent += blob.chunks_missing;
                self.waiting.insert(blob.job, blob);
            }
            Event::Delivered { group } => {
                self.delivered.insert(group);
                while self.delivered.remove(&self.delivered_from_first) {
                    self.delivered_from_first += 1;
                }
            }
        }
    }

    fn is_ready(&self, blob: &Proposed) -> bool {
        blob.groups_needed <= self.delivered_from_first
    }

    fn publish_if_worthwhile(&mut self) -> Result<()> {
        let ready = self
            .waiting
            .values()
            .filter(|blob| self.is_ready(blob))
            .count();
        let last_batch = ready == self.jobs_left;
        let worthwhile = ready >= BATCH_PATHS_MIN && self.last.elapsed() >= BATCH_INTERVAL;
        if ready > 0 && (last_batch || worthwhile) {
            self.publish_ready()?;
        }
        Ok(())
    }

    /// Publishes what may be; false if that is nothing.
    fn publish_ready(&mut self) -> Result<bool> {
        let (publish, jobs) = self.ready()?;
        if jobs.is_empty() {
            return Ok(false);
        }
        let published = self.session.publish(&publish)?;
        self.outcome.layers.extend(published.layers);
        for job in &jobs {
            self.waiting.remove(job);
            if let Job::Path(index) = job {
                self.absent.remove(&self.work.info(*index).path);
            }
        }
        self.jobs_left -= jobs.len();
        self.last = Instant::now();
        Ok(true)
    }

    /// Paths whose references are visible or in the same request, and layers.
    fn ready(&self) -> Result<(Publish, Vec<Job>)> {
        let mut ready: Vec<&Proposed> = self
            .waiting
            .values()
            .filter(|blob| self.is_ready(blob))
            .collect();
        // Indices grow from references to referrers.
        ready.sort_by_key(|blob| match blob.job {
            Job::Path(index) => (0, index),
            Job::Layer(index) => (1, index),
        });
        let mut publish = Publish::default();
        let mut jobs = Vec::new();
        let mut included: HashSet<&StorePath> = HashSet::new();
        for blob in ready.into_iter().take(PATHS_PER_REQUEST_MAX) {
            match blob.job {
                Job::Path(index) => {
                    let info = self.work.info(index);
                    let closed = info.references.iter().all(|reference| {
                        *reference == info.path
                            || !self.absent.contains(reference)
                            || included.contains(reference)
                    });
                    if !closed {
                        continue;
                    }
                    included.insert(&info.path);
                    publish.paths.push(publish_path(info, blob.handle));
                }
                Job::Layer(index) => {
                    let Some(image) = self.work.image else {
                        continue;
                    };
                    let Some(layer) = image.layers.get(index) else {
                        continue;
                    };
                    publish.layers.push(PublishLayer {
                        key: layer.key.clone(),
                        blob: blob.handle,
                        gzip: self.gzip,
                        recipe: image.layer_recipe(index)?,
                    });
                }
            }
            jobs.push(blob.job);
        }
        Ok((publish, jobs))
    }
}

fn publish_path(info: &PathInfo, blob: u32) -> PublishPath {
    PublishPath {
        path: info.path.to_string(),
        nar_hash: info.nar_hash.base32(),
        nar_size: info.nar_size,
        references: info.references.iter().map(ToString::to_string).collect(),
        deriver: info.deriver.as_ref().map(ToString::to_string),
        signatures: info.signatures.iter().map(ToString::to_string).collect(),
        ca: info.ca.clone(),
        blob,
    }
}
