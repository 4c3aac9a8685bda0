//! Lists of tags.

use super::{Registry, RegistryError, Repository};
use crate::ServiceError;
use firn_store::{Entry, EntryKind};

/// Entries read at once.
pub(super) const PAGE: usize = 1000;
/// Most names in one answer.
pub const LIST_MAX: usize = 1000;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The names, sorted.
    pub names: Vec<String>,
    /// Whether there are more after the last.
    pub more: bool,
}

impl Registry {
    /// A repository's tags, after `last`, at most `count`.
    ///
    /// # Errors
    /// If the repository has neither tags nor manifests, or the store fails.
    pub fn tags(
        &self,
        repository: &Repository,
        count: Option<usize>,
        last: Option<&str>,
    ) -> Result<Page, RegistryError> {
        let count = count.unwrap_or(LIST_MAX).min(LIST_MAX);
        let prefix = format!("{}:", repository.name);
        let after = last.map(|last| format!("{prefix}{last}"));
        let cache = repository.cache.row.id;
        let mut entries =
            self.store
                .entries(cache, EntryKind::Tag, &prefix, after.as_deref(), count + 1)?;
        if entries.is_empty() {
            let prefix = format!("{}@", repository.name);
            let known = self
                .store
                .entries(cache, EntryKind::Manifest, &prefix, None, 1)?;
            if known.is_empty() {
                return Err(RegistryError::with(
                    firn_formats::oci::ErrorCode::NameUnknown,
                    format!("{}/{}", repository.cache.name(), repository.name),
                ));
            }
        }
        let more = entries.len() > count;
        entries.truncate(count);
        let names = entries
            .into_iter()
            .map(|entry| entry.key[prefix.len()..].to_owned())
            .collect();
        Ok(Page { names, more })
    }

    /// All entries under a prefix.
    pub(super) fn all_entries(
        &self,
        repository: &Repository,
        kind: EntryKind,
        prefix: &str,
    ) -> Result<Vec<Entry>, ServiceError> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.key.as_str());
            let page = self
                .store
                .entries(repository.cache.row.id, kind, prefix, after, PAGE)?;
            let whole = page.len() == PAGE;
            all.extend(page);
            if !whole {
                return Ok(all);
            }
        }
    }
}
