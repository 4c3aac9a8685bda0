//! The Nix binary cache: narinfos, NARs, listings, logs, realisations.
//!
//! Entries of one store path, published together:
//! ```text
//! Narinfo  <hash part>            the narinfo, signed, as it is served
//! NarFile  <base32 of the NAR's SHA-256>, and of its zstd representation's
//! NarAlias <file name>            the name under which `nix copy` uploaded it
//! ```
//! A NAR is readable only through a cache that has one of the latter two.

mod body;
mod extra;
mod nar;
mod narinfo;
mod upload;
mod wrap;

pub use extra::ExtraKind;
pub use nar::{NarForm, NarSource};
pub use upload::Uploaded;
pub use wrap::WrappedNar;

pub(crate) use narinfo::{VerifiedPath, check_verified, parse_signatures};

use crate::{ServiceError, access::Cache, sessions::SharedSessions};
use bytes::Bytes;
use firn_store::{CacheId, EntryKind, Store};
use quick_cache::sync::Cache as QuickCache;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for narinfos that are asked for often, in bytes.
const NARINFO_CACHE_BYTES: u64 = 16 << 20;
/// What a remembered narinfo costs besides its text, in bytes.
const NARINFO_OVERHEAD_BYTES: u64 = 128;

/// A store path's hash part as text.
pub type HashText = [u8; 32];

#[derive(Clone)]
struct ByLength;

impl quick_cache::Weighter<(CacheId, HashText), Bytes> for ByLength {
    fn weight(&self, _: &(CacheId, HashText), narinfo: &Bytes) -> u64 {
        narinfo.len() as u64 + NARINFO_OVERHEAD_BYTES
    }
}

/// The Nix cache door's work.
pub struct NixCache {
    store: Store,
    sessions: SharedSessions,
    narinfos: QuickCache<(CacheId, HashText), Bytes, ByLength>,
    /// The store's changes that `narinfos` knows of.
    changes: AtomicU64,
    /// Rises after every publication and before what it changed is forgotten, so that a reader
    /// who loaded the old text notices that it must not stay.
    publications: AtomicU64,
    /// Held while signatures are added to a narinfo that is there.
    merging: Mutex<()>,
}

/// `text` as a hash part, if it looks like one.
pub fn hash_text(text: &str) -> Option<HashText> {
    let bytes: HashText = text.as_bytes().try_into().ok()?;
    let base32 = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'd' | b'f'..=b'n' | b'p'..=b's' | b'v'..=b'z');
    bytes.iter().all(base32).then_some(bytes)
}

impl NixCache {
    /// Over a store.
    pub(crate) fn new(store: Store) -> Self {
        Self {
            sessions: SharedSessions::new(store.clone()),
            store,
            narinfos: QuickCache::with_weighter(
                (NARINFO_CACHE_BYTES / 1024) as usize,
                NARINFO_CACHE_BYTES,
                ByLength,
            ),
            changes: AtomicU64::new(0),
            publications: AtomicU64::new(0),
            merging: Mutex::new(()),
        }
    }

    pub(crate) fn sweep(&self) {
        self.sessions.sweep();
    }

    /// A narinfo that is in memory; never waits.
    pub fn narinfo_in_memory(&self, cache: &Cache, hash: &HashText) -> Option<Bytes> {
        let changes = self.store.changes();
        if self.changes.load(Ordering::Acquire) != changes {
            // Something may not be servable any more (rule 4). Rare, so all are forgotten.
            self.publications.fetch_add(1, Ordering::AcqRel);
            self.narinfos.clear();
            self.changes.store(changes, Ordering::Release);
        }
        self.narinfos.get(&(cache.row.id, *hash))
    }

    /// A store path's narinfo.
    ///
    /// # Errors
    /// If the store fails.
    pub fn narinfo(&self, cache: &Cache, hash: &HashText) -> Result<Option<Bytes>, ServiceError> {
        if let Some(narinfo) = self.narinfo_in_memory(cache, hash) {
            return Ok(Some(narinfo));
        }
        let Ok(key) = std::str::from_utf8(hash) else {
            return Ok(None);
        };
        let changes = self.store.changes();
        let before = self.publications.load(Ordering::Acquire);
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Narinfo, key)? else {
            return Ok(None);
        };
        // A copy of its own: the entry's bytes may be a slice of something larger.
        let narinfo = Bytes::copy_from_slice(&entry.value);
        let memory_key = (cache.row.id, *hash);
        self.narinfos.insert(memory_key, narinfo.clone());
        if self.publications.load(Ordering::Acquire) != before || self.store.changes() != changes {
            self.narinfos.remove(&memory_key);
        }
        Ok(Some(narinfo))
    }

    /// To be called after a publication that put or removed these narinfos.
    pub(crate) fn forget<'a>(&self, cache: &Cache, hashes: impl Iterator<Item = &'a str>) {
        self.publications.fetch_add(1, Ordering::AcqRel);
        for hash in hashes {
            if let Some(hash) = hash_text(hash) {
                self.narinfos.remove(&(cache.row.id, hash));
            }
        }
    }

    /// Says "it is here" for these paths to a pusher: renews their leases (rule 5), then looks.
    ///
    /// # Errors
    /// If the store fails.
    pub fn present_for_pusher(
        &self,
        cache: &Cache,
        hashes: &[&str],
    ) -> Result<Vec<bool>, ServiceError> {
        self.store.renew(cache.row.id, EntryKind::Narinfo, hashes)?;
        Ok(self
            .store
            .entries_present(cache.row.id, EntryKind::Narinfo, hashes)?)
    }
}
