//! What was used since the last flush: a set in memory, so that reading writes nothing.

use crate::{ServiceError, nix_cache::HashText, sync::lock};
use firn_formats::Sha256;
use firn_store::{CacheId, EntryKind, Store, Use};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Locks, so that readers seldom meet at one.
const SHARDS: usize = 32;
/// Entries remembered in one shard between flushes. Those beyond it are not noted, which makes them look older
/// than they are by one flush.
const SHARD_MAX: usize = 16 << 10;
/// Uses in one transaction: some ten milliseconds.
const BATCH: usize = 1000;

/// What was used. Those asked for by the thousand need no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    Narinfo(HashText),
    Nar(Sha256),
    Other(EntryKind, Box<str>),
}

/// Uses that the database has not been told of.
pub(crate) struct Uses {
    hasher: RandomState,
    shards: [Mutex<HashMap<(CacheId, What), u64>>; SHARDS],
    began: Instant,
}

impl Uses {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            began: Instant::now(),
        }
    }

    pub(crate) fn narinfo(&self, cache: CacheId, hash: &HashText) {
        self.note((cache, What::Narinfo(*hash)));
    }

    pub(crate) fn nar(&self, cache: CacheId, digest: Sha256) {
        self.note((cache, What::Nar(digest)));
    }

    pub(crate) fn entry(&self, cache: CacheId, kind: EntryKind, key: &str) {
        self.note((cache, What::Other(kind, key.into())));
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, used: (CacheId, What)) {
        let at = self.elapsed_ms();
        let shard = self.hasher.hash_one(&used) as usize % SHARDS;
        let mut shard = lock(&self.shards[shard]);
        if shard.len() < SHARD_MAX || shard.contains_key(&used) {
            shard.insert(used, at);
        }
    }

    /// Tells the database. What a failure leaves out is lost, which makes things look older than they are.
    pub(crate) fn flush(&self, store: &Store) -> Result<(), ServiceError> {
        for shard in &self.shards {
            let taken = std::mem::take(&mut *lock(shard));
            let now = self.elapsed_ms();
            let uses: Vec<Use> = taken
                .into_iter()
                .map(|((cache, what), at)| {
                    let (kind, key) = what.entry();
                    let age = Duration::from_millis(now.saturating_sub(at));
                    Use {
                        cache,
                        kind,
                        key,
                        age,
                    }
                })
                .collect();
            for batch in uses.chunks(BATCH) {
                store.record_uses(batch.to_vec())?;
            }
        }
        Ok(())
    }
}

impl What {
    fn entry(self) -> (EntryKind, String) {
        match self {
            Self::Narinfo(hash) => (
                EntryKind::Narinfo,
                String::from_utf8_lossy(&hash).into_owned(),
            ),
            Self::Nar(digest) => (EntryKind::NarFile, digest.base32()),
            Self::Other(kind, key) => (kind, key.into()),
        }
    }
}
