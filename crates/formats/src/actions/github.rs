//! GitHub's REST about caches, as `gh cache` speaks it.
//!
//! ```text
//! GET    …/repos/OWNER/NAME/actions/caches?key=&ref=&sort=&direction=&per_page=&page=  -> CacheList, `Link`
//! DELETE …/repos/OWNER/NAME/actions/caches?key=&ref=                                   -> CacheList of what went
//! DELETE …/repos/OWNER/NAME/actions/caches/ID                                          -> 204
//! GET    …/repos/OWNER/NAME/actions/cache/usage                                        -> CacheUsage
//! GET    …/repos/OWNER/NAME/actions/cache/retention-limit                              -> RetentionLimit
//! GET    …/repos/OWNER/NAME/actions/cache/storage-limit                                -> StorageLimit
//! ```
//! `…` is nothing, `/api/v3` (what clients of GitHub Enterprise put there), or either of the two behind the path of
//! a Firn cache. A key finds what begins with it when it is listed, and itself only when it is deleted.

use super::names::{NameError, RepositoryName};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Entries on a page unless the client says otherwise, and at most.
const PER_PAGE: usize = 30;
const PER_PAGE_MAX: usize = 100;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CacheEntry {
    pub id: u64,
    #[serde(rename = "ref")]
    pub scope: String,
    pub key: String,
    pub version: String,
    /// RFC 3339, as all times here.
    pub last_accessed_at: String,
    pub created_at: String,
    /// As it was uploaded.
    pub size_in_bytes: u64,
    /// Firn's own word: whether it is kept byte for byte (`exact`), or as the tar that it holds (`decoded`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub form: String,
}

/// A page of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CacheList {
    pub total_count: u64,
    pub actions_caches: Vec<CacheEntry>,
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CacheUsage {
    pub full_name: String,
    pub active_caches_size_in_bytes: u64,
    pub active_caches_count: u64,
    /// Firn's own: bytes that lie on disk for it, and how many may.
    #[serde(default)]
    pub stored_bytes: u64,
    #[serde(default)]
    pub quota_bytes: u64,
}

/// How long what nobody uses is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RetentionLimit {
    pub max_cache_retention_days: u64,
}

/// How much a repository may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StorageLimit {
    pub max_cache_size_gb: u64,
}

/// A refusal, in GitHub's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RestError {
    pub message: String,
    /// The status again, as text.
    pub status: String,
}

/// By what entries are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Sort {
    #[default]
    LastAccessed,
    Created,
    Size,
}

/// Which entries are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ListQuery {
    pub key: Option<String>,
    /// A ref in full.
    pub scope: Option<String>,
    pub sort: Sort,
    pub ascending: bool,
    pub per_page: usize,
    /// From 1.
    pub page: usize,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            key: None,
            scope: None,
            sort: Sort::default(),
            ascending: false,
            per_page: PER_PAGE,
            page: 1,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RestFault {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0} is not known here")]
    Value(String),
}

impl ListQuery {
    /// Of the parameters of a URL, decoded. Those of others are passed over; numbers out of range are brought
    /// into it, as GitHub does.
    ///
    /// # Errors
    /// If `sort` or `direction` is another than GitHub's.
    pub fn of<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, RestFault> {
        let mut query = Self::default();
        for (name, value) in parameters {
            let given = Some(value).filter(|value| !value.is_empty());
            match name {
                "key" => query.key = given.map(str::to_owned),
                "ref" => query.scope = given.map(str::to_owned),
                "sort" => query.sort = sort(given)?,
                "direction" => query.ascending = ascending(given)?,
                "per_page" => query.per_page = number(value, PER_PAGE).min(PER_PAGE_MAX),
                "page" => query.page = number(value, 1),
                _ => {}
            }
        }
        Ok(query)
    }

    /// Whether an entry is meant; a key as a prefix.
    pub fn takes(&self, key: &str, scope: &str) -> bool {
        let key_fits = |wanted: &String| key.starts_with(wanted.as_str());
        self.key.as_ref().is_none_or(key_fits)
            && self.scope.as_ref().is_none_or(|wanted| wanted == scope)
    }

    /// The entries of the page, out of `all`, which are sorted.
    pub fn page<T>(&self, all: Vec<T>) -> Vec<T> {
        let before = self.per_page.saturating_mul(self.page - 1);
        all.into_iter().skip(before).take(self.per_page).collect()
    }

    /// The `Link` header beside a page of `total` entries; none if there is no other page. `url` is that of the
    /// request without its query, `others` the parameters that stay, encoded.
    pub fn link(&self, url: &str, others: &str, total: usize) -> Option<String> {
        let last = total.div_ceil(self.per_page).max(1);
        let pages = [
            ("prev", self.page.saturating_sub(1).min(last)),
            ("next", self.page + 1),
            ("last", last),
            ("first", 1),
        ];
        let mut header = String::new();
        for (relation, page) in pages {
            let there = match relation {
                "prev" | "first" => self.page > 1,
                _ => self.page < last,
            };
            if there {
                let comma = if header.is_empty() { "" } else { ", " };
                let and = if others.is_empty() { "" } else { "&" };
                let _ = write!(
                    header,
                    "{comma}<{url}?{others}{and}page={page}>; rel=\"{relation}\""
                );
            }
        }
        Some(header).filter(|header| !header.is_empty())
    }
}

fn sort(value: Option<&str>) -> Result<Sort, RestFault> {
    match value {
        None | Some("last_accessed_at") => Ok(Sort::LastAccessed),
        Some("created_at") => Ok(Sort::Created),
        Some("size_in_bytes") => Ok(Sort::Size),
        Some(other) => Err(RestFault::Value(format!("sort={other:.50}"))),
    }
}

fn ascending(value: Option<&str>) -> Result<bool, RestFault> {
    match value {
        None | Some("desc") => Ok(false),
        Some("asc") => Ok(true),
        Some(other) => Err(RestFault::Value(format!("direction={other:.50}"))),
    }
}

fn number(text: &str, default: usize) -> usize {
    text.parse().unwrap_or(default).clamp(1, 1 << 30)
}

/// What is asked of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Resource {
    Entries,
    Entry(u64),
    Usage,
    RetentionLimit,
    StorageLimit,
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestPath<'a> {
    /// The name of the Firn cache, if it stands before.
    pub cache: Option<&'a str>,
    /// Whose entries.
    pub repository: RepositoryName,
    /// Which of its resources.
    pub resource: Resource,
}

/// Whether a path is one of these; without a look at its names.
pub fn is_rest_path(path: &str) -> bool {
    path.split_once("/repos/")
        .is_some_and(|(_, rest)| rest.contains("/actions/cache"))
}

impl<'a> RestPath<'a> {
    /// Parses a path, decoded or not: none of its words needs to be encoded. `None`: there is no such resource.
    ///
    /// # Errors
    /// If the repository's name is none.
    pub fn parse(path: &'a str) -> Result<Option<Self>, RestFault> {
        let Some((before, rest)) = path.split_once("/repos/") else {
            return Ok(None);
        };
        let before = before.strip_suffix("/api/v3").unwrap_or(before);
        let cache = match before.strip_prefix('/') {
            Some(cache) if !cache.is_empty() => Some(cache),
            None if before.is_empty() => None,
            _ => return Ok(None),
        };
        let mut words = rest.splitn(3, '/');
        let (Some(owner), Some(name), Some(tail)) = (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let Some(resource) = resource(tail) else {
            return Ok(None);
        };
        Ok(Some(Self {
            cache,
            repository: RepositoryName::parse(&format!("{owner}/{name}"))?,
            resource,
        }))
    }
}

fn resource(tail: &str) -> Option<Resource> {
    match tail.strip_prefix("actions/")? {
        "caches" => Some(Resource::Entries),
        "cache/usage" => Some(Resource::Usage),
        "cache/retention-limit" => Some(Resource::RetentionLimit),
        "cache/storage-limit" => Some(Resource::StorageLimit),
        other => other
            .strip_prefix("caches/")?
            .parse()
            .ok()
            .map(Resource::Entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<ListQuery, RestFault> {
        ListQuery::of(text.split('&').filter_map(|pair| pair.split_once('=')))
    }

    #[test]
    fn paths_name_cache_repository_and_resource() {
        for (before, cache) in [
            ("", None),
            ("/api/v3", None),
            ("/main", Some("main")),
            ("/acme/web", Some("acme/web")),
            ("/acme/web/api/v3", Some("acme/web")),
        ] {
            for (tail, resource) in [
                ("caches", Resource::Entries),
                ("caches/17", Resource::Entry(17)),
                ("cache/usage", Resource::Usage),
                ("cache/retention-limit", Resource::RetentionLimit),
                ("cache/storage-limit", Resource::StorageLimit),
            ] {
                let path = format!("{before}/repos/Acme/Web/actions/{tail}");
                assert!(is_rest_path(&path));
                let found = RestPath::parse(&path).unwrap().unwrap();
                assert_eq!((found.cache, found.resource), (cache, resource), "{path}");
                assert_eq!(found.repository.as_str(), "acme/web");
            }
        }
        for other in [
            "/repos/a/b/actions/runs",
            "/repos/a/b/actions/caches/x",
            "/repos/a/b/actions/caches/1/2",
            "/repos/a/actions/caches",
            "//repos/a/b/actions/caches",
            "/a",
        ] {
            assert!(
                RestPath::parse(other).is_ok_and(|found| found.is_none()),
                "{other}"
            );
        }
        assert!(RestPath::parse("/repos/a/b c/actions/caches").is_err());
        assert!(!is_rest_path("/main/nar/x.nar.zst"));
    }

    #[test]
    fn queries_have_the_limits_of_github() {
        let all =
            query("key=k-&ref=refs/heads/main&sort=size_in_bytes&direction=asc&per_page=7&page=3");
        let all = all.unwrap();
        assert_eq!(
            (all.per_page, all.page, all.sort, all.ascending),
            (7, 3, Sort::Size, true)
        );
        assert!(all.takes("k-1", "refs/heads/main"));
        assert!(!all.takes("l-1", "refs/heads/main") && !all.takes("k-1", "refs/heads/dev"));
        let few = query("key=&per_page=1000&page=0&other=x").unwrap();
        assert_eq!((few.key, few.per_page, few.page), (None, 100, 1));
        assert_eq!(query("per_page=x&page=-1").unwrap(), ListQuery::default());
        assert!(query("sort=name").is_err() && query("direction=up").is_err());
    }

    #[test]
    fn pages_link_to_each_other() {
        let at = |page| ListQuery {
            page,
            per_page: 10,
            ..ListQuery::default()
        };
        assert_eq!(at(1).link("http://x/y", "", 10), None);
        assert_eq!(
            at(1).link("http://x/y", "key=a", 11).unwrap(),
            "<http://x/y?key=a&page=2>; rel=\"next\", <http://x/y?key=a&page=2>; rel=\"last\""
        );
        let middle = at(2).link("u", "", 25).unwrap();
        for part in [
            "<u?page=1>; rel=\"prev\"",
            "<u?page=3>; rel=\"next\"",
            "<u?page=3>; rel=\"last\"",
        ] {
            assert!(middle.contains(part), "{middle}");
        }
        let beyond = at(9).link("u", "", 25).unwrap();
        assert!(beyond.contains("<u?page=3>; rel=\"prev\"") && !beyond.contains("next"));
        assert_eq!(
            at(2).page((0..25).collect::<Vec<_>>()),
            (10..20).collect::<Vec<_>>()
        );
        assert!(at(usize::MAX).page(vec![1]).is_empty());
    }
}
