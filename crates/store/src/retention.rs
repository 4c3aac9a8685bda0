//! What retention asks of a store, and the transaction in which it takes entries away.
//!
//! Which entry needs which is for the protocols to know. So the caller plans by what [`Store::held_entries`] and
//! [`Store::held_blobs`] tell, and takes away inside [`Store::evict`], where nothing can be published meanwhile
//! and everything that matters can be looked up again.

use crate::db::{Durability, caches, entries, retention, signed};
use crate::{
    CacheId, CacheRow, Entry, EntryKind, Evicted, EvictionSummary, HeldBlob, HeldEntry, Store,
    StoreError, Use,
};
use rusqlite::Connection;

/// The transaction of an eviction.
pub struct Eviction<'a> {
    connection: &'a Connection,
    cache: CacheRow,
}

/// # Errors
/// If the database fails; then nothing of the transaction is kept.
#[allow(clippy::missing_errors_doc)]
impl Eviction<'_> {
    /// What was published after `sequence`, of these kinds.
    pub fn published_since(
        &self,
        sequence: u64,
        kinds: &[EntryKind],
    ) -> Result<Vec<Entry>, StoreError> {
        entries::since(self.connection, self.cache.id, signed(sequence), kinds)
    }

    /// Whether an entry is still what was planned for: there, not used after `used_at_ms`, and not promised to a
    /// pusher (rule 5). `blob_leases`: the leases of its blobs are such promises.
    pub fn may_go(
        &self,
        sequence: u64,
        used_at_ms: i64,
        blob_leases: bool,
    ) -> Result<bool, StoreError> {
        retention::may_go(self.connection, sequence, used_at_ms, blob_leases)
    }

    /// An entry that was planned for, if it is there and of that kind.
    pub fn entry(&self, sequence: u64, kind: EntryKind) -> Result<Option<Entry>, StoreError> {
        entries::of_sequence(self.connection, self.cache.id, signed(sequence), kind)
    }

    /// An entry that can be served, by its key.
    pub fn find(&self, kind: EntryKind, key: &str) -> Result<Option<Entry>, StoreError> {
        entries::get(self.connection, self.cache.id, kind, key)
    }

    /// The entries of a kind whose keys begin with `prefix` and whose value is `value`.
    pub fn with_value(
        &self,
        kind: EntryKind,
        prefix: &str,
        value: &[u8],
    ) -> Result<Vec<Entry>, StoreError> {
        entries::with_value(self.connection, self.cache.id, kind, prefix, value)
    }

    /// An entry of kind `by` in the same cache that names one of this entry's blobs.
    pub fn named_by(&self, sequence: u64, by: EntryKind) -> Result<Option<Entry>, StoreError> {
        entries::naming_the_same(self.connection, self.cache.id, signed(sequence), by)
    }

    /// Takes an entry away; segments learn of it.
    pub fn remove(&self, sequence: u64) -> Result<(), StoreError> {
        retention::remove(self.connection, self.cache.id, &self.cache.name, sequence)
    }

    /// Remembers what went, and why.
    pub fn remember(&self, evicted: &Evicted) -> Result<(), StoreError> {
        retention::remember(self.connection, self.cache.id, evicted)
    }

    /// The newest sequence there is.
    pub fn newest(&self) -> Result<u64, StoreError> {
        retention::now_and_newest(self.connection).map(|(_, newest)| newest)
    }
}

/// # Errors
/// As of all operations.
#[allow(clippy::missing_errors_doc)]
impl Store {
    /// Notes uses, in one transaction. They may be lost in a crash.
    pub fn record_uses(&self, uses: Vec<Use>) -> Result<(), StoreError> {
        self.inner.db.write(Durability::Ordered, move |connection| {
            retention::record_uses(connection, &uses)
        })
    }

    /// The store's time in milliseconds since 1970 (rule 10), and the newest sequence there is.
    pub fn now_and_newest(&self) -> Result<(i64, u64), StoreError> {
        self.inner.db.read(retention::now_and_newest)
    }

    /// Gives every entry of a kind to `take`, in order of key, in one snapshot.
    pub fn held_entries(
        &self,
        cache: CacheId,
        kind: EntryKind,
        values: bool,
        take: &mut dyn FnMut(HeldEntry),
    ) -> Result<(), StoreError> {
        self.held_entries_below(cache, kind, "", values, take)
    }

    /// As [`Store::held_entries`], of those whose keys begin with `prefix`.
    pub fn held_entries_below(
        &self,
        cache: CacheId,
        kind: EntryKind,
        prefix: &str,
        values: bool,
        take: &mut dyn FnMut(HeldEntry),
    ) -> Result<(), StoreError> {
        self.inner.db.snapshot(|connection| {
            retention::each_entry(connection, cache, kind, prefix, values, take)
        })
    }

    /// A cache's evictions of entries whose keys begin with `prefix`, the newest first.
    pub fn evictions_below(
        &self,
        cache: CacheId,
        kind: EntryKind,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<Evicted>, StoreError> {
        self.inner
            .db
            .read(|connection| retention::evictions_below(connection, cache, kind, prefix, limit))
    }

    /// Gives every blob that entries of the cache name to `take`, once.
    pub fn held_blobs(
        &self,
        cache: CacheId,
        take: &mut dyn FnMut(HeldBlob),
    ) -> Result<(), StoreError> {
        self.inner
            .db
            .snapshot(|connection| retention::each_blob(connection, cache, take))
    }

    /// What was published in a cache after `sequence`, of these kinds.
    pub fn published_since(
        &self,
        cache: CacheId,
        sequence: u64,
        kinds: &[EntryKind],
    ) -> Result<Vec<Entry>, StoreError> {
        self.inner
            .db
            .snapshot(|connection| entries::since(connection, cache, signed(sequence), kinds))
    }

    /// Runs `evict` in a transaction of its own savepoint, while nothing else is published. Keep it short: all
    /// who write wait for it.
    pub fn evict<T, F>(&self, cache: CacheId, evict: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Eviction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        // Ordered is enough: a power cut brings entries back whole, with their blobs, or takes them whole.
        self.take_away(Durability::Ordered, cache, evict)
    }

    /// As [`Store::evict`], and what it took away is gone for good when this returns.
    pub fn withdraw<T, F>(&self, cache: CacheId, withdraw: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Eviction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.take_away(Durability::Synced, cache, withdraw)
    }

    fn take_away<T, F>(
        &self,
        durability: Durability,
        cache: CacheId,
        evict: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Eviction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let evicted = self.inner.db.write(durability, move |connection| {
            evict(&Eviction {
                connection,
                cache: caches::expect(connection, cache)?,
            })
        });
        self.inner.entries.published();
        evicted
    }

    /// The last eviction of an entry.
    pub fn last_eviction(
        &self,
        cache: CacheId,
        kind: EntryKind,
        key: &str,
    ) -> Result<Option<Evicted>, StoreError> {
        self.inner
            .db
            .read(|connection| retention::last_eviction(connection, cache, kind, key))
    }

    /// A cache's evictions, the newest first.
    pub fn evictions(&self, cache: CacheId, limit: usize) -> Result<Vec<Evicted>, StoreError> {
        self.inner
            .db
            .read(|connection| retention::evictions(connection, cache, limit))
    }

    /// All that is remembered of a cache's evictions, summed up.
    pub fn eviction_summary(&self, cache: CacheId) -> Result<EvictionSummary, StoreError> {
        self.inner
            .db
            .read(|connection| retention::eviction_summary(connection, cache))
    }

    /// How long a fresh blob's lease is.
    pub fn lease(&self) -> std::time::Duration {
        self.inner.options.lease
    }
}
