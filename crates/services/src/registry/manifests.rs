//! Manifests and indexes, byte for byte as they came.

use super::{Registry, RegistryError, Repository};
use crate::{ServiceError, document};
use bytes::Bytes;
use firn_formats::Sha256;
use firn_formats::oci::manifest::{AnyManifest, MANIFEST_BYTES_MAX};
use firn_formats::oci::{Descriptor, Digest, ErrorCode, Manifest, Tag, media_type};
use firn_store::{BlobId, EntryKind, IfExists, NewEntry, Publication, StoreError};

/// A manifest found.
#[derive(Debug)]
pub struct FoundManifest {
    /// Its digest, of the algorithm it was asked by.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A manifest to store.
#[derive(Debug, Clone, Copy)]
pub struct NewManifest<'a> {
    /// How its sender names it.
    pub reference: &'a ManifestReference,
    /// Further tags for it.
    pub tags: &'a [Tag],
    /// Its media type.
    pub content_type: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Whether tags may be moved to it from another.
    pub may_move: bool,
}

/// What a PUT did.
#[derive(Debug)]
pub struct StoredManifest {
    /// The manifest's digest.
    pub digest: Digest,
    /// The tags that name it now.
    pub tags: Vec<Tag>,
    /// The subject it names, to be answered as `OCI-Subject`.
    pub subject: Option<Digest>,
}

/// How a manifest is asked for.
#[derive(Debug, Clone)]
pub enum ManifestReference {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl ManifestReference {
    /// Reads a path's last component.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        if text.contains(':') {
            return Digest::parse(text)
                .map(Self::Digest)
                .map_err(|error| RegistryError::with(ErrorCode::DigestInvalid, error.to_string()));
        }
        Tag::parse(text)
            .map(Self::Tag)
            .map_err(|error| RegistryError::with(ErrorCode::ManifestInvalid, error.to_string()))
    }
}

pub(super) fn manifest_key(repository: &Repository, digest: &str) -> String {
    format!("{}@{digest}", repository.name)
}

/// The keys of the manifests that an index lists; `key` is its own.
pub(crate) fn index_children(key: &str, media_type: &str, bytes: &[u8]) -> Vec<String> {
    let repository = key.split('@').next().unwrap_or_default();
    match AnyManifest::parse(media_type, bytes) {
        Ok(AnyManifest::Index(index)) => index
            .manifests
            .iter()
            .map(|child| format!("{repository}@{}", child.digest))
            .collect(),
        _ => Vec::new(),
    }
}

/// A tag that only who may push may move.
fn moved() -> RegistryError {
    RegistryError::with(
        ErrorCode::Denied,
        "the tag names another manifest, and the token may not move it",
    )
}

/// The digest a manifest is stored under: the one it was sent by, if it has that.
fn checked_digest(new: &NewManifest<'_>) -> Result<Digest, RegistryError> {
    if new.bytes.len() > MANIFEST_BYTES_MAX {
        return Err(RegistryError {
            status: Some(413),
            ..RegistryError::with(ErrorCode::SizeInvalid, "the manifest is too large")
        });
    }
    match new.reference {
        ManifestReference::Digest(digest) if !digest.matches(new.bytes) => {
            Err(RegistryError::with(
                ErrorCode::DigestInvalid,
                format!("the manifest does not have digest {digest}"),
            ))
        }
        ManifestReference::Digest(digest) => Ok(digest.clone()),
        ManifestReference::Tag(_) => Ok(Digest::from(Sha256::of(new.bytes))),
    }
}

fn invalid(detail: impl ToString) -> RegistryError {
    RegistryError::with(ErrorCode::ManifestInvalid, detail.to_string())
}

impl Registry {
    /// A manifest.
    ///
    /// # Errors
    /// If it is not here, or the store fails.
    pub fn manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<FoundManifest, RegistryError> {
        let cache = repository.cache.row.id;
        let unknown = |what: &str| {
            RegistryError::with(
                ErrorCode::ManifestUnknown,
                format!("{}/{}: {what}", repository.cache.name(), repository.name),
            )
        };
        let digest = match reference {
            ManifestReference::Digest(digest) => digest.to_string(),
            ManifestReference::Tag(tag) => {
                let key = format!("{}:{}", repository.name, tag.as_str());
                let entry = self
                    .store
                    .entry(cache, EntryKind::Tag, &key)?
                    .ok_or_else(|| unknown(tag.as_str()))?;
                self.uses.entry(cache, EntryKind::Tag, &key);
                String::from_utf8_lossy(&entry.value).into_owned()
            }
        };
        let key = manifest_key(repository, &digest);
        let entry = self
            .store
            .entry(cache, EntryKind::Manifest, &key)?
            .ok_or_else(|| unknown(&digest))?;
        self.uses.entry(cache, EntryKind::Manifest, &key);
        let document = document::open(&self.store, &entry)?;
        Ok(FoundManifest {
            digest,
            media_type: document.media_type.clone(),
            bytes: document.into_bytes()?,
        })
    }

    /// Takes a manifest whose blobs are here, and tags it.
    ///
    /// # Errors
    /// If it is unsound, a blob is missing, its digest is not the one named, a tag is another's and may not be
    /// moved, or the store fails.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        new: NewManifest<'_>,
    ) -> Result<StoredManifest, RegistryError> {
        let digest = checked_digest(&new)?;
        let manifest = AnyManifest::parse(new.content_type, new.bytes).map_err(invalid)?;
        let needs = self.needs(repository, &manifest)?;
        self.retention
            .admit(&repository.cache, 0, needs.stored_bytes)?;
        let shared = self.sessions.get(&repository.cache)?;
        let (value, mut blobs) = document::keep(&self.store, &shared, new.content_type, new.bytes)?;
        blobs.extend(needs.blobs);
        let key = manifest_key(repository, &digest.to_string());
        let mut entries = vec![NewEntry {
            kind: EntryKind::Manifest,
            key: key.clone(),
            value,
            blobs,
            requires: needs.entries,
            if_exists: IfExists::Replace,
            lease: None,
        }];
        let mut tags = new.tags.to_vec();
        if let ManifestReference::Tag(tag) = new.reference {
            tags.push(tag.clone());
        }
        for tag in &tags {
            entries.extend(self.tag_entry(repository, tag, &digest, new.may_move)?);
        }
        let subject = manifest.subject();
        if let Some(subject) = subject {
            entries.push(self.referrer_entry(
                repository,
                &subject.digest,
                &digest,
                &manifest,
                new.content_type,
                new.bytes.len() as u64,
            )?);
        }
        let publication = Publication {
            entries,
            deletions: Vec::new(),
        };
        self.store
            .publish(Some(shared.session()), repository.cache.row.id, publication)
            .map_err(|error| match error {
                // Somebody else was first with the tag.
                StoreError::Conflict(_) => moved(),
                other => ServiceError::from(other).into(),
            })?;
        Ok(StoredManifest {
            digest,
            tags,
            subject: subject.map(|subject| subject.digest.clone()),
        })
    }

    /// The entry of a tag; none if it names the manifest already. One that names another is moved only if it
    /// may be: the publication refuses where it has come to exist meanwhile.
    fn tag_entry(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        may_move: bool,
    ) -> Result<Option<NewEntry>, RegistryError> {
        let key = format!("{}:{}", repository.name, tag.as_str());
        let value = digest.to_string();
        if !may_move {
            let cache = repository.cache.row.id;
            match self.store.entry(cache, EntryKind::Tag, &key)? {
                Some(entry) if entry.value == value.as_bytes() => return Ok(None),
                Some(_) => return Err(moved()),
                None => {}
            }
        }
        Ok(Some(NewEntry {
            kind: EntryKind::Tag,
            key,
            value: value.into(),
            blobs: Vec::new(),
            requires: vec![(
                EntryKind::Manifest,
                manifest_key(repository, &digest.to_string()),
            )],
            if_exists: match may_move {
                true => IfExists::Replace,
                false => IfExists::Refuse,
            },
            lease: None,
        }))
    }

    /// The entries and blobs a manifest needs; an error names the first that is not here.
    fn needs(
        &self,
        repository: &Repository,
        manifest: &AnyManifest,
    ) -> Result<Needs, RegistryError> {
        let mut needs = Needs::default();
        match manifest {
            AnyManifest::Manifest(manifest) => {
                for descriptor in blobs_of(manifest) {
                    self.need_blob(repository, descriptor, &mut needs)?;
                }
            }
            AnyManifest::Index(index) => {
                for descriptor in &index.manifests {
                    self.need_manifest(repository, descriptor, &mut needs)?;
                }
            }
        }
        Ok(needs)
    }

    fn need_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        needs: &mut Needs,
    ) -> Result<(), RegistryError> {
        let found = match self.find_blob(&repository.cache, &descriptor.digest)? {
            Some(found) => found,
            None if self.is_the_empty_blob(repository, descriptor)? => {
                self.blob(&repository.cache, &descriptor.digest)?
            }
            // Layers that stand elsewhere may be absent.
            None if !descriptor.urls.is_empty() => return Ok(()),
            None => {
                return Err(RegistryError::with(
                    ErrorCode::ManifestBlobUnknown,
                    descriptor.digest.to_string(),
                ));
            }
        };
        if found.length != descriptor.size {
            return Err(invalid(format!(
                "{} has {} bytes, not {}",
                descriptor.digest, found.length, descriptor.size
            )));
        }
        needs.blobs.push(found.blob.id);
        needs.stored_bytes += found.blob.zstd_length;
        needs
            .entries
            .push((EntryKind::RegistryBlob, descriptor.digest.to_string()));
        Ok(())
    }

    /// `{}`: every client knows it, and not every client uploads it first.
    fn is_the_empty_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let empty = Sha256::of(b"{}");
        if descriptor.media_type != media_type::OCI_EMPTY
            || descriptor.digest.as_sha256() != Some(empty)
        {
            return Ok(false);
        }
        self.upload_whole(repository, &descriptor.digest, &mut &b"{}"[..])?;
        Ok(true)
    }

    fn need_manifest(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        needs: &mut Needs,
    ) -> Result<(), RegistryError> {
        let key = manifest_key(repository, &descriptor.digest.to_string());
        let there = self
            .store
            .entry(repository.cache.row.id, EntryKind::Manifest, &key)?;
        if there.is_some() {
            needs.entries.push((EntryKind::Manifest, key));
            return Ok(());
        }
        // An index may also list blobs that are no manifests.
        self.need_blob(repository, descriptor, needs)
    }
}

#[derive(Default)]
struct Needs {
    entries: Vec<(EntryKind, String)>,
    blobs: Vec<BlobId>,
    stored_bytes: u64,
}

fn blobs_of(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    std::iter::once(&manifest.config).chain(&manifest.layers)
}

/// Whether an image cannot be read by a Docker before 23, which knows no zstd layers.
pub fn has_zstd_layers(found: &FoundManifest) -> bool {
    match AnyManifest::parse(&found.media_type, &found.bytes) {
        Ok(AnyManifest::Manifest(manifest)) => manifest
            .layers
            .iter()
            .any(|layer| layer.media_type == media_type::OCI_LAYER_ZSTD),
        _ => false,
    }
}
