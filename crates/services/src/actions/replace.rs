//! Leave to put another entry in the place of one that is there.
//!
//! A mark names the entry's id, so it is spent when the entry is replaced: the new one has an id of its own.

use super::{Actions, Entry, Repository};
use crate::ServiceError;
use bytes::Bytes;
use firn_store::{EntryKind, IfExists, NewEntry, Publication};
use std::time::Duration;

/// How long a mark is good.
const GOOD: Duration = Duration::from_secs(24 * 3600);

impl Actions {
    /// Lets the next save under each of these entries' keys, in their scopes, take their places. Until when it has
    /// to begin, in seconds since 1970.
    ///
    /// # Errors
    /// If the store fails.
    pub fn let_replace(
        &self,
        repository: &Repository,
        entries: &[Entry],
    ) -> Result<i64, ServiceError> {
        let marks = entries.iter().map(|entry| NewEntry {
            kind: EntryKind::ActionsReplace,
            key: entry.stored_key.clone(),
            value: Bytes::from(entry.id.to_string()),
            blobs: Vec::new(),
            requires: Vec::new(),
            if_exists: IfExists::Replace,
            lease: Some(GOOD),
        });
        let publication = Publication {
            entries: marks.collect(),
            deletions: Vec::new(),
        };
        self.store
            .publish(None, repository.cache.row.id, publication)?;
        let (now_ms, _) = self.store.now_and_newest()?;
        Ok(now_ms / 1000 + seconds(GOOD))
    }

    /// Whether an entry may be replaced.
    pub(super) fn may_replace(
        &self,
        repository: &Repository,
        entry: &firn_store::Entry,
    ) -> Result<bool, ServiceError> {
        let cache = repository.cache.row.id;
        let mark = self
            .store
            .entry(cache, EntryKind::ActionsReplace, &entry.key)?;
        let Some(mark) = mark.filter(|mark| *mark.value == *entry.sequence.to_string().as_bytes())
        else {
            return Ok(false);
        };
        let (now_ms, _) = self.store.now_and_newest()?;
        Ok(mark.created_at + seconds(GOOD) > now_ms / 1000)
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
