//! Frames that will be asked for, brought here before they are.

use super::{Substituter, find::Found, plan};
use firn_chunks::ChunkId;
use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::Ordering},
};

/// Chunks that are asked for together: neighbours in a pack share a request.
const BATCH_CHUNKS: usize = 1024;

/// Starts a thread that holds the substituter only while it looks something up.
pub(super) fn start(substituter: &Arc<Substituter>, cache: &str, hashes: Vec<String>) {
    let weak = Arc::downgrade(substituter);
    let cache = cache.to_owned();
    let started = std::thread::Builder::new()
        .name("firn-prefetch".to_owned())
        .spawn(move || run(&weak, &cache, &hashes));
    if let Err(error) = started {
        tracing::warn!(%error, "nothing is fetched ahead");
    }
}

fn run(weak: &Weak<Substituter>, cache: &str, hashes: &[String]) {
    let mut batch: HashMap<usize, Vec<ChunkId>> = HashMap::new();
    let mut waiting = 0;
    for hash in hashes {
        let Some(substituter) = weak.upgrade().filter(|found| !found.is_stopped()) else {
            return;
        };
        if let Some(found) = substituter.wanted(cache, hash) {
            for piece in plan::make(&substituter.local, &found) {
                if piece.local.is_none() {
                    batch.entry(piece.source).or_default().push(piece.chunk.id);
                    waiting += 1;
                }
            }
        }
        drop(substituter);
        if waiting >= BATCH_CHUNKS {
            fetch(weak, &mut batch);
            waiting = 0;
        }
    }
    fetch(weak, &mut batch);
}

fn fetch(weak: &Weak<Substituter>, batch: &mut HashMap<usize, Vec<ChunkId>>) {
    for (index, ids) in batch.drain() {
        let Some(substituter) = weak.upgrade() else {
            return;
        };
        let stopped = Arc::clone(&substituter.stopped);
        let Some(source) = substituter.sources.get(index).cloned() else {
            continue;
        };
        drop(substituter);
        let go_on = || !stopped.load(Ordering::Relaxed);
        if let Err(error) = source.store.prefetch(&ids, &go_on) {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "frames were not fetched ahead");
        }
    }
}

impl Substituter {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The path, unless it lies here already or no store has it.
    fn wanted(&self, cache: &str, hash: &str) -> Option<Found> {
        let found = self.find(cache, hash).ok().flatten()?;
        (!self.local.has(&found.narinfo.store_path)).then_some(found)
    }
}
