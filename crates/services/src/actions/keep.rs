//! Quotas and retention: GitHub's, but that the default branch's entries go last.

use super::entry::KIND;
use super::room::{Key, Place};
use super::{Actions, Entry, Repository};
use crate::{ServiceError, sync::lock};
use firn_store::{BlobId, EvictionReason};
use std::cmp::Reverse;
use std::collections::HashMap;

/// What a repository may hold unless its cache says otherwise, in bytes: GitHub's 10 GB.
const QUOTA_BYTES: u64 = 10 << 30;
/// How long what nobody uses is kept unless its cache says otherwise, in seconds: GitHub's 7 days.
const KEEP_FOR_SECONDS: u64 = 7 * 24 * 3600;

/// How often it is looked again what has to go, when some of that was used meanwhile.
const TRIES: usize = 3;

/// What a cache's configuration says of its Actions repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ActionsConfig {
    /// Stored bytes of each repository; 10 GiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// How long what nobody uses is kept; 7 days if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_seconds: Option<u64>,
    /// Whether what a repository saved on its default branch may be read by the cache's other repositories.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl ActionsConfig {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Bytes a repository may hold.
    pub fn quota(&self) -> u64 {
        self.quota_bytes.unwrap_or(QUOTA_BYTES)
    }

    /// Seconds that something is kept after its last use.
    pub fn keep_for(&self) -> u64 {
        self.keep_for_seconds.unwrap_or(KEEP_FOR_SECONDS)
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Usage {
    pub entries: u64,
    /// As uploaded.
    pub bytes: u64,
    /// Of its distinct blobs, as stored; what the quota counts.
    pub stored_bytes: u64,
    pub quota_bytes: u64,
    pub keep_for_seconds: u64,
}

/// Stored bytes, by blob, and how many entries name each, or will.
struct Stored(HashMap<BlobId, (u64, u32)>);

impl Stored {
    fn bytes(&self) -> u64 {
        self.0.values().map(|(bytes, _)| bytes).sum()
    }

    /// Names a blob once more.
    fn name(&mut self, blob: BlobId, bytes: u64) {
        self.0.entry(blob).or_insert((bytes, 0)).1 += 1;
    }

    /// Bytes that go with an entry.
    fn take(&mut self, entry: &Entry) -> u64 {
        match self.0.get_mut(&entry.blob) {
            Some((bytes, names)) => {
                *names -= 1;
                if *names == 0 { *bytes } else { 0 }
            }
            None => 0,
        }
    }
}

impl Actions {
    /// What a repository holds.
    ///
    /// # Errors
    /// If the store fails.
    pub fn usage(&self, repository: &Repository) -> Result<Usage, ServiceError> {
        let entries = self.list(repository)?;
        let config = self.config(repository);
        Ok(Usage {
            entries: entries.len() as u64,
            bytes: entries.iter().map(|entry| entry.size).sum(),
            stored_bytes: self.stored(&entries)?.bytes(),
            quota_bytes: config.quota(),
            keep_for_seconds: config.keep_for(),
        })
    }

    /// As configured now: a cache that somebody holds may be older.
    pub(super) fn config(&self, repository: &Repository) -> ActionsConfig {
        let current = self.access.cache_by_id(repository.cache.row.id);
        current.map_or_else(ActionsConfig::default, |cache| cache.config.actions.clone())
    }

    fn stored(&self, entries: &[Entry]) -> Result<Stored, ServiceError> {
        let mut stored = Stored(HashMap::new());
        for entry in entries {
            let bytes = match stored.0.get(&entry.blob) {
                Some((bytes, _)) => *bytes,
                None => {
                    let blob = self.store.blob(entry.blob)?;
                    blob.map_or(0, |blob| blob.zstd_length)
                }
            };
            stored.name(entry.blob, bytes);
        }
        Ok(stored)
    }

    /// Makes room for a blob that is about to be named by a new entry; it is kept for it until that is said.
    ///
    /// # Errors
    /// `QuotaExceeded` if it alone is larger than the quota; if the store fails.
    pub(super) fn make_room(
        &self,
        repository: &Repository,
        blob: BlobId,
        bytes: u64,
    ) -> Result<Place<'_>, ServiceError> {
        let quota = self.config(repository).quota();
        if bytes > quota {
            return Err(ServiceError::QuotaExceeded(format!(
                "the entry has {bytes} bytes, and the repository {} may hold {quota}",
                repository.name
            )));
        }
        let key = (repository.cache.row.id, repository.name.clone());
        let place = self.room.take(key.clone(), blob, bytes);
        if self.room.add(&key, bytes, quota) {
            return Ok(place);
        }
        self.fit(repository, key, None)?;
        Ok(place)
    }

    /// After an entry was published: several that came at once may not fit together, and the last one sees all.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) fn settle(&self, repository: &Repository, entry: u64) -> Result<(), ServiceError> {
        let key = (repository.cache.row.id, repository.name.clone());
        match self.room.add(&key, 0, self.config(repository).quota()) {
            true => Ok(()),
            false => self.fit(repository, key, Some(entry)),
        }
    }

    /// Looks at all that a repository holds, and evicts down to its quota, all but `kept`.
    fn fit(
        &self,
        repository: &Repository,
        key: Key,
        kept: Option<u64>,
    ) -> Result<(), ServiceError> {
        let _one_by_one = lock(&self.room.evicting);
        // Who comes now has to wait, so that what is pending is all that is not seen below.
        self.room.forget(&key);
        let pending = self.room.pending(&key);
        for _ in 0..TRIES {
            let (held, gone) = self.surplus(repository, &pending, kept)?;
            let wanted = gone.len();
            if self.evict(repository, gone, EvictionReason::Quota)? == wanted {
                self.room.set(key, held);
                break;
            }
        }
        Ok(())
    }

    /// What has to go, so that the rest is within the quota, and the bytes of the rest.
    fn surplus(
        &self,
        repository: &Repository,
        pending: &[(BlobId, u64)],
        kept: Option<u64>,
    ) -> Result<(u64, Vec<Entry>), ServiceError> {
        let quota = self.config(repository).quota();
        let mut entries = self.list(repository)?;
        let mut stored = self.stored(&entries)?;
        for (blob, bytes) in pending {
            stored.name(*blob, *bytes);
        }
        let mut held = stored.bytes();
        // One whose save is not over yet would be counted as coming when it is gone.
        let is_pending = |entry: &Entry| pending.iter().any(|(blob, _)| *blob == entry.blob);
        entries.retain(|entry| Some(entry.id) != kept && !is_pending(entry));
        // What goes first comes last.
        entries.sort_by_key(|entry| Reverse((entry.default_branch, entry.used_at_ms, entry.id)));
        let mut gone = Vec::new();
        while held > quota
            && let Some(entry) = entries.pop()
        {
            held -= stored.take(&entry);
            gone.push(entry);
        }
        Ok((held, gone))
    }

    /// Takes entries away that were not used meanwhile; says how many that were.
    fn evict(
        &self,
        repository: &Repository,
        entries: Vec<Entry>,
        reason: EvictionReason,
    ) -> Result<usize, ServiceError> {
        if entries.is_empty() {
            return Ok(0);
        }
        let count = self.store.evict(repository.cache.row.id, move |eviction| {
            let mut count = 0;
            for entry in &entries {
                if eviction.entry(entry.id, KIND)?.is_some()
                    && eviction.may_go(entry.id, entry.used_at_ms, false)?
                {
                    eviction.remember(&entry.evicted(reason))?;
                    eviction.remove(entry.id)?;
                    count += 1;
                }
            }
            Ok(count)
        })?;
        tracing::info!(
            cache = repository.cache.name(),
            repository = %repository.name,
            entries = count,
            reason = super::history::reason(reason),
            "evicted Actions entries"
        );
        Ok(count)
    }

    /// Takes away what nobody used for longer than its cache keeps things. To be called now and then.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keep(&self) -> Result<(), ServiceError> {
        for cache in self.access.all_caches() {
            for name in self.repositories(&cache)? {
                let cache = cache.clone();
                self.expire(&Repository { cache, name })?;
            }
        }
        Ok(())
    }

    fn expire(&self, repository: &Repository) -> Result<(), ServiceError> {
        let keep_for_ms = self.config(repository).keep_for().saturating_mul(1000);
        let (now_ms, _) = self.store.now_and_newest()?;
        let since = now_ms.saturating_sub(i64::try_from(keep_for_ms).unwrap_or(i64::MAX));
        let _one_by_one = lock(&self.room.evicting);
        let mut entries = self.list(repository)?;
        entries.retain(|entry| entry.used_at_ms < since);
        self.evict(repository, entries, EvictionReason::Unused)?;
        Ok(())
    }
}
