//! Reading chunks: neighbouring frames of a pack in one request, several requests at once, the bytes in order.
//!
//! The ids are taken in windows of bounded size. While one window is handed over, the requests of the next are
//! under way; so at most two windows are in memory.

mod job;
mod under_way;
mod window;

use super::{ChunkSink, Inner};
use crate::StoreError;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use firn_chunks::ChunkId;
use job::{Chunks, Job, decode_all, has_checksums};
pub(in crate::shared) use job::{decode_one, range_of};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
pub(in crate::shared) use under_way::UnderWay;
use window::{Answer, Reading, WINDOW_CHUNKS, Windows};

/// Requests under way.
const REQUESTS_MAX: usize = 8;

impl Inner {
    /// See [`super::SharedStore::read_chunks`].
    pub(super) fn read_chunks(
        &self,
        ids: &[ChunkId],
        sink: &mut ChunkSink<'_>,
    ) -> Result<(), StoreError> {
        let mut windows = Windows::new(self, ids)?;
        let Some(first) = windows.next() else {
            return Ok(());
        };
        if first.jobs.len() == 1 && windows.rest.is_empty() {
            // Threads would cost more than they give.
            let chunks = first.jobs.iter().map(|job| self.run(job));
            let chunks: Vec<Chunks> = chunks.collect::<Result<_, _>>()?;
            let by_id: HashMap<ChunkId, Vec<u8>> = chunks.into_iter().flatten().collect();
            return deliver(first.ids, sink, |id| Ok(by_id.get(id).map(Vec::as_slice)));
        }
        std::thread::scope(|scope| {
            let (jobs, queue) = unbounded::<Job>();
            let (answers, answered) = unbounded::<Answer>();
            let threads = REQUESTS_MAX.min(first.jobs.len().max(2));
            for _ in 0..threads {
                let (queue, answers) = (queue.clone(), answers.clone());
                scope.spawn(move || self.work(&queue, &answers));
            }
            drop(answers);
            let mut reading = Reading {
                jobs: Some(jobs),
                answered,
                arrived: HashMap::new(),
                open: HashMap::new(),
            };
            let result = reading.run(first, &mut windows, sink);
            // Workers end when the queue is empty: what nobody waits for any more is not read.
            reading.jobs = None;
            while queue.try_recv().is_ok() {}
            result
        })
    }

    fn work(&self, queue: &Receiver<Job>, answers: &Sender<Answer>) {
        for job in queue {
            let chunks = self.run(&job);
            if answers.send((job.window, chunks)).is_err() {
                return;
            }
        }
    }

    /// Reads, checks and decodes the frames of a job. What another asks for at this moment is waited for, and
    /// taken out of the cache.
    fn run(&self, job: &Job) -> Result<Chunks, StoreError> {
        if job.cached.is_some() {
            return self.run_alone(job);
        }
        let turn = self.under_way.enter(&job.pack, &job.range);
        if !turn.waited {
            return self.run_alone(job);
        }
        let parts = self.jobs(job.window, job.frames.clone());
        let chunks = parts.iter().map(|part| self.run_alone(part));
        Ok(chunks.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn run_alone(&self, job: &Job) -> Result<Chunks, StoreError> {
        if let Some(cached) = &job.cached
            && let Some(bytes) = self.cache.read(cached, &job.range)
        {
            match decode_all(job, &bytes) {
                Ok(chunks) => return Ok(chunks),
                Err(_) => self.cache.forget(cached),
            }
        }
        let fetched = self.fetch(&job.pack, job.range.clone());
        let decoded = fetched.and_then(|bytes| {
            let chunks = decode_all(job, &bytes)?;
            self.cache.put(&job.pack, job.range.start, &bytes);
            Ok(chunks)
        });
        match decoded {
            Ok(chunks) => Ok(chunks),
            Err(error) => self.run_one_by_one(job, error),
        }
    }

    /// Asks the place for bytes of a pack.
    fn fetch(&self, pack: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
        let bytes = self.backend.read(pack, range)?;
        self.bytes_fetched
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Something is wrong with one frame or one pack: each chunk is tried by itself, in all its places. If they
    /// fail, the store is looked at again once: the index may be older than a collection's grace.
    fn run_one_by_one(&self, job: &Job, first: StoreError) -> Result<Chunks, StoreError> {
        let mut chunks = Vec::with_capacity(job.frames.len());
        let mut looked_again = false;
        for wanted in &job.frames {
            let id = wanted.placed.record.id;
            let mut found = self.read_anywhere(&id)?;
            if found.is_none() && !std::mem::replace(&mut looked_again, true) {
                self.refresh()?;
                found = self.read_anywhere(&id)?;
            }
            match found {
                Some(raw) => chunks.push((id, raw)),
                None => return Err(first),
            }
        }
        Ok(chunks)
    }

    /// The chunk from the first place that has it.
    fn read_anywhere(&self, id: &ChunkId) -> Result<Option<Vec<u8>>, StoreError> {
        let places = self.index.places(id)?;
        let mut raws = places.iter().map(|place| {
            let bytes = self.fetch(&place.pack, range_of(place))?;
            decode_one(place, &bytes)
        });
        Ok(raws.find_map(Result::ok))
    }

    /// See [`super::SharedStore::prefetch`].
    pub(super) fn prefetch(
        &self,
        ids: &[ChunkId],
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), StoreError> {
        let mut budget = self.cache.budget();
        for stretch in ids.chunks(WINDOW_CHUNKS) {
            let located = self.index.locate(stretch)?.into_iter().flatten().collect();
            let jobs = self.jobs(0, located);
            let mut wanted: Vec<Job> = Vec::new();
            for job in jobs.into_iter().filter(|job| job.cached.is_none()) {
                let length = job.range.end - job.range.start;
                if length > budget {
                    break;
                }
                budget -= length;
                wanted.push(job);
            }
            if wanted.is_empty() && budget == 0 {
                return Ok(());
            }
            self.fetch_all(wanted, go_on)?;
            if !go_on() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the cache has all frames of a job by now.
    fn is_kept(&self, job: &Job) -> bool {
        job.frames
            .iter()
            .all(|frame| self.cache.find(&frame.pack, &range_of(frame)).is_some())
    }

    fn fetch_all(
        &self,
        jobs: Vec<Job>,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), StoreError> {
        let (sender, queue) = bounded::<Job>(jobs.len().max(1));
        for job in jobs {
            // There is room for all.
            let _ = sender.send(job);
        }
        drop(sender);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..REQUESTS_MAX.min(queue.len()))
                .map(|_| {
                    let queue = queue.clone();
                    scope.spawn(move || {
                        for job in queue {
                            if !go_on() {
                                return Ok(());
                            }
                            // Who asks for it now, or has asked since the job was made, keeps it.
                            let Some(_turn) = self.under_way.try_enter(&job.pack, &job.range)
                            else {
                                continue;
                            };
                            if self.is_kept(&job) {
                                continue;
                            }
                            let bytes = self.fetch(&job.pack, job.range.clone())?;
                            if has_checksums(&job, &bytes) {
                                self.cache.put(&job.pack, job.range.start, &bytes);
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

fn deliver<'a>(
    ids: &[ChunkId],
    sink: &mut ChunkSink<'_>,
    find: impl Fn(&ChunkId) -> Result<Option<&'a [u8]>, StoreError>,
) -> Result<(), StoreError> {
    for id in ids {
        let raw = find(id)?.ok_or_else(|| StoreError::MissingChunks(vec![*id]))?;
        sink(id, raw)?;
    }
    Ok(())
}
