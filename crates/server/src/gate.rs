//! Places for work that costs memory. Who waits for one is counted, so that those inside know it: a slow
//! client keeps its place only as long as nobody else wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of places.
#[derive(Clone)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    total: usize,
    patience: Duration,
}

/// One or more places, given back when dropped.
pub(crate) struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

/// No place became free in time.
#[derive(Debug)]
pub(crate) struct Busy;

/// Counts one who waits for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(total: usize, patience: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(total)),
            waiting: Arc::default(),
            total,
            patience,
        }
    }

    /// Waits for `count` places, or for all there are if that is less.
    pub(crate) async fn enter(&self, count: usize) -> Result<Place, Busy> {
        let count = u32::try_from(count.min(self.total)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.places.clone().try_acquire_many_owned(count) {
            return Ok(Place(permit));
        }
        let _waiting = Waiting::new(&self.waiting);
        let permit = self.places.clone().acquire_many_owned(count);
        match tokio::time::timeout(self.patience, permit).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// Whether somebody waits.
    pub(crate) fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_counted_and_told_to_come_again() {
        let gate = Gate::new(2, Duration::from_millis(20));
        let first = gate.enter(2).await.unwrap();
        assert!(!gate.wanted());
        let other = gate.clone();
        let waiting = tokio::spawn(async move { other.enter(1).await.is_err() });
        while !gate.wanted() {
            tokio::task::yield_now().await;
        }
        assert!(waiting.await.unwrap());
        assert!(!gate.wanted());
        drop(first);
        // More than there is means all of it.
        let all = gate.enter(99).await.unwrap();
        assert!(gate.enter(1).await.is_err());
        drop(all);
        gate.enter(1).await.unwrap();
    }
}
