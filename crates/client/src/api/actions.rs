//! The calls about the Actions cache: GitHub's own, and what goes beyond them.

use super::Server;
use crate::{error::Result, http::encode_query};
use firn_formats::{
    actions::{
        RepositoryName,
        github::{CacheEntry, CacheList, CacheUsage, ListQuery},
    },
    admin::{ActionsHistory, ActionsReplace, ActionsReplaceable, ActionsRepositoryView},
};
use ureq::http::Method;

/// Entries asked for at once.
const PAGE: usize = 100;

/// A repository of the Actions cache.
#[derive(Debug, Clone)]
pub struct ActionsRepository {
    /// The Firn cache; without one that of the token.
    pub cache: Option<String>,
    /// `owner/name`.
    pub name: RepositoryName,
}

impl ActionsRepository {
    fn path(&self, tail: &str) -> String {
        match &self.cache {
            Some(cache) => format!("{cache}/repos/{}/actions/{tail}", self.name),
            None => format!("repos/{}/actions/{tail}", self.name),
        }
    }

    fn query(&self) -> String {
        let repository = encode_query(self.name.as_str());
        match &self.cache {
            Some(cache) => format!("cache={}&repository={repository}", encode_query(cache)),
            None => format!("repository={repository}"),
        }
    }
}

impl Server {
    /// The repositories of a cache that have entries.
    pub fn actions_repositories(&self, cache: Option<&str>) -> Result<Vec<ActionsRepositoryView>> {
        match cache {
            Some(cache) => self.get(&format!(
                "api/v1/actions/repositories?cache={}",
                encode_query(cache)
            )),
            None => self.get("api/v1/actions/repositories"),
        }
    }

    /// The entries of a repository that begin with a key and are of a ref, those used last first.
    pub fn actions_entries(
        &self,
        repository: &ActionsRepository,
        wanted: &ListQuery,
    ) -> Result<Vec<CacheEntry>> {
        let mut query = format!("caches?per_page={PAGE}");
        for (name, value) in [("key", &wanted.key), ("ref", &wanted.scope)] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", encode_query(value)));
            }
        }
        let mut found: Vec<CacheEntry> = Vec::new();
        for page in 1.. {
            let list: CacheList = self.get(&repository.path(&format!("{query}&page={page}")))?;
            let last = list.actions_caches.len() < PAGE;
            found.extend(list.actions_caches);
            if last {
                break;
            }
        }
        Ok(found)
    }

    /// What a repository holds.
    pub fn actions_usage(&self, repository: &ActionsRepository) -> Result<CacheUsage> {
        self.get(&repository.path("cache/usage"))
    }

    /// Deletes an entry.
    pub fn actions_delete(&self, repository: &ActionsRepository, id: u64) -> Result<()> {
        self.delete(&repository.path(&format!("caches/{id}")))
    }

    /// Deletes the entries with a key, of one ref or of all; gives them.
    pub fn actions_delete_key(
        &self,
        repository: &ActionsRepository,
        key: &str,
        scope: Option<&str>,
    ) -> Result<CacheList> {
        let mut path = repository.path(&format!("caches?key={}", encode_query(key)));
        if let Some(scope) = scope {
            path.push_str(&format!("&ref={}", encode_query(scope)));
        }
        self.http
            .send(&self.call(Method::DELETE, &path))?
            .accept()?
            .json()
    }

    /// What was looked for in a repository and what went: of one key or of all, since a time in seconds since 1970.
    pub fn actions_history(
        &self,
        repository: &ActionsRepository,
        key: Option<&str>,
        since: Option<i64>,
        limit: usize,
    ) -> Result<ActionsHistory> {
        let mut path = format!(
            "api/v1/actions/history?{}&limit={limit}",
            repository.query()
        );
        if let Some(key) = key {
            path.push_str(&format!("&key={}", encode_query(key)));
        }
        if let Some(since) = since {
            path.push_str(&format!("&since={since}"));
        }
        self.get(&path)
    }

    /// Lets the next save of a key take the place of what is there.
    pub fn actions_replace(
        &self,
        repository: &ActionsRepository,
        replace: &ActionsReplace,
    ) -> Result<ActionsReplaceable> {
        let path = format!("api/v1/actions/replace?{}", repository.query());
        self.post(&path, replace)
    }
}
