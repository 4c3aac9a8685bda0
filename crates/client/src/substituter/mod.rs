//! What a loopback substituter does, apart from HTTP: narinfos of several stores, signed with its own key, and
//! NARs put together from chunks that store paths on this machine hold and chunks of the stores.

mod find;
mod key;
mod local;
mod names;
mod plan;
mod prefetch;
mod server;
mod stream;

pub use key::{key_of_user, new_key, secret_name};
pub use server::ServerSource;

use crate::{error::Result, local_store::LocalStore, push::work::lock};
use firn_formats::nix::{PublicKey, SecretKey};
use firn_store::shared::SharedStore;
use local::LocalChunks;
use std::{
    collections::HashSet,
    fmt,
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use stream::Origin;

/// One store behind a substituter.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its store.
    pub store: SharedStore,
    /// The cache in it.
    pub cache: String,
}

/// A substituter.
pub struct Substituter {
    sources: Arc<[Source]>,
    key: SecretKey,
    local: Arc<LocalChunks>,
    counters: Arc<Counters>,
    /// Paths whose NARs turned out to be damaged, by source and hash part; no longer offered from there.
    broken: Arc<Mutex<HashSet<(usize, String)>>>,
    used: Mutex<Used>,
    /// After this time since the last, a miss looks for new segments.
    refresh_after: Option<Duration>,
    refreshed: Mutex<Instant>,
    /// Ends what runs in the background.
    stopped: Arc<AtomicBool>,
}

#[derive(Default)]
struct Used {
    seen: HashSet<String>,
    order: Vec<String>,
}

#[derive(Debug, Default)]
struct Counters {
    narinfo_hits: AtomicU64,
    narinfo_misses: AtomicU64,
    nars: AtomicU64,
    nar_bytes: AtomicU64,
    bytes_local: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// A NAR on its way.
pub struct NarStream {
    /// Bytes in all.
    pub length: u64,
    /// The bytes; a fault in mid-stream is an error, never a short end.
    pub reader: Box<dyn Read + Send>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct SubstituterStats {
    pub narinfo_hits: u64,
    pub narinfo_misses: u64,
    pub nars: u64,
    pub nar_bytes: u64,
    /// Raw bytes of NARs that store paths on this machine held.
    pub bytes_local: u64,
    /// Bytes of packs that came from the stores, for NARs and ahead of them.
    pub bytes_fetched: u64,
}

impl fmt::Debug for Substituter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substituter")
            .field("sources", &self.sources)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[allow(clippy::missing_errors_doc)]
impl Substituter {
    /// Over several stores, asked in order. Narinfos are signed with `key`. Chunks are taken from the Nix
    /// store of the environment where it has them.
    pub fn new(sources: Vec<Source>, key: SecretKey) -> Result<Self> {
        Ok(Self {
            sources: sources.into(),
            key,
            local: Arc::new(LocalChunks::new(LocalStore::from_environment())),
            counters: Arc::default(),
            broken: Arc::default(),
            used: Mutex::default(),
            refresh_after: None,
            refreshed: Mutex::new(Instant::now()),
            stopped: Arc::default(),
        })
    }

    /// Takes chunks from another Nix store of this machine.
    pub fn with_local_store(mut self, store: LocalStore) -> Self {
        self.local = Arc::new(LocalChunks::new(store));
        self
    }

    /// Looks for what others have written meanwhile when it is asked for a path that it does not know, and
    /// has not looked for so long.
    pub fn with_refresh_after(mut self, time: Duration) -> Self {
        self.refresh_after = Some(time);
        self
    }

    /// What Nix must trust.
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// A narinfo's text, by the hash part of its path.
    pub fn narinfo(&self, cache: &str, hash: &str) -> Result<Option<String>> {
        let found = match self.find(cache, hash)? {
            None if self.refresh() => self.find(cache, hash)?,
            found => found,
        };
        let counter = match found {
            Some(_) => &self.counters.narinfo_hits,
            None => &self.counters.narinfo_misses,
        };
        count(counter, 1);
        Ok(found.map(|found| self.offer(found.narinfo).to_string()))
    }

    /// A NAR by the name its narinfo gave it (`<nar hash, base32>-<hash part>.nar`: after a restart, too,
    /// the name tells where it is).
    pub fn nar(self: &Arc<Self>, cache: &str, name: &str) -> Result<Option<NarStream>> {
        let Some((nar_hash, hash)) = names::parse_nar(name) else {
            return Ok(None);
        };
        let found = self.find(cache, &hash)?;
        let Some(found) = found.filter(|found| found.narinfo.nar_hash == nar_hash) else {
            return Ok(None);
        };
        self.note_use(&hash);
        let pieces = plan::make(&self.local, &found);
        count(&self.counters.nars, 1);
        let origin = Origin::Stores(Arc::clone(&self.sources));
        self.stream(origin, found, pieces).map(Some)
    }

    /// Brings the frames of paths into the local cache, in the background, until the substituter is dropped.
    pub fn prefetch(self: &Arc<Self>, cache: &str, hashes: Vec<String>) {
        prefetch::start(self, cache, hashes);
    }

    /// Ends prefetching.
    pub fn stop_prefetching(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Counts.
    pub fn stats(&self) -> SubstituterStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SubstituterStats {
            narinfo_hits: read(&self.counters.narinfo_hits),
            narinfo_misses: read(&self.counters.narinfo_misses),
            nars: read(&self.counters.nars),
            nar_bytes: read(&self.counters.nar_bytes),
            bytes_local: read(&self.counters.bytes_local),
            bytes_fetched: self
                .sources
                .iter()
                .map(|source| source.store.bytes_fetched())
                .sum(),
        }
    }

    /// Hash parts of the paths whose NARs were asked for, in the order of the first asking.
    pub fn used(&self) -> Vec<String> {
        lock(&self.used).order.clone()
    }

    fn note_use(&self, hash: &str) {
        let mut used = lock(&self.used);
        if used.seen.insert(hash.to_owned()) {
            used.order.push(hash.to_owned());
        }
    }

    /// Looks for new segments if it is time to. Whoever comes meanwhile waits for what is found. Says whether
    /// anything may be new since the caller looked.
    fn refresh(&self) -> bool {
        let Some(after) = self.refresh_after else {
            return false;
        };
        let asked = Instant::now();
        let mut refreshed = lock(&self.refreshed);
        if *refreshed > asked {
            return true;
        }
        if refreshed.elapsed() < after {
            return false;
        }
        let mut new = false;
        for source in self.sources.iter() {
            match source.store.refresh() {
                Ok(found) => new |= found.segments_new > 0,
                Err(error) => {
                    let location = source.store.backend().location();
                    tracing::warn!(
                        location,
                        error = &error as &dyn std::error::Error,
                        "the store could not be refreshed"
                    );
                }
            }
        }
        if new {
            // What was damaged may have been written again.
            lock(&self.broken).clear();
        }
        *refreshed = Instant::now();
        new
    }
}

impl Drop for Substituter {
    fn drop(&mut self) {
        self.stop_prefetching();
    }
}
