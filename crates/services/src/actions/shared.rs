//! Entries of other repositories, in a cache whose repositories share.
//!
//! What a repository saved on its default branch may be found by the others, with the same key and version, when
//! they have nothing themselves. What was saved anywhere else stays with its repository, as do all writes.

use super::entry::{KIND, split};
use super::{Actions, Entry, Hit, Repository};
use crate::ServiceError;

impl Actions {
    /// The best of the other repositories' entries; of several alike the newest. The order of keys is that of
    /// [`firn_formats::actions::matching`], in what they have together as one scope.
    pub(super) fn find_shared(
        &self,
        repository: &Repository,
        keys: &[String],
        version: &str,
    ) -> Result<Option<Hit>, ServiceError> {
        if !self.config(repository).shared {
            return Ok(None);
        }
        let mut others = Vec::new();
        let cache = repository.cache.row.id;
        self.store.held_entries(cache, KIND, true, &mut |held| {
            let parts = split(&held.key);
            let fits = parts.is_some_and(|[name, _, found_version, key]| {
                name != repository.name.as_str()
                    && found_version == version
                    && keys.iter().any(|wanted| key.starts_with(wanted.as_str()))
            });
            if fits {
                others.extend(Entry::of_held(&held).filter(|entry| entry.default_branch));
            }
        })?;
        others.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        let found = keys.iter().find_map(|wanted| {
            let exact = others.iter().find(|entry| entry.key == *wanted);
            exact.or_else(|| {
                others
                    .iter()
                    .find(|entry| entry.key.starts_with(wanted.as_str()))
            })
        });
        Ok(found.map(|entry| Hit {
            exact: keys.first() == Some(&entry.key),
            entry: entry.clone(),
            lookup: 0,
        }))
    }
}
