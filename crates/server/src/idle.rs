//! Which connections have nothing under way. HTTP/1 has a time for the next head; over HTTP/2 a client could stay for
//! ever, answering pings.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

struct State {
    requests: usize,
    since: Instant,
}

/// The requests of a connection that are under way.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

/// A request that is under way for as long as this lives.
pub(crate) struct UnderWay(Activity);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            requests: 0,
            since: Instant::now(),
        })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request begins.
    pub(crate) fn begin(&self) -> UnderWay {
        self.with(|state| state.requests += 1);
        UnderWay(self.clone())
    }

    /// Returns when nothing was under way for so long.
    pub(crate) async fn idle_for(&self, idle_max: Duration) {
        loop {
            let (requests, idle) = self.with(|state| (state.requests, state.since.elapsed()));
            if requests == 0 && idle >= idle_max {
                return;
            }
            let wait = match requests {
                0 => idle_max.saturating_sub(idle),
                _ => idle_max,
            };
            tokio::time::sleep(wait).await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.requests = state.requests.saturating_sub(1);
            state.since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_the_last_request_was_over_for_long_enough() {
        let (activity, began) = (Activity::new(), Instant::now());
        let (first, second) = (activity.begin(), activity.begin());
        let idle = tokio::spawn({
            let activity = activity.clone();
            async move { activity.idle_for(Duration::from_secs(30)).await }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(first);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!idle.is_finished());
        drop(second);
        idle.await.unwrap();
        let took = began.elapsed().as_secs();
        assert!((230..=261).contains(&took), "{took}");
    }
}
