//! Chunks on their way through the stages, and the memory they lie in.

use crate::db::lock;
use firn_chunks::boundaries::V1;
use std::sync::{Arc, Condvar, Mutex};

/// Raw bytes in a batch: enough chunks to compress in parallel, few enough to stay in the processor's cache.
pub(super) const BATCH_BYTES: usize = 2 << 20;

/// Bounds the batches in flight, over all streams, and keeps their buffers: memory that is given
/// back and asked for with each batch must be cleared by the kernel each time.
#[derive(Debug)]
pub(crate) struct BatchPool {
    max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    buffers: Vec<Vec<u8>>,
}

impl BatchPool {
    /// Lets `max` batches be in flight.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            state: Mutex::new(State {
                in_flight: 0,
                buffers: Vec::new(),
            }),
            freed: Condvar::new(),
        })
    }

    fn buffer(&self) -> Vec<u8> {
        let kept = lock(&self.state).buffers.pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BATCH_BYTES + V1.chunk_bytes_max))
    }

    fn take_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut state = lock(&self.state);
        if buffer.capacity() != 0 && state.buffers.len() < self.max {
            state.buffers.push(buffer);
        }
    }

    fn acquire(&self) {
        let mut state = lock(&self.state);
        while state.in_flight >= self.max {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state.in_flight += 1;
    }

    fn release(&self) {
        lock(&self.state).in_flight -= 1;
        self.freed.notify_one();
    }
}

/// Chunks back to back, in a buffer of the pool.
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    pool: Arc<BatchPool>,
    in_flight: bool,
}

impl Batch {
    pub(super) fn new(pool: &Arc<BatchPool>) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            pool: pool.clone(),
            in_flight: false,
        }
    }

    pub(super) fn add(&mut self, chunk: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes = self.pool.buffer();
        }
        self.bytes.extend_from_slice(chunk);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn chunks(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
            .collect()
    }

    /// Counts it among those in flight until it is dropped; waits while there are too many.
    pub(super) fn depart(&mut self) {
        if !self.in_flight {
            self.pool.acquire();
            self.in_flight = true;
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.take_back(std::mem::take(&mut self.bytes));
        if self.in_flight {
            self.pool.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_batch_too_many_waits_and_buffers_are_used_again() {
        let pool = BatchPool::new(1);
        let mut first = Batch::new(&pool);
        first.add(b"one");
        first.add(b"two");
        assert_eq!(first.chunks(), [b"one", b"two"]);
        let place = first.bytes().as_ptr() as usize;
        first.depart();
        let (sender, departed) = channel();
        let other = Batch::new(&pool);
        let waiting = std::thread::spawn(move || {
            let mut other = other;
            other.depart();
            other.add(b"three");
            let _ = sender.send((other.bytes().as_ptr() as usize, other.chunks().len()));
        });
        let early = departed.recv_timeout(Duration::from_millis(50));
        assert!(early.is_err(), "it did not wait");
        drop(first);
        assert_eq!(departed.recv().unwrap(), (place, 1));
        waiting.join().unwrap();
    }
}
