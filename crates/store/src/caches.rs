//! Caches: made, configured, and deleted in steps.

use crate::db::{Durability, caches};
use crate::{CacheId, CacheRow, Store, StoreError};

/// # Errors
/// As of all operations.
#[allow(clippy::missing_errors_doc)]
impl Store {
    /// Makes a cache; `Conflict` if the name is taken. Segments learn of it.
    pub fn cache_create(
        &self,
        name: &str,
        domain_name: &str,
        config: &[u8],
    ) -> Result<CacheRow, StoreError> {
        let (name, domain) = (name.to_owned(), domain_name.to_owned());
        let config = config.to_owned();
        self.inner.db.write(Durability::Synced, move |connection| {
            caches::create(connection, &name, &domain, &config)
        })
    }

    /// Replaces its configuration.
    pub fn cache_configure(&self, cache: CacheId, config: &[u8]) -> Result<(), StoreError> {
        let config = config.to_owned();
        self.inner.db.write(Durability::Synced, move |connection| {
            caches::configure(connection, cache, &config)
        })
    }

    /// By name.
    pub fn cache(&self, name: &str) -> Result<Option<CacheRow>, StoreError> {
        self.inner
            .db
            .read(|connection| caches::by_name(connection, name))
    }

    /// All, by name.
    pub fn caches(&self) -> Result<Vec<CacheRow>, StoreError> {
        self.inner.db.read(caches::all)
    }

    /// Removes a cache and its entries; its blobs are left to the collector.
    pub fn cache_delete(&self, cache: CacheId) -> Result<(), StoreError> {
        let row = self
            .inner
            .db
            .read(|connection| caches::expect(connection, cache))?;
        self.cache_delete_begin(cache)?;
        self.cache_delete_finish(&row)
    }

    /// The first step of deleting a cache: when it is done nobody sees the cache any more, also after a crash. Its
    /// name is taken until [`Store::cache_delete_finish`] is done. If it fails the cache is as it was.
    pub fn cache_delete_begin(&self, cache: CacheId) -> Result<(), StoreError> {
        let begun = self.inner.db.write(Durability::Synced, move |connection| {
            caches::begin_deleting(connection, cache)
        });
        self.inner.entries.published();
        begun
    }

    /// Removes what is left of a cache whose deletion has begun, in short transactions. If it fails it may be asked
    /// for again.
    pub fn cache_delete_finish(&self, cache: &CacheRow) -> Result<(), StoreError> {
        let id = cache.id;
        while self
            .inner
            .db
            .write(Durability::Ordered, move |connection| {
                caches::delete_some(connection, id)
            })?
        {}
        self.inner.reap_sessions()?;
        let cache = cache.clone();
        let ended = self.inner.db.write(Durability::Synced, move |connection| {
            caches::end_deleting(connection, &cache)
        });
        self.inner.entries.published();
        ended
    }

    /// Caches whose deletion has begun and is not finished.
    pub fn caches_deleting(&self) -> Result<Vec<CacheRow>, StoreError> {
        self.inner.db.read(caches::deleting)
    }
}
