//! What was looked for, and what went, for people.

use super::entry::{KIND, prefix, split};
use super::{Actions, MissReason, Repository};
use crate::{ServiceError, access::token::now, sync::lock};
use firn_store::{EvictionReason, LookupRow, Store};
use std::collections::HashMap;
use std::sync::Mutex;

/// Look-ups remembered between flushes; what is beyond is not noted.
const NOTES_MAX: usize = 16 << 10;
/// Look-ups in one transaction.
const BATCH: usize = 500;

/// How a look-up went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Outcome {
    Hit {
        id: u64,
        key: String,
        scope: String,
        /// By the primary key.
        exact: bool,
        size: u64,
    },
    Miss(MissReason),
}

/// A look-up.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Looked {
    /// Seconds since 1970.
    #[serde(skip)]
    pub at: i64,
    /// The primary key.
    pub key: String,
    /// The others.
    pub restore_keys: Vec<String>,
    /// The version.
    pub version: String,
    /// The first scope of the token.
    pub scope: String,
    /// How it went.
    pub outcome: Outcome,
    /// Its number, by which a download tells that it is the one that followed.
    #[serde(default)]
    pub lookup: u64,
    /// How long the download took that followed, if all of it was sent.
    #[serde(skip)]
    pub restored_ms: Option<u64>,
}

/// What a look-up had found was sent, all of it.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Restored {
    /// The look-up's number.
    pub(super) restored: u64,
    pub(super) milliseconds: u64,
}

/// A row of the history.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Noted {
    Restored(Restored),
    Looked(Looked),
}

/// An entry that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Gone {
    /// Seconds since 1970.
    pub at: i64,
    pub key: String,
    pub version: String,
    pub scope: String,
    pub size: u64,
    pub reason: EvictionReason,
    /// Its last use, in seconds since 1970.
    pub used_at: i64,
}

/// Why something went, in a word.
pub(super) fn reason(reason: EvictionReason) -> &'static str {
    match reason {
        EvictionReason::Unused => "unused",
        EvictionReason::Quota => "quota",
        EvictionReason::Deleted => "deleted",
        EvictionReason::Replaced => "replaced",
    }
}

/// Look-ups that the database was not told of.
#[derive(Default)]
pub(super) struct Notes(Mutex<Vec<LookupRow>>);

impl Notes {
    pub(super) fn note(&self, repository: &Repository, what: &impl serde::Serialize) {
        let Ok(detail) = serde_json::to_vec(what) else {
            return;
        };
        let mut notes = lock(&self.0);
        if notes.len() < NOTES_MAX {
            notes.push(LookupRow {
                cache: repository.cache.row.id,
                owner: repository.name.to_string(),
                at: i64::try_from(now()).unwrap_or(0),
                detail: detail.into(),
            });
        }
    }

    pub(super) fn flush(&self, store: &Store) -> Result<(), ServiceError> {
        let notes = std::mem::take(&mut *lock(&self.0));
        for batch in notes.chunks(BATCH) {
            store.record_lookups(batch.to_vec())?;
        }
        Ok(())
    }
}

impl Actions {
    /// What was looked for in a repository, the newest first. The last few thousand are remembered.
    ///
    /// # Errors
    /// If the store fails.
    pub fn looked(
        &self,
        repository: &Repository,
        limit: usize,
    ) -> Result<Vec<Looked>, ServiceError> {
        self.flush()?;
        let (cache, owner) = (repository.cache.row.id, repository.name.as_str());
        let rows = self.store.lookups(cache, owner, limit)?;
        // The newest comes first: what followed a look-up is known when it comes.
        let mut restored = HashMap::new();
        let mut looked = Vec::new();
        for row in rows {
            match serde_json::from_slice(&row.detail) {
                Ok(Noted::Restored(done)) => {
                    restored.insert(done.restored, done.milliseconds);
                }
                Ok(Noted::Looked(what)) => looked.push(Looked {
                    at: row.at,
                    restored_ms: restored.get(&what.lookup).copied(),
                    ..what
                }),
                Err(_) => {}
            }
        }
        Ok(looked)
    }

    /// What went from a repository, the newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub fn gone(&self, repository: &Repository, limit: usize) -> Result<Vec<Gone>, ServiceError> {
        let (cache, prefix) = (repository.cache.row.id, prefix(&repository.name));
        let rows = self.store.evictions_below(cache, KIND, &prefix, limit)?;
        let parsed = rows.into_iter().filter_map(|row| {
            let [_, scope, version, key] = split(&row.key)?;
            Some(Gone {
                at: row.at,
                key: key.to_owned(),
                version: version.to_owned(),
                scope: scope.to_owned(),
                size: row.bytes,
                reason: row.reason,
                used_at: row.used_at,
            })
        });
        Ok(parsed.collect())
    }
}
