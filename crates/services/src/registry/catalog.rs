//! The list of repositories, a page at a time: as many look-ups as there are names on the page.

use super::tags::{LIST_MAX, Page};
use super::{Registry, RegistryError};
use crate::ServiceError;
use crate::access::Cache;
use firn_store::EntryKind;
use std::sync::Arc;

/// What begins a name that is longer, yet stands before `@` in the store: `app-x@` comes before `app@`.
const BEFORE_AT: &[u8] = b"-./0123456789";

impl Registry {
    /// The full names of the repositories of these caches, after `last`, at most `count`.
    ///
    /// # Errors
    /// If the store fails.
    pub fn catalog(
        &self,
        caches: &[Arc<Cache>],
        count: usize,
        last: Option<&str>,
    ) -> Result<Page, RegistryError> {
        let count = count.min(LIST_MAX);
        let mut heads = Vec::new();
        for cache in caches {
            if let Some(after) = place_in(cache, last.unwrap_or_default()) {
                heads.extend(self.head(cache, after)?);
            }
        }
        let mut names: Vec<String> = Vec::new();
        while let Some(first) = (0..heads.len()).min_by(|a, b| heads[*a].0.cmp(&heads[*b].0)) {
            let (name, cache) = heads.swap_remove(first);
            if names.last() != Some(&name) {
                if names.len() == count {
                    return Ok(Page { names, more: true });
                }
                names.push(name.clone());
            }
            heads.extend(self.head(cache, &name[cache.name().len() + 1..])?);
        }
        Ok(Page { names, more: false })
    }

    /// The full name of the repository of `cache` that follows `after`.
    fn head<'c>(
        &self,
        cache: &'c Arc<Cache>,
        after: &str,
    ) -> Result<Option<(String, &'c Arc<Cache>)>, ServiceError> {
        let next = self.repository_after(cache, after)?;
        Ok(next.map(|name| (format!("{}/{name}", cache.name()), cache)))
    }

    /// The repository that follows `after` in the order of names, which is not quite the store's: that one sees an
    /// `@` behind each.
    fn repository_after(&self, cache: &Cache, after: &str) -> Result<Option<String>, ServiceError> {
        let mut seek = after.to_owned();
        let found = loop {
            let Some(name) = self.manifest_after(cache, "", Some(&seek))? else {
                return Ok(None);
            };
            if name.as_str() > after {
                break name;
            }
            // `after` itself, or one that it begins with. `A` follows `@`: this is after all its manifests.
            seek = format!("{name}A");
        };
        // One that `found` begins with stands later in the store.
        for (end, byte) in found.bytes().enumerate() {
            let shorter = found.get(..end).unwrap_or_default();
            if BEFORE_AT.contains(&byte) && shorter > after {
                let prefix = format!("{shorter}@");
                if self.manifest_after(cache, &prefix, None)?.is_some() {
                    return Ok(Some(shorter.to_owned()));
                }
            }
        }
        Ok(Some(found))
    }

    /// The repository of the first manifest under a prefix and after a key.
    fn manifest_after(
        &self,
        cache: &Cache,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Option<String>, ServiceError> {
        let kind = EntryKind::Manifest;
        let page = self.store.entries(cache.row.id, kind, prefix, after, 1)?;
        let name = page.first().and_then(|entry| entry.key.split_once('@'));
        Ok(name.map(|(name, _)| name.to_owned()))
    }
}

/// After which of a cache's repositories a list goes on whose last full name was `last`; `None` if after all of them.
fn place_in<'l>(cache: &Cache, last: &'l str) -> Option<&'l str> {
    let folder = format!("{}/", cache.name());
    match last.strip_prefix(&folder) {
        Some(rest) => Some(rest),
        None => (last < folder.as_str()).then_some(""),
    }
}
