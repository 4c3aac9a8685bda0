//! Waiting for what work costs, memory or a place. Who waits is counted, so that those inside know it: a slow
//! client keeps its place only as long as nobody else wants it.

use firn_services::budget::{Budget, Client, Lease};
use std::time::Duration;

/// An accountant, and how long a request waits for it.
#[derive(Clone)]
pub(crate) struct Gate {
    budget: Budget,
    patience: Duration,
}

/// No room came in time.
#[derive(Debug)]
pub(crate) struct Busy;

impl Gate {
    pub(crate) fn new(budget: Budget, patience: Duration) -> Self {
        Self { budget, patience }
    }

    /// Waits for so much, or for all that the client may have if that is less.
    pub(crate) async fn enter(&self, client: &Client, amount: u64) -> Result<Lease, Busy> {
        let taking = self.budget.take(client, amount);
        match tokio::time::timeout(self.patience, taking).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// Whether somebody waits for what this client has.
    pub(crate) fn wanted_from(&self, client: &Client) -> bool {
        self.budget.wanted_from(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_counted_and_told_to_come_again() {
        let gate = Gate::new(Budget::places(2), Duration::from_millis(20));
        let (one, other) = (Client::known("one"), Client::known("other"));
        let held = gate.enter(&one, 2).await.unwrap();
        assert!(!gate.wanted_from(&one));
        let waiting = tokio::spawn({
            let (gate, other) = (gate.clone(), other.clone());
            async move { gate.enter(&other, 1).await.is_err() }
        });
        while !gate.wanted_from(&one) {
            tokio::task::yield_now().await;
        }
        assert!(waiting.await.unwrap());
        assert!(!gate.wanted_from(&one));
        drop(held);
        gate.enter(&other, 1).await.unwrap();
    }
}
