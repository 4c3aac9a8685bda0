//! Room in repositories for what is about to be saved: many save at once, and none sees what the others have not
//! published yet.

use crate::sync::lock;
use firn_formats::actions::RepositoryName;
use firn_store::{BlobId, CacheId};
use std::collections::HashMap;
use std::sync::Mutex;

/// Repositories whose bytes are remembered.
const METERS_MAX: usize = 10_000;

pub(super) type Key = (CacheId, RepositoryName);
/// Bytes of blobs, and how many saves wait for each to be named.
type Pending = HashMap<BlobId, (u64, u32)>;

/// How full repositories are.
#[derive(Default)]
pub(super) struct Room {
    /// What is thought to be in them: never less than there is, so that not every save has to look.
    meters: Mutex<HashMap<Key, u64>>,
    /// Blobs that have their room and are not named by an entry yet.
    pending: Mutex<HashMap<Key, Pending>>,
    /// Held while something is evicted.
    pub(super) evicting: Mutex<()>,
}

/// Room for a blob, until an entry names it.
pub(super) struct Place<'a> {
    room: &'a Room,
    key: Key,
    blob: BlobId,
}

impl Room {
    /// Room for a blob of so many bytes.
    pub(super) fn take(&self, key: Key, blob: BlobId, bytes: u64) -> Place<'_> {
        let mut pending = lock(&self.pending);
        let blobs = pending.entry(key.clone()).or_default();
        blobs.entry(blob).or_insert((bytes, 0)).1 += 1;
        Place {
            room: self,
            key,
            blob,
        }
    }

    /// Adds to a meter unless it is not known or would pass the quota; says whether it did.
    pub(super) fn add(&self, key: &Key, bytes: u64, quota: u64) -> bool {
        match lock(&self.meters).get_mut(key) {
            Some(meter) if meter.saturating_add(bytes) <= quota => {
                *meter += bytes;
                true
            }
            _ => false,
        }
    }

    /// What is in a repository is not known any more: whoever adds has to look.
    pub(super) fn forget(&self, key: &Key) {
        lock(&self.meters).remove(key);
    }

    /// Somebody has looked.
    pub(super) fn set(&self, key: Key, held: u64) {
        let mut meters = lock(&self.meters);
        if meters.len() >= METERS_MAX {
            meters.clear();
        }
        meters.insert(key, held);
    }

    /// What has its room and is not named yet.
    pub(super) fn pending(&self, key: &Key) -> Vec<(BlobId, u64)> {
        let pending = lock(&self.pending);
        let blobs = pending.get(key).into_iter().flatten();
        blobs.map(|(blob, (bytes, _))| (*blob, *bytes)).collect()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.room.pending);
        let Some(blobs) = pending.get_mut(&self.key) else {
            return;
        };
        if let Some((_, saves)) = blobs.get_mut(&self.blob) {
            *saves -= 1;
            if *saves == 0 {
                blobs.remove(&self.blob);
            }
        }
        if blobs.is_empty() {
            pending.remove(&self.key);
        }
    }
}
