//! Retention: what a cache keeps, for how long, and what goes first.
//!
//! | module | what it does |
//! |---|---|
//! | `uses` | notes in memory what is read, told to the database now and then |
//! | `scan` | a cache's entries as a graph |
//! | `graph` | which go, over numbers alone |
//! | `plan` | shows it, or takes it away in short transactions that look again |
//! | `quota` | what a push is told when the cache is full |
//! | `roots` | what never goes |
//!
//! Entries go here; their blobs and chunks are the collector's afterwards.

mod graph;
mod plan;
mod quota;
mod roots;
mod scan;
mod uses;

pub use plan::{Evictions, Plan};
pub(crate) use uses::Uses;

use crate::nix_cache::Narinfos;
use crate::{Access, Cache, ServiceError, sync::lock};
use firn_store::{EntryKind, Evicted, Store};
use graph::Limits;
use std::sync::{Arc, Mutex};

/// An eviction for a quota goes on until the cache holds no more than this part of it, so that not every push
/// needs another.
const LOW_WATER_PERCENT: u64 = 90;

/// Keeps caches within their limits.
pub struct Retention {
    store: Store,
    access: Arc<Access>,
    narinfos: Arc<Narinfos>,
    uses: Arc<Uses>,
    meters: Mutex<quota::Meters>,
    /// Held while something is evicted: one plan at a time.
    evicting: Mutex<()>,
    /// Held while a root is read, changed and written.
    pinning: Mutex<()>,
}

impl Retention {
    pub(crate) fn new(
        store: Store,
        access: Arc<Access>,
        narinfos: Arc<Narinfos>,
        uses: Arc<Uses>,
    ) -> Self {
        Self {
            store,
            access,
            narinfos,
            uses,
            meters: Mutex::default(),
            evicting: Mutex::default(),
            pinning: Mutex::default(),
        }
    }

    /// Tells the database what was used. To be called now and then, and before the end.
    ///
    /// # Errors
    /// If the store fails.
    pub fn flush(&self) -> Result<(), ServiceError> {
        self.uses.flush(&self.store)
    }

    /// A cache has other limits now.
    pub fn reconfigured(&self, cache: &Cache) {
        self.forget_meter(cache.row.id);
    }

    /// What would go from a cache by its own limits, if it has any.
    ///
    /// # Errors
    /// If the store fails.
    pub fn plan(&self, cache: &Cache) -> Result<Plan, ServiceError> {
        self.plan_to(cache, None)
    }

    /// `most`: bytes beyond which something goes, if not the quota itself.
    fn plan_to(&self, cache: &Cache, most: Option<u64>) -> Result<Plan, ServiceError> {
        self.flush()?;
        let scan = scan::scan(&self.store, cache.row.id)?;
        let keep_for = cache.config.keep_for_seconds;
        let keep_for_ms = keep_for.map(|seconds| i64::try_from(seconds.saturating_mul(1000)));
        let bytes = cache.config.quota_bytes.map(|quota| {
            let low = quota / 100 * LOW_WATER_PERCENT + quota % 100 * LOW_WATER_PERCENT / 100;
            let most = most.unwrap_or(quota);
            (most, low.min(most))
        });
        let limits = Limits {
            unused_since_ms: keep_for_ms
                .map(|ms| scan.now_ms.saturating_sub(ms.unwrap_or(i64::MAX))),
            bytes,
        };
        Ok(Plan::new(cache.row.id, scan, limits))
    }

    /// Takes away what a cache's limits do not let stay.
    ///
    /// # Errors
    /// If the store fails.
    pub fn evict(&self, cache: &Cache) -> Result<Evictions, ServiceError> {
        let _one_by_one = lock(&self.evicting);
        self.evict_to(cache, None)
    }

    /// What [`Retention::evict`] would take away now.
    ///
    /// # Errors
    /// If the store fails.
    pub fn preview(&self, cache: &Cache) -> Result<Evictions, ServiceError> {
        self.plan(cache)?.preview(&self.store)
    }

    /// The caller holds `evicting`.
    fn evict_to(&self, cache: &Cache, most: Option<u64>) -> Result<Evictions, ServiceError> {
        let plan = self.plan_to(cache, most)?;
        if plan.is_empty() {
            return Ok(Evictions::default());
        }
        let evictions = plan.execute(&self.store, &mut |gone| {
            self.narinfos
                .forget(cache.row.id, gone.iter().map(String::as_str));
            self.flush()
        });
        self.forget_meter(cache.row.id);
        let evictions = evictions?;
        tracing::info!(
            cache = cache.name(),
            paths = evictions.paths,
            images = evictions.images,
            bytes = evictions.bytes,
            stayed = evictions.stayed,
            "evicted"
        );
        Ok(evictions)
    }

    /// Keeps every cache within its limits. To be called now and then, before a collection.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keep(&self) -> Result<Evictions, ServiceError> {
        let mut all = Evictions::default();
        for cache in self.access.all_caches() {
            let config = &cache.config;
            // To know what is unused takes a look at everything, to know how much there is does not.
            let may_be_over = match (config.keep_for_seconds, config.quota_bytes) {
                (Some(_), _) => true,
                (None, Some(quota)) => self.store.cache_usage(cache.row.id)?.stored_bytes > quota,
                (None, None) => false,
            };
            if !may_be_over {
                continue;
            }
            let evictions = self.evict(&cache)?;
            all.paths += evictions.paths;
            all.images += evictions.images;
            all.bytes += evictions.bytes;
            all.stayed += evictions.stayed;
        }
        Ok(all)
    }

    /// When and why a store path went, by its hash part; of one that is not here.
    ///
    /// # Errors
    /// If the store fails.
    pub fn evicted_path(&self, cache: &Cache, hash: &str) -> Result<Option<Evicted>, ServiceError> {
        Ok(self
            .store
            .last_eviction(cache.row.id, EntryKind::Narinfo, hash)?)
    }

    /// What went from a cache, the newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub fn evictions(&self, cache: &Cache, limit: usize) -> Result<Vec<Evicted>, ServiceError> {
        Ok(self.store.evictions(cache.row.id, limit)?)
    }
}
