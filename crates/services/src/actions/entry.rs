//! An entry, and how the store keeps it.
//!
//! ```text
//! key   = repository LF scope LF version LF key      no part but the last may have what the key may not
//! value = JSON: size, form, default_branch, upload
//! blobs = one
//! ```
//! Its id is its sequence in the store, which outlives the database.

use super::{Actions, ActionsError, Repository};
use crate::ServiceError;
use firn_formats::actions::RepositoryName;
use firn_store::{
    BlobId, BlobReader, CacheId, EntryKind, Evicted, EvictionReason, HeldEntry, Representation,
};
use std::collections::BTreeSet;

pub(super) const KIND: EntryKind = EntryKind::ActionsEntry;

/// How an entry's bytes are stored, and so served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Byte for byte as they came: the blob's identity.
    Exact,
    /// A zstd tar, stored as the tar that it holds, in chunks; served as another zstd stream of the same tar: the
    /// blob's zstd representation.
    Decoded,
}

impl Form {
    /// Which bytes of the blob are the entry's.
    pub fn representation(self) -> Representation {
        match self {
            Self::Exact => Representation::Identity,
            Self::Decoded => Representation::Zstd,
        }
    }
}

/// An entry that is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Grows from entry to entry, over all caches.
    pub id: u64,
    /// As its client wrote it.
    pub key: String,
    /// Opaque; with key and scope it names the entry.
    pub version: String,
    /// A ref in full.
    pub scope: String,
    /// Bytes as they were uploaded. Those served may differ, see [`Form`].
    pub size: u64,
    /// How it is stored.
    pub form: Form,
    /// Whether it was saved on the default branch, whose entries go last.
    pub default_branch: bool,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Its last use, or when it was saved; milliseconds since 1970. Uses are told in batches: [`Actions::list`]
    /// tells them first, a look-up leaves what it found as old as the last batch.
    pub used_at_ms: i64,
    /// Its bytes.
    pub blob: BlobId,
    /// The upload that it was made of, and its number.
    pub(super) upload: String,
    pub(super) upload_number: u64,
    /// Where the store keeps it.
    pub(super) stored_key: String,
}

/// An entry's value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Value {
    pub(super) size: u64,
    pub(super) form: Form,
    pub(super) default_branch: bool,
    pub(super) upload: String,
    /// The upload's number; 0 in entries of before it was kept.
    #[serde(default)]
    pub(super) number: u64,
}

/// Under which key the store keeps an entry.
pub(super) fn stored_key(
    repository: &RepositoryName,
    scope: &str,
    version: &str,
    key: &str,
) -> String {
    format!("{repository}\n{scope}\n{version}\n{key}")
}

/// With which the keys of a repository's entries begin.
pub(super) fn prefix(repository: &RepositoryName) -> String {
    format!("{repository}\n")
}

/// Repository, scope, version, key.
pub(super) fn split(stored_key: &str) -> Option<[&str; 4]> {
    let mut parts = stored_key.splitn(4, '\n');
    Some([parts.next()?, parts.next()?, parts.next()?, parts.next()?])
}

impl Entry {
    fn from_parts(
        id: u64,
        stored_key: &str,
        value: &[u8],
        blobs: &[BlobId],
        created_at: i64,
        used_at_ms: i64,
    ) -> Option<Self> {
        let [_, scope, version, key] = split(stored_key)?;
        let value: Value = serde_json::from_slice(value).ok()?;
        Some(Self {
            id,
            key: key.to_owned(),
            version: version.to_owned(),
            scope: scope.to_owned(),
            size: value.size,
            form: value.form,
            default_branch: value.default_branch,
            created_at,
            used_at_ms,
            blob: *blobs.first()?,
            upload: value.upload,
            upload_number: value.number,
            stored_key: stored_key.to_owned(),
        })
    }

    pub(super) fn of_store(entry: &firn_store::Entry) -> Result<Self, ServiceError> {
        let used_at_ms = entry.created_at.saturating_mul(1000);
        let (id, key, at) = (entry.sequence, &entry.key, entry.created_at);
        Self::from_parts(id, key, &entry.value, &entry.blobs, at, used_at_ms)
            .ok_or_else(|| ServiceError::StoredEntry(format!("Actions entry {}", entry.sequence)))
    }

    pub(super) fn of_held(entry: &HeldEntry) -> Option<Self> {
        let at = entry.published_at_ms / 1000;
        let (id, used) = (entry.sequence, entry.used_at_ms);
        Self::from_parts(id, &entry.key, &entry.value, &entry.blobs, at, used)
    }

    /// What is remembered of it when it is gone.
    pub(super) fn evicted(&self, reason: EvictionReason) -> Evicted {
        Evicted {
            kind: KIND,
            key: self.stored_key.clone(),
            name: self.key.clone(),
            at: 0,
            reason,
            bytes: self.size,
            used_at: self.used_at_ms.max(0) / 1000,
        }
    }
}

impl Actions {
    /// All entries of a repository, in no order that means anything. Uses are told first.
    ///
    /// # Errors
    /// If the store fails.
    pub fn list(&self, repository: &Repository) -> Result<Vec<Entry>, ServiceError> {
        self.retention.flush()?;
        let mut found = Vec::new();
        let prefix = prefix(&repository.name);
        let cache = repository.cache.row.id;
        self.store.held_entries_below(
            cache,
            KIND,
            &prefix,
            true,
            &mut |held| match Entry::of_held(&held) {
                Some(entry) => found.push(entry),
                None => tracing::warn!(id = held.sequence, "an Actions entry is damaged"),
            },
        )?;
        Ok(found)
    }

    /// The repositories of a cache that have entries.
    ///
    /// # Errors
    /// If the store fails.
    pub fn repositories(&self, cache: &crate::Cache) -> Result<Vec<RepositoryName>, ServiceError> {
        let mut names = BTreeSet::new();
        self.store
            .held_entries(cache.row.id, KIND, false, &mut |held| {
                let name = split(&held.key).and_then(|[name, ..]| RepositoryName::parse(name).ok());
                names.extend(name);
            })?;
        Ok(names.into_iter().collect())
    }

    /// One entry of a repository, if it can be served. It counts as not used.
    ///
    /// # Errors
    /// If the store fails.
    pub fn entry(&self, repository: &Repository, id: u64) -> Result<Option<Entry>, ServiceError> {
        let cache = repository.cache.row.id;
        let Some(found) = self.store.entry_by_sequence(cache, KIND, id)? else {
            return Ok(None);
        };
        if !found.key.starts_with(&prefix(&repository.name)) {
            return Ok(None);
        }
        Entry::of_store(&found).map(Some)
    }

    /// Deletes entries of a repository; gives those that were there. The history remembers them.
    ///
    /// # Errors
    /// If the store fails.
    pub fn delete(&self, repository: &Repository, ids: &[u64]) -> Result<Vec<Entry>, ServiceError> {
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.entry(repository, *id)?);
        }
        if found.is_empty() {
            return Ok(found);
        }
        let gone = found.clone();
        self.store.evict(repository.cache.row.id, move |eviction| {
            for entry in &gone {
                if eviction.entry(entry.id, KIND)?.is_some() {
                    eviction.remember(&entry.evicted(EvictionReason::Deleted))?;
                    eviction.remove(entry.id)?;
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Notes that an entry was used.
    pub fn used(&self, repository: &Repository, entry: &Entry) {
        self.uses
            .entry(repository.cache.row.id, KIND, &entry.stored_key);
    }

    /// The entry that a signed URL names. It counts as used.
    ///
    /// # Errors
    /// `Gone` if it is not there, or has other bytes than when the URL was signed.
    pub fn signed_entry(&self, cache: CacheId, id: &str, size: u64) -> Result<Entry, ActionsError> {
        let id = id.parse().map_err(|_| ActionsError::Gone)?;
        let found = self.store.entry_by_sequence(cache, KIND, id)?;
        let entry = Entry::of_store(&found.ok_or(ActionsError::Gone)?)?;
        if self.served_bytes(&entry)? != size {
            return Err(ActionsError::Gone);
        }
        self.uses.entry(cache, KIND, &entry.stored_key);
        Ok(entry)
    }

    /// Opens an entry's bytes, or (first, length) of them, for reading.
    ///
    /// # Errors
    /// If not all of them can be had.
    pub fn read(
        &self,
        entry: &Entry,
        part: Option<(u64, u64)>,
    ) -> Result<BlobReader, ActionsError> {
        let representation = entry.form.representation();
        Ok(self.store.read(entry.blob, representation, part)?)
    }

    /// Bytes that a client is given for an entry.
    ///
    /// # Errors
    /// If its blob is gone, or the store fails.
    pub fn served_bytes(&self, entry: &Entry) -> Result<u64, ServiceError> {
        let blob = self.store.blob(entry.blob)?;
        let blob = blob.ok_or_else(|| ServiceError::NotFound("the entry's bytes".to_owned()))?;
        Ok(match entry.form {
            Form::Exact => blob.identity_length,
            Form::Decoded => blob.zstd_length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_come_apart_again() {
        let name = RepositoryName::parse("Acme/Web").unwrap();
        let stored = stored_key(&name, "refs/heads/main", "v1", "a key");
        assert_eq!(
            split(&stored),
            Some(["acme/web", "refs/heads/main", "v1", "a key"])
        );
        assert!(stored.starts_with(&prefix(&name)));
        // A repository whose name begins like another's is another.
        let longer = RepositoryName::parse("acme/web2").unwrap();
        assert!(!stored_key(&longer, "s", "v", "k").starts_with(&prefix(&name)));
    }
}
