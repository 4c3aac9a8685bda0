//! Deletions. Whether something may go is looked up in the transaction that takes it away, so that nothing that is
//! pushed meanwhile is left without what it needs (rule 4).

use super::{ManifestReference, Registry, RegistryError, Repository, manifests::manifest_key};
use crate::access::Cache;
use crate::{ServiceError, document};
use firn_formats::oci::manifest::AnyManifest;
use firn_formats::oci::{Digest, ErrorCode, media_type};
use firn_store::{Entry, EntryKind, Eviction, StoreError};

/// How often a repository is looked through again when somebody pushes an index to it meanwhile.
const LOOKS_MAX: usize = 16;

/// What came of an attempt.
enum Attempt {
    Done,
    /// It is not here any more.
    Gone,
    /// This entry needs it.
    Needed(String),
    /// An index was pushed since the repository was looked through.
    LookAgain,
}

/// 405 is what clients expect of a registry that does not delete something.
fn needed(by: &str) -> RegistryError {
    RegistryError {
        status: Some(405),
        ..RegistryError::with(
            ErrorCode::Denied,
            format!("{by} needs it: delete that first"),
        )
    }
}

impl Registry {
    /// Takes a blob away that no manifest of the cache names.
    ///
    /// # Errors
    /// If it is not here, if a manifest names it, or the store fails.
    pub fn delete_blob(&self, cache: &Cache, digest: &Digest) -> Result<(), RegistryError> {
        self.blob(cache, digest)?;
        let key = digest.to_string();
        let attempt = self.store.withdraw(cache.row.id, move |transaction| {
            let Some(entry) = transaction.find(EntryKind::RegistryBlob, &key)? else {
                return Ok(Attempt::Gone);
            };
            match transaction.named_by(entry.sequence, EntryKind::Manifest)? {
                Some(manifest) => Ok(Attempt::Needed(manifest.key)),
                None => transaction.remove(entry.sequence).map(|()| Attempt::Done),
            }
        })?;
        match attempt {
            Attempt::Done => Ok(()),
            Attempt::Needed(manifest) => Err(needed(&manifest)),
            Attempt::Gone | Attempt::LookAgain => Err(RegistryError::with(
                ErrorCode::BlobUnknown,
                digest.to_string(),
            )),
        }
    }

    /// Takes a manifest away with the tags that name it and its place among its subject's referrers; or only a tag.
    ///
    /// # Errors
    /// If it is not here, if an index lists it, or the store fails.
    pub fn delete_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<(), RegistryError> {
        let found = self.manifest(repository, reference)?;
        if let ManifestReference::Tag(tag) = reference {
            let key = format!("{}:{}", repository.name, tag.as_str());
            return self.publish(&repository.cache, Vec::new(), vec![(EntryKind::Tag, key)]);
        }
        let subject = match AnyManifest::parse(&found.media_type, &found.bytes) {
            Ok(AnyManifest::Manifest(manifest)) => manifest.subject,
            Ok(AnyManifest::Index(index)) => index.subject,
            Err(_) => None,
        };
        let referrer = subject.map(|subject| {
            super::referrers::referrer_key(repository, &subject.digest, &found.digest)
        });
        for _ in 0..LOOKS_MAX {
            match self.try_delete(repository, &found.digest, referrer.clone())? {
                Attempt::Done => return Ok(()),
                Attempt::Needed(index) => return Err(needed(&index)),
                Attempt::LookAgain => {}
                Attempt::Gone => {
                    return Err(RegistryError::with(
                        ErrorCode::ManifestUnknown,
                        found.digest,
                    ));
                }
            }
        }
        Err(ServiceError::Busy.into())
    }

    fn try_delete(
        &self,
        repository: &Repository,
        digest: &str,
        referrer: Option<String>,
    ) -> Result<Attempt, RegistryError> {
        let (_, seen) = self.store.now_and_newest()?;
        let key = manifest_key(repository, digest);
        if let Some(index) = self.index_with(repository, &key)? {
            return Ok(Attempt::Needed(index));
        }
        let manifests = format!("{}@", repository.name);
        let tags = format!("{}:", repository.name);
        let digest = digest.to_owned();
        let cache = repository.cache.row.id;
        Ok(self.store.withdraw(cache, move |transaction| {
            let new = transaction.published_since(seen, &[EntryKind::Manifest])?;
            let is_new_index = |entry: &Entry| entry.key.starts_with(&manifests) && is_index(entry);
            if new.iter().any(is_new_index) {
                return Ok(Attempt::LookAgain);
            }
            let Some(manifest) = transaction.find(EntryKind::Manifest, &key)? else {
                return Ok(Attempt::Gone);
            };
            transaction.remove(manifest.sequence)?;
            remove_dependents(transaction, &tags, &digest, referrer.as_deref())?;
            Ok(Attempt::Done)
        })?)
    }

    /// The key of an index of the repository that lists the manifest with key `child`.
    fn index_with(
        &self,
        repository: &Repository,
        child: &str,
    ) -> Result<Option<String>, RegistryError> {
        let prefix = format!("{}@", repository.name);
        for entry in self.all_entries(repository, EntryKind::Manifest, &prefix)? {
            if !is_index(&entry) || entry.key == child {
                continue;
            }
            let document = document::open(&self.store, &entry)?;
            let media_type = document.media_type.clone();
            let children = super::index_children(&entry.key, &media_type, &document.into_bytes()?);
            if children.iter().any(|listed| listed == child) {
                return Ok(Some(entry.key));
            }
        }
        Ok(None)
    }
}

fn remove_dependents(
    transaction: &Eviction<'_>,
    tags: &str,
    digest: &str,
    referrer: Option<&str>,
) -> Result<(), StoreError> {
    for tag in transaction.with_value(EntryKind::Tag, tags, digest.as_bytes())? {
        transaction.remove(tag.sequence)?;
    }
    if let Some(key) = referrer
        && let Some(entry) = transaction.find(EntryKind::Referrer, key)?
    {
        transaction.remove(entry.sequence)?;
    }
    Ok(())
}

/// By its media type alone.
fn is_index(entry: &Entry) -> bool {
    let media = document::read_value(&entry.value).map(|(media, _)| media);
    matches!(
        media,
        Some(media_type::OCI_INDEX | media_type::DOCKER_MANIFEST_LIST)
    )
}
