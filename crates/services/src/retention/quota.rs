//! Quotas when something is pushed.
//!
//! A quota says what a cache holds in the long run. A push that would exceed it takes away what was used least
//! recently, and is accepted. What was pushed, or promised to a pusher, within the lease cannot go yet; for its
//! sake a cache may hold up to twice its quota meanwhile, and beyond that pushes are refused. So is anything that
//! alone is larger than the quota.

use super::Retention;
use crate::{Cache, ServiceError, sync::lock};
use firn_store::CacheId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// An eviction that could not make room is not tried again for so long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is thought to be in a cache with a quota: never less than there is, since what was there already is
/// counted again until the next look.
struct Meter {
    bytes: u64,
    tried: Option<Instant>,
}

/// The meters of caches with quotas.
#[derive(Default)]
pub(crate) struct Meters(HashMap<CacheId, Meter>);

fn exceeded(cache: &Cache, what: String) -> ServiceError {
    ServiceError::QuotaExceeded(format!("{what} of the cache {}", cache.name()))
}

impl Retention {
    /// Makes room for `bytes` that are about to be published, or refuses them. `whole` is what they are part of,
    /// as far as it is known: a closure, an image.
    ///
    /// # Errors
    /// `QuotaExceeded`, or if the store fails.
    pub(crate) fn admit(&self, cache: &Cache, bytes: u64, whole: u64) -> Result<(), ServiceError> {
        // A session may have begun with another configuration.
        let Some(current) = self.access.cache_by_id(cache.row.id) else {
            return Ok(());
        };
        let Some(quota) = current.config.quota_bytes else {
            return Ok(());
        };
        if whole > quota {
            let what =
                format!("this alone has {whole} bytes, more than the quota of {quota} bytes");
            return Err(exceeded(cache, what));
        }
        let (metered, may_try) = self.meter(cache.row.id, bytes)?;
        if metered <= quota {
            return Ok(());
        }
        // Who cannot wait for an eviction under way is let in, up to twice the quota.
        let most = quota.saturating_mul(2);
        if !may_try && metered <= most {
            return Ok(());
        }
        if self.make_room(&current, quota, bytes, metered > most)? > most {
            let metered = self.unmeter(cache.row.id, bytes);
            let what = format!(
                "it holds {} bytes that cannot go yet, being pinned, pushed or asked for by a pusher within {} s; \
                 that is more than twice the quota of {quota} bytes",
                metered,
                self.store.lease().as_secs()
            );
            return Err(exceeded(cache, what));
        }
        Ok(())
    }

    /// Adds to what is thought to be there. Whether an eviction may be tried.
    fn meter(&self, cache: CacheId, bytes: u64) -> Result<(u64, bool), ServiceError> {
        let mut meters = lock(&self.meters);
        if let Some(meter) = meters.0.get_mut(&cache) {
            meter.bytes = meter.bytes.saturating_add(bytes);
            let may_try = meter
                .tried
                .is_none_or(|tried| tried.elapsed() >= TRY_AGAIN_AFTER);
            return Ok((meter.bytes, may_try));
        }
        drop(meters);
        let held = self.store.cache_usage(cache)?.stored_bytes;
        let mut meters = lock(&self.meters);
        let meter = meters.0.entry(cache).or_insert(Meter {
            bytes: held,
            tried: None,
        });
        meter.bytes = meter.bytes.saturating_add(bytes);
        Ok((meter.bytes, true))
    }

    fn unmeter(&self, cache: CacheId, bytes: u64) -> u64 {
        let mut meters = lock(&self.meters);
        let meter = meters.0.get_mut(&cache);
        meter.map_or(0, |meter| {
            meter.bytes = meter.bytes.saturating_sub(bytes);
            meter.bytes
        })
    }

    /// Evicts until `bytes` more fit into the quota, and looks what there is; with those. `wait`: also if another
    /// eviction is under way.
    fn make_room(
        &self,
        cache: &Cache,
        quota: u64,
        bytes: u64,
        wait: bool,
    ) -> Result<u64, ServiceError> {
        let _one_by_one = match (self.evicting.try_lock(), wait) {
            (Ok(held), _) => held,
            (Err(_), true) => lock(&self.evicting),
            (Err(_), false) => return Ok(0),
        };
        let held = || self.store.cache_usage(cache.row.id);
        let mut metered = held()?.stored_bytes.saturating_add(bytes);
        if metered > quota {
            self.evict_to(cache, Some(quota.saturating_sub(bytes)))?;
            metered = held()?.stored_bytes.saturating_add(bytes);
        }
        // What others have announced and not published yet is left out, and found at the next look.
        let meter = Meter {
            bytes: metered,
            tried: (metered > quota).then(Instant::now),
        };
        lock(&self.meters).0.insert(cache.row.id, meter);
        Ok(metered)
    }

    /// Forgets what is thought to be in a cache.
    pub(crate) fn forget_meter(&self, cache: CacheId) {
        lock(&self.meters).0.remove(&cache);
    }
}
