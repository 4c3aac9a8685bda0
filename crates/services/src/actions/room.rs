//! Room in repositories for what is about to be saved: many save at once, and none sees what the others have not
//! published yet.

use crate::ServiceError;
use crate::sync::{self, lock};
use firn_formats::actions::RepositoryName;
use firn_store::{BlobId, CacheId};
use std::collections::HashMap;
use std::sync::{Mutex, RwLock};

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
    /// Bytes that parts which are coming in may still bring.
    coming: Mutex<HashMap<Key, u64>>,
    /// Held together by parts that become staged: for a moment they count twice.
    settling: RwLock<()>,
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

    /// No room yet, for a part that begins to come in.
    pub(super) fn coming(&self, key: Key) -> Coming<'_> {
        Coming {
            room: self,
            key,
            bytes: 0,
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

/// Room for a part that is coming in, until it is staged.
pub(super) struct Coming<'a> {
    room: &'a Room,
    key: Key,
    bytes: u64,
}

impl Coming<'_> {
    /// Makes room for more, up to `most` with what is staged and what comes beside it. Looking and taking are one: many
    /// parts come at a time.
    pub(super) fn grow(
        &mut self,
        more: u64,
        most: u64,
        staged: impl Fn() -> Result<u64, ServiceError>,
    ) -> Result<bool, ServiceError> {
        if self.try_grow(more, most, &staged)? {
            return Ok(true);
        }
        // Nothing counts twice now.
        let _none = sync::write(&self.room.settling);
        self.try_grow(more, most, &staged)
    }

    fn try_grow(
        &mut self,
        more: u64,
        most: u64,
        staged: &dyn Fn() -> Result<u64, ServiceError>,
    ) -> Result<bool, ServiceError> {
        let mut coming = lock(&self.room.coming);
        let held = coming.get(&self.key).copied().unwrap_or(0);
        if staged()?.saturating_add(held).saturating_add(more) > most {
            return Ok(false);
        }
        coming.insert(self.key.clone(), held + more);
        self.bytes += more;
        Ok(true)
    }

    /// Stages the part, which takes the room from then on.
    pub(super) fn settle<T>(self, stage: impl FnOnce() -> T) -> T {
        let _settling = sync::read(&self.room.settling);
        let staged = stage();
        drop(self);
        staged
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut coming = lock(&self.room.coming);
        if let Some(held) = coming.get_mut(&self.key) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                coming.remove(&self.key);
            }
        }
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
