//! Roots: names whose paths and images never go.
//!
//! ```text
//! Root <name>   value: JSON {keep, pinned: [{path | image, at}]}, the newest first
//! ```
//! An entry like others, so segments tell of it and a rebuilt database knows it.

use super::Retention;
use crate::registry::ManifestReference;
use crate::{Cache, ServiceError, sync::lock};
use firn_formats::admin::{PinnedView, RootPin, RootView};
use firn_formats::nix::StorePath;
use firn_store::{EntryKind, IfExists, NewEntry, Publication};

/// Longest name of a root, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Most pins that one name keeps.
const KEEP_MAX: u32 = 1000;
/// Most roots of a cache.
const ROOTS_MAX: usize = 100_000;

/// What is pinned.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// A store path's base name.
    Path(String),
    /// `repository@digest`.
    Image(String),
}

/// A pin, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pinned {
    #[serde(flatten)]
    pub(crate) target: Target,
    /// Seconds since 1970, to be shown.
    at: u64,
}

/// A root as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Root {
    keep: u32,
    pub(crate) pinned: Vec<Pinned>,
}

impl Root {
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    fn view(self, name: &str) -> RootView {
        let pinned = self.pinned.into_iter().map(|pinned| {
            let (path, image) = match pinned.target {
                Target::Path(path) => (Some(path), None),
                Target::Image(image) => (None, Some(image)),
            };
            PinnedView {
                path,
                image,
                at: pinned.at,
            }
        });
        RootView {
            name: name.to_owned(),
            keep: self.keep,
            pinned: pinned.collect(),
        }
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ServiceError> {
    Err(ServiceError::BadRequest(why.into()))
}

fn check(request: &RootPin) -> Result<(), ServiceError> {
    let name = &request.name;
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || !name.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return refuse(format!(
            "a root's name has 1 to {NAME_BYTES_MAX} printable ASCII characters without spaces"
        ));
    }
    if request
        .keep
        .is_some_and(|keep| !(1..=KEEP_MAX).contains(&keep))
    {
        return refuse(format!("a root keeps 1 to {KEEP_MAX} pins"));
    }
    Ok(())
}

impl Retention {
    /// Makes a root, or moves it; what it pinned before stays pinned as far as it keeps a history.
    ///
    /// # Errors
    /// If the request is unsound, what is to be pinned is not here, or the store fails.
    pub fn pin(&self, cache: &Cache, request: &RootPin) -> Result<RootView, ServiceError> {
        check(request)?;
        let (target, required) = self.target(cache, request)?;
        let _one_by_one = lock(&self.pinning);
        let old = self
            .store
            .entry(cache.row.id, EntryKind::Root, &request.name)?;
        let mut root = match old.as_ref().map(|entry| Root::parse(&entry.value)) {
            Some(Some(root)) => root,
            Some(None) => return Err(ServiceError::StoredEntry(format!("root {}", request.name))),
            None => Root {
                keep: 1,
                pinned: Vec::new(),
            },
        };
        root.keep = request.keep.unwrap_or(root.keep);
        root.pinned.retain(|pinned| pinned.target != target);
        let at = crate::access::token::now();
        root.pinned.insert(0, Pinned { target, at });
        root.pinned.truncate(root.keep as usize);
        let entry = NewEntry {
            kind: EntryKind::Root,
            key: request.name.clone(),
            value: serde_json::to_vec(&root)?.into(),
            blobs: Vec::new(),
            // Rule 4: it pins what is here, and an eviction that runs sees it.
            requires: vec![required],
            if_exists: IfExists::Replace,
            lease: None,
        };
        let publication = Publication {
            entries: vec![entry],
            deletions: Vec::new(),
        };
        self.store
            .publish(None, cache.row.id, publication)
            .map_err(|error| match ServiceError::from(error) {
                ServiceError::MissingReference(key) => {
                    ServiceError::NotFound(format!("{key} is not in the cache; push it first"))
                }
                other => other,
            })?;
        Ok(root.view(&request.name))
    }

    fn target(
        &self,
        cache: &Cache,
        request: &RootPin,
    ) -> Result<(Target, (EntryKind, String)), ServiceError> {
        match (&request.path, &request.image) {
            (Some(path), None) => {
                let base_name = path.rsplit('/').next().unwrap_or_default();
                let path = StorePath::parse_base_name(base_name)
                    .map_err(|error| ServiceError::BadRequest(error.to_string()))?;
                let hash = path.hash().to_string();
                Ok((Target::Path(path.to_string()), (EntryKind::Narinfo, hash)))
            }
            (None, Some(image)) => {
                let key = self.image_key(cache, image)?;
                Ok((Target::Image(key.clone()), (EntryKind::Manifest, key)))
            }
            _ => refuse("a root pins a path or an image"),
        }
    }

    /// `repository@digest` of an image that is named by tag or digest.
    fn image_key(&self, cache: &Cache, image: &str) -> Result<String, ServiceError> {
        let own = format!("{}/", cache.name());
        let image = image.strip_prefix(&own).unwrap_or(image);
        if image.contains('@') {
            return Ok(image.to_owned());
        }
        let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        if ManifestReference::parse(tag).is_err() {
            return refuse(format!(
                "{image:?} is no image; write NAME:TAG or NAME@sha256:…"
            ));
        }
        let key = format!("{repository}:{tag}");
        let found = self.store.entry(cache.row.id, EntryKind::Tag, &key)?;
        match found {
            Some(entry) => Ok(format!(
                "{repository}@{}",
                String::from_utf8_lossy(&entry.value)
            )),
            None => Err(ServiceError::NotFound(format!("image {key}"))),
        }
    }

    /// Lets go of all that a name pins.
    ///
    /// # Errors
    /// If there is no such root, or the store fails.
    pub fn unpin(&self, cache: &Cache, name: &str) -> Result<(), ServiceError> {
        let _one_by_one = lock(&self.pinning);
        let found = self.store.entry(cache.row.id, EntryKind::Root, name)?;
        if found.is_none() {
            return Err(ServiceError::NotFound(format!("root {name}")));
        }
        let publication = Publication {
            entries: Vec::new(),
            deletions: vec![(EntryKind::Root, name.to_owned())],
        };
        self.store.publish(None, cache.row.id, publication)?;
        Ok(())
    }

    /// A cache's roots, by name.
    ///
    /// # Errors
    /// If the store fails.
    pub fn roots(&self, cache: &Cache) -> Result<Vec<RootView>, ServiceError> {
        let entries = self
            .store
            .entries(cache.row.id, EntryKind::Root, "", None, ROOTS_MAX)?;
        let views = entries.into_iter().filter_map(|entry| {
            let root = Root::parse(&entry.value)?;
            Some(root.view(&entry.key))
        });
        Ok(views.collect())
    }
}
