//! Finding an entry, and why none was found.

use super::entry::{KIND, prefix, stored_key};
use super::history::{Looked, Outcome};
use super::{Actions, Entry, Repository};
use crate::ServiceError;
use firn_formats::actions::{Scopes, attempts};
use firn_store::Evicted;

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// It.
    pub entry: Entry,
    /// Whether its key is the primary one; else it was found by a prefix or a restore key.
    pub exact: bool,
    /// The number of the look-up that found it; 0 if it was not noted.
    pub lookup: u64,
}

/// Why nothing was found; for people, never for the client that asked: it may be of what the client may not see.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum MissReason {
    /// It is being uploaded.
    Saving,
    /// It was here.
    Evicted { why: String, at: i64 },
    /// The key is here under another version: other paths, or another compression.
    OtherVersion,
    /// It is here, in a scope that the token does not read.
    OtherScope { scope: String },
    /// There are entries, none with this key; one of them.
    KeyChanged { newest: String },
    /// Nothing of this version was ever saved where the token reads, or all of it is long gone.
    NeverSaved,
}

impl Actions {
    /// Looks for an entry: see [`firn_formats::actions::matching`]. The primary key comes first. Notes the use, and
    /// how it went.
    ///
    /// # Errors
    /// If the store fails.
    pub fn lookup(
        &self,
        repository: &Repository,
        scopes: &Scopes,
        keys: &[String],
        version: &str,
    ) -> Result<Option<Hit>, ServiceError> {
        let lookup = self.transfers.number();
        let found = self.find(repository, scopes, keys, version)?;
        let found = found.map(|hit| Hit { lookup, ..hit });
        let outcome = match &found {
            Some(hit) => {
                self.used(repository, &hit.entry);
                Outcome::Hit {
                    id: hit.entry.id,
                    key: hit.entry.key.clone(),
                    scope: hit.entry.scope.clone(),
                    exact: hit.exact,
                    size: hit.entry.size,
                }
            }
            None => Outcome::Miss(self.why(repository, scopes, keys, version)?),
        };
        let mut keys = keys.iter().cloned();
        let looked = Looked {
            at: 0,
            key: keys.next().unwrap_or_default(),
            restore_keys: keys.collect(),
            version: version.to_owned(),
            scope: scopes
                .all()
                .first()
                .map_or_else(String::new, |scope| scope.name.clone()),
            outcome,
            lookup,
            restored_ms: None,
        };
        self.notes.note(repository, &looked);
        Ok(found)
    }

    /// As [`Actions::lookup`], noting nothing.
    ///
    /// # Errors
    /// If the store fails.
    pub fn find(
        &self,
        repository: &Repository,
        scopes: &Scopes,
        keys: &[String],
        version: &str,
    ) -> Result<Option<Hit>, ServiceError> {
        let cache = repository.cache.row.id;
        for look in attempts(scopes.readable(), keys) {
            let stored = stored_key(&repository.name, look.scope, version, look.key);
            let found = match look.prefix {
                true => self.store.newest_entry(cache, KIND, &stored)?,
                false => self.store.entry(cache, KIND, &stored)?,
            };
            if let Some(found) = found {
                let entry = Entry::of_store(&found)?;
                let exact = keys.first() == Some(&entry.key);
                return Ok(Some(Hit {
                    entry,
                    exact,
                    lookup: 0,
                }));
            }
        }
        self.find_shared(repository, keys, version)
    }

    /// Why nothing was found, by what is here now.
    fn why(
        &self,
        repository: &Repository,
        scopes: &Scopes,
        keys: &[String],
        version: &str,
    ) -> Result<MissReason, ServiceError> {
        let cache = repository.cache.row.id;
        let Some(key) = keys.first() else {
            return Ok(MissReason::NeverSaved);
        };
        let mut last: Option<Evicted> = None;
        for scope in scopes.readable() {
            let stored = stored_key(&repository.name, scope, version, key);
            if self.store.staged_for(cache, &stored)?.is_some() {
                return Ok(MissReason::Saving);
            }
            let evicted = self.store.last_eviction(cache, KIND, &stored)?;
            last = last
                .into_iter()
                .chain(evicted)
                .max_by_key(|evicted| evicted.at);
        }
        if let Some(evicted) = last {
            return Ok(MissReason::Evicted {
                why: super::history::reason(evicted.reason).to_owned(),
                at: evicted.at,
            });
        }
        if let Some(elsewhere) = self.elsewhere(repository, scopes, key, version)? {
            return Ok(elsewhere);
        }
        for scope in scopes.readable() {
            let any = stored_key(&repository.name, scope, version, "");
            if let Some(found) = self.store.newest_entry(cache, KIND, &any)? {
                let newest = Entry::of_store(&found)?.key;
                return Ok(MissReason::KeyChanged { newest });
            }
        }
        Ok(MissReason::NeverSaved)
    }

    /// The same key under another version, or in another scope.
    fn elsewhere(
        &self,
        repository: &Repository,
        scopes: &Scopes,
        key: &str,
        version: &str,
    ) -> Result<Option<MissReason>, ServiceError> {
        let cache = repository.cache.row.id;
        let (begin, end) = (prefix(&repository.name), format!("\n{key}"));
        let mut other_scope = None;
        for stored in self
            .store
            .keys_around(cache, KIND, &begin, &end, SEEN_MAX)?
        {
            let Some([_, scope, found_version, found]) = super::entry::split(&stored) else {
                continue;
            };
            if found != key {
                continue;
            }
            let readable = scopes.readable().any(|readable| readable == scope);
            if readable && found_version != version {
                return Ok(Some(MissReason::OtherVersion));
            }
            if !readable && found_version == version {
                other_scope = Some(scope.to_owned());
            }
        }
        Ok(other_scope.map(|scope| MissReason::OtherScope { scope }))
    }
}

/// Entries with the same key that are looked at, to tell why another was not found.
const SEEN_MAX: usize = 100;
