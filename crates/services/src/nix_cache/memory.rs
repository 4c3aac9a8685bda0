//! Narinfos in memory, as they are served.

use super::{HashText, hash_text};
use crate::access::Cache;
use bytes::Bytes;
use firn_store::CacheId;
use quick_cache::sync::Cache as QuickCache;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for narinfos that are asked for often, in bytes.
const NARINFO_CACHE_BYTES: u64 = 16 << 20;
/// What a remembered narinfo costs besides its text, in bytes.
const NARINFO_OVERHEAD_BYTES: u64 = 128;

#[derive(Clone)]
struct ByLength;

impl quick_cache::Weighter<(CacheId, HashText), (u32, Bytes)> for ByLength {
    fn weight(&self, _: &(CacheId, HashText), narinfo: &(u32, Bytes)) -> u64 {
        narinfo.1.len() as u64 + NARINFO_OVERHEAD_BYTES
    }
}

/// Those that were asked for lately. Whoever changes what is served has them forgotten.
pub(crate) struct Narinfos {
    /// With the generation of the keys that signed.
    texts: QuickCache<(CacheId, HashText), (u32, Bytes), ByLength>,
    /// Rises after every change and before what it changed is forgotten, so that a reader who loaded the old
    /// text notices that it must not stay.
    changes: AtomicU64,
}

impl Narinfos {
    pub(crate) fn new() -> Self {
        Self {
            texts: QuickCache::with_weighter(
                (NARINFO_CACHE_BYTES / 1024) as usize,
                NARINFO_CACHE_BYTES,
                ByLength,
            ),
            changes: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self, cache: &Cache, hash: &HashText) -> Option<Bytes> {
        let (generation, text) = self.texts.get(&(cache.row.id, *hash))?;
        (generation == cache.keys.generation()).then_some(text)
    }

    /// To be called before a text is loaded, for [`Narinfos::keep`].
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Keeps a text, unless anything changed since `before`.
    pub(crate) fn keep(&self, cache: &Cache, hash: &HashText, text: Bytes, before: u64) {
        let key = (cache.row.id, *hash);
        self.texts.insert(key, (cache.keys.generation(), text));
        if self.changes() != before {
            self.texts.remove(&key);
        }
    }

    /// To be called after these narinfos were put or removed.
    pub(crate) fn forget<'a>(&self, cache: CacheId, hashes: impl Iterator<Item = &'a str>) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        for hash in hashes.filter_map(hash_text) {
            self.texts.remove(&(cache, hash));
        }
    }

    /// To be called after anything may have ceased to be served.
    pub(crate) fn forget_all(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.texts.clear();
    }
}
