//! The order of things: windows of ids, and handing over what arrives.

use super::job::{Chunks, Job};
use crate::StoreError;
use crate::shared::{ChunkSink, Inner, Located};
use crossbeam_channel::{Receiver, Sender};
use firn_chunks::ChunkId;
use std::collections::HashMap;

/// Raw bytes of a window.
const WINDOW_BYTES: u64 = 16 << 20;
/// Chunks of a window.
pub(super) const WINDOW_CHUNKS: usize = 8192;

/// What a job of a window gave.
pub(super) type Answer = (usize, Result<Chunks, StoreError>);

/// Ids that are read and handed over together.
pub(super) struct Window<'a> {
    pub(super) ids: &'a [ChunkId],
    pub(super) jobs: Vec<Job>,
}

/// Cuts a list of ids into windows.
pub(super) struct Windows<'a> {
    inner: &'a Inner,
    pub(super) rest: &'a [ChunkId],
    located: std::vec::IntoIter<Located>,
    count: usize,
}

impl<'a> Windows<'a> {
    pub(super) fn new(inner: &'a Inner, ids: &'a [ChunkId]) -> Result<Self, StoreError> {
        let found = inner.mended(|inner| inner.index.locate(ids))?;
        let (mut located, mut missing) = (Vec::with_capacity(ids.len()), Vec::new());
        for (id, place) in ids.iter().zip(found) {
            match place {
                Some(place) => located.push(place),
                None => missing.push(*id),
            }
        }
        match missing.is_empty() {
            true => Ok(Self {
                inner,
                rest: ids,
                located: located.into_iter(),
                count: 0,
            }),
            false => Err(StoreError::MissingChunks(missing)),
        }
    }

    pub(super) fn next(&mut self) -> Option<Window<'a>> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while taken.len() < WINDOW_CHUNKS
            && let Some(next) = self.located.as_slice().first()
        {
            let length = u64::from(next.placed.record.raw_length);
            if bytes + length > WINDOW_BYTES && !taken.is_empty() {
                break;
            }
            bytes += length;
            taken.extend(self.located.next());
        }
        let (ids, rest) = self.rest.split_at(taken.len().min(self.rest.len()));
        self.rest = rest;
        let window = self.count;
        self.count += 1;
        (!ids.is_empty()).then(|| Window {
            ids,
            jobs: self.inner.jobs(window, taken),
        })
    }
}

/// The side that hands chunks over.
pub(super) struct Reading {
    pub(super) jobs: Option<Sender<Job>>,
    pub(super) answered: Receiver<Answer>,
    /// By window.
    pub(super) arrived: HashMap<usize, HashMap<ChunkId, Vec<u8>>>,
    /// Jobs of a window that have not been answered.
    pub(super) open: HashMap<usize, usize>,
}

impl Reading {
    pub(super) fn run(
        &mut self,
        first: Window<'_>,
        windows: &mut Windows<'_>,
        sink: &mut ChunkSink<'_>,
    ) -> Result<(), StoreError> {
        let mut number = 0;
        let mut current = Some((first.ids, self.submit(number, first.jobs)));
        while let Some((ids, ())) = current {
            let next = windows
                .next()
                .map(|window| (window.ids, self.submit(number + 1, window.jobs)));
            for id in ids {
                self.wait_for(number, id)?;
                let chunks = self.arrived.get(&number);
                let raw = chunks.and_then(|chunks| chunks.get(id));
                sink(id, raw.map(Vec::as_slice).unwrap_or_default())?;
            }
            self.arrived.remove(&number);
            number += 1;
            current = next;
        }
        Ok(())
    }

    fn submit(&mut self, number: usize, jobs: Vec<Job>) {
        self.open.insert(number, jobs.len());
        for job in jobs {
            if let Some(queue) = &self.jobs {
                // The workers live as long as this.
                let _ = queue.send(job);
            }
        }
    }

    fn wait_for(&mut self, window: usize, id: &ChunkId) -> Result<(), StoreError> {
        while !self
            .arrived
            .get(&window)
            .is_some_and(|chunks| chunks.contains_key(id))
        {
            let Ok((of, chunks)) = self.answered.recv() else {
                return Err(StoreError::MissingChunks(vec![*id]));
            };
            self.arrived.entry(of).or_default().extend(chunks?);
        }
        Ok(())
    }
}
