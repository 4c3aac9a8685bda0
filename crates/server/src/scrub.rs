//! Reading all stored bytes in the background, slowly, so that rot is found before a reader meets it.

use crate::app::{App, blocking};
use firn_store::{DataOptions, Store, StoreError};
use std::sync::Weak;
use std::time::Duration;

/// How often some of it is read.
const EVERY: Duration = Duration::from_secs(60);
/// Bytes a second at most while it reads, so that nobody waits for the disk.
const RATE_MAX: u64 = 32 << 20;

/// Reads for as long as the server runs.
pub(crate) async fn run(app: Weak<App>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(app) = app.upgrade() else { return };
        let interval = app.config.scrub_interval_seconds;
        if interval == 0 {
            return;
        }
        let read = blocking(move || some(&app.services.store, interval)).await;
        if let Ok(Err(error)) = read {
            tracing::warn!(%error, "reading stored bytes in the background");
        }
    }
}

/// Reads as much as keeps the pace.
fn some(store: &Store, interval: u64) -> Result<(), StoreError> {
    let stored = store.stats()?.chunk_stored_bytes;
    let share = stored.saturating_mul(EVERY.as_secs()) / interval;
    let options = DataOptions {
        bytes_per_second_max: Some(RATE_MAX),
        resume: true,
        bytes_max: Some(share.max(1)),
        reader: "scrub",
        ..DataOptions::default()
    };
    let progress = store.scrub(&options, &mut |_| true)?;
    if progress.complete {
        tracing::info!("all stored bytes were read once");
    }
    Ok(())
}
