//! The Nix binary cache: narinfos, NARs, listings, logs, realisations.
//!
//! Entries of one store path, published together:
//! ```text
//! Narinfo  <hash part>            the narinfo, signed, as it is served
//! NarFile  <base32 of the NAR's SHA-256>, and of its zstd representation's
//! NarAlias <file name>            the name under which `nix copy` uploaded it
//! ```
//! A NAR is readable only through a cache that has one of the latter two.

mod address;
mod body;
mod extra;
mod memory;
mod nar;
mod narinfo;
mod parsed;
mod realisation;
mod upload;
mod window;
mod wrap;

pub use extra::ExtraKind;
pub use nar::{NarForm, NarSource};
pub use upload::Uploaded;
pub use wrap::WrappedNar;

pub(crate) use memory::Narinfos;
pub(crate) use narinfo::{VerifiedPath, check_verified, parse_signatures};
pub(crate) use parsed::NarParser;

use crate::budget::Budget;
use crate::retention::{Retention, Uses};
use crate::{ServiceError, access::Cache, sessions::SharedSessions};
use bytes::Bytes;
use firn_store::{BlobId, EntryKind, Store};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// NARs without a listing that are remembered.
const UNLISTED_MAX: usize = 4096;

/// A store path's hash part as text.
pub type HashText = [u8; 32];

/// The Nix cache door's work.
pub struct NixCache {
    store: Store,
    sessions: SharedSessions,
    narinfos: Arc<Narinfos>,
    uses: Arc<Uses>,
    retention: Arc<Retention>,
    /// The store's changes that `narinfos` heeds.
    heeded: AtomicU64,
    budget: Budget,
    /// NARs whose listings are too long, or cannot be.
    unlisted: quick_cache::sync::Cache<BlobId, ()>,
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
    pub(crate) fn new(
        store: Store,
        narinfos: Arc<Narinfos>,
        uses: Arc<Uses>,
        retention: Arc<Retention>,
        budget: Budget,
    ) -> Self {
        Self {
            sessions: SharedSessions::new(store.clone()),
            store,
            narinfos,
            uses,
            retention,
            budget,
            unlisted: quick_cache::sync::Cache::new(UNLISTED_MAX),
            heeded: AtomicU64::new(0),
            merging: Mutex::new(()),
        }
    }

    pub(crate) fn sweep(&self) {
        self.sessions.sweep();
    }

    /// A narinfo that is in memory; never waits.
    pub fn narinfo_in_memory(&self, cache: &Cache, hash: &HashText) -> Option<Bytes> {
        let changes = self.store.changes();
        if self.heeded.load(Ordering::Acquire) != changes {
            // Something may not be servable any more (rule 4). Rare, so all are forgotten.
            self.narinfos.forget_all();
            self.heeded.store(changes, Ordering::Release);
        }
        let narinfo = self.narinfos.get(cache, hash)?;
        self.uses.narinfo(cache.row.id, hash);
        Some(narinfo)
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
        let before = self.narinfos.changes();
        let Some(entry) = self.store.entry(cache.row.id, EntryKind::Narinfo, key)? else {
            return Ok(None);
        };
        self.uses.narinfo(cache.row.id, hash);
        let narinfo = match narinfo::signed_anew(cache, &entry.value) {
            Some(narinfo) => narinfo,
            // A copy of its own: the entry's bytes may be a slice of something larger.
            None => Bytes::copy_from_slice(&entry.value),
        };
        self.narinfos.keep(cache, hash, narinfo.clone(), before);
        Ok(Some(narinfo))
    }

    /// Which of these paths are here, to be said to a pusher: their leases are renewed (rule 5).
    ///
    /// # Errors
    /// If the store fails.
    pub fn present_for_pusher(
        &self,
        cache: &Cache,
        hashes: &[&str],
    ) -> Result<Vec<bool>, ServiceError> {
        let present = self.store.renew(cache.row.id, EntryKind::Narinfo, hashes)?;
        let here = std::iter::zip(hashes, &present).filter(|(_, present)| **present);
        for hash in here.filter_map(|(hash, _)| hash_text(hash)) {
            self.uses.narinfo(cache.row.id, &hash);
        }
        Ok(present)
    }
}
