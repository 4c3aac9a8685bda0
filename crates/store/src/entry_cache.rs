//! Entries read lately, for doors that are asked for the same ones by every client.
//!
//! A read cache only: publications look at the database (rule 8). Every publication makes all of it stale
//! at once, before its caller is answered, so that nobody reads an older entry than they know of.

use crate::StoreError;
use crate::types::{CacheId, Entry, EntryKind};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of keys and values kept.
const BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(CacheId, EntryKind, String);

#[derive(Hash)]
struct KeyRef<'a>(CacheId, EntryKind, &'a str);

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.0, self.1, self.2) == (key.0, key.1, key.2.as_str())
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, (u64, Entry)> for Weight {
    fn weight(&self, key: &Key, (_, entry): &(u64, Entry)) -> u64 {
        (256 + 2 * key.2.len() + entry.value.len() + 8 * entry.blobs.len()) as u64
    }
}

pub(crate) struct EntryCache {
    cache: Cache<Key, (u64, Entry), Weight>,
    publications: AtomicU64,
}

impl EntryCache {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::with_weighter(8192, BYTES_MAX, Weight),
            publications: AtomicU64::new(0),
        }
    }

    /// Something was published: call after the commit and before the answer.
    pub(crate) fn published(&self) {
        self.publications.fetch_add(1, Ordering::SeqCst);
    }

    /// The entry, from here or by `read`.
    pub(crate) fn get(
        &self,
        cache: CacheId,
        kind: EntryKind,
        key: &str,
        read: impl FnOnce() -> Result<Option<Entry>, StoreError>,
    ) -> Result<Option<Entry>, StoreError> {
        // Taken before the read: an entry read before a publication is stale after it.
        let now = self.publications.load(Ordering::SeqCst);
        match self.cache.get(&KeyRef(cache, kind, key)) {
            Some((then, entry)) if then == now => return Ok(Some(entry)),
            _ => {}
        }
        let found = read()?;
        if let Some(entry) = &found {
            let key = Key(cache, kind, key.to_owned());
            self.cache.insert(key, (now, entry.clone()));
        }
        Ok(found)
    }
}
