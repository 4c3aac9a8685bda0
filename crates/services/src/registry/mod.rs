//! The OCI registry: blobs, manifests, tags, referrers, uploads.
//!
//! Entries in a cache; `repository` is the image's name inside the cache.
//! ```text
//! RegistryBlob <digest>                        value: which representation of its blob it is
//! Manifest     <repository>@<digest>           value: a document with its media type
//! Tag          <repository>:<tag>              value: the manifest's digest
//! Referrer     <repository>@<subject>@<digest> value: the descriptor the API lists
//! ```
//! A manifest's entry references the blobs it names, which keeps them; a blob that no manifest
//! names keeps its lease.

mod catalog;
mod deletions;
mod error;
mod images;
mod manifests;
mod referrers;
mod tags;
mod uploads;

pub use error::RegistryError;
pub use images::{IMAGES_MAX, Images, ImagesAsked};
pub(crate) use manifests::index_children;
pub use manifests::{
    FoundManifest, ManifestReference, NewManifest, StoredManifest, has_zstd_layers,
};
pub use tags::{LIST_MAX, Page};
pub use uploads::UploadStatus;

use crate::ServiceError;
use crate::access::{Access, Cache, Identity};
use crate::budget::Budget;
use crate::retention::{Retention, Uses};
use crate::sessions::SharedSessions;
use firn_formats::oci::{Digest, ErrorCode, RepositoryName};
use firn_store::{BlobId, BlobInfo, BlobReader, EntryKind, IfExists, NewEntry, Publication};
use firn_store::{Representation, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The registry door's work.
pub struct Registry {
    store: Store,
    access: Arc<Access>,
    uses: Arc<Uses>,
    retention: Arc<Retention>,
    sessions: SharedSessions,
    uploads: Mutex<HashMap<String, Arc<uploads::Live>>>,
    budget: Budget,
    summaries: images::Summaries,
}

/// An image name: the cache it lies in and its name there.
#[derive(Clone)]
pub struct Repository {
    /// The cache.
    pub cache: Arc<Cache>,
    /// The name inside the cache.
    pub name: String,
}

/// A blob found.
#[derive(Debug)]
pub struct FoundBlob {
    /// Its blob.
    pub blob: BlobInfo,
    /// Which bytes of it.
    pub representation: Representation,
    /// How many.
    pub length: u64,
}

/// The entry that makes a blob readable by a digest.
pub(crate) fn blob_entry(
    digest: &str,
    representation: Representation,
    blob: BlobId,
    lease: Option<Duration>,
) -> NewEntry {
    let name: &'static [u8] = match representation {
        Representation::Identity => b"identity",
        Representation::Zstd => b"zstd",
        Representation::Gzip => b"gzip",
    };
    NewEntry {
        kind: EntryKind::RegistryBlob,
        key: digest.to_owned(),
        value: bytes::Bytes::from_static(name),
        blobs: vec![blob],
        requires: Vec::new(),
        if_exists: IfExists::Replace,
        lease,
    }
}

impl Registry {
    pub(crate) fn new(
        store: Store,
        access: Arc<Access>,
        uses: Arc<Uses>,
        retention: Arc<Retention>,
        budget: Budget,
    ) -> Self {
        Self {
            uses,
            retention,
            sessions: SharedSessions::new(store.clone()),
            store,
            access,
            uploads: Mutex::new(HashMap::new()),
            budget,
            summaries: images::Summaries::new(),
        }
    }

    pub(crate) fn sweep(&self) {
        self.sweep_uploads();
        self.sessions.sweep();
    }

    /// The cache's name and the rest of an image name, for `who`: the longest name of a cache that they may know of
    /// wins; a name that lies in none gives its first component, which no right can be had on but by those who may
    /// know that there is none.
    ///
    /// # Errors
    /// If the name is malformed.
    pub fn split_name<'a>(
        &self,
        who: &Identity,
        name: &'a str,
    ) -> Result<(String, &'a str), RegistryError> {
        RepositoryName::parse(name)
            .map_err(|error| RegistryError::with(ErrorCode::NameInvalid, error.to_string()))?;
        if let Some((cache, rest)) = self.access.split_repository(who, name) {
            return Ok((cache.name().to_owned(), rest));
        }
        name.split_once('/')
            .map(|(cache, rest)| (cache.to_owned(), rest))
            .ok_or_else(|| {
                RegistryError::with(
                    ErrorCode::NameInvalid,
                    format!("{name} lacks an image name: images are called <cache>/<image>"),
                )
            })
    }

    /// A blob of a cache by digest, if all of it can be had.
    ///
    /// # Errors
    /// If it is not here, or the store fails.
    pub fn blob(&self, cache: &Cache, digest: &Digest) -> Result<FoundBlob, RegistryError> {
        let found = self
            .find_blob(cache, digest)?
            .ok_or_else(|| RegistryError::with(ErrorCode::BlobUnknown, digest.to_string()))?;
        let key = digest.to_string();
        self.uses.entry(cache.row.id, EntryKind::RegistryBlob, &key);
        Ok(found)
    }

    fn find_blob(&self, cache: &Cache, digest: &Digest) -> Result<Option<FoundBlob>, ServiceError> {
        let found = self
            .store
            .entry(cache.row.id, EntryKind::RegistryBlob, &digest.to_string())?;
        let Some(entry) = found else { return Ok(None) };
        let Some(id) = entry.blobs.first() else {
            return Ok(None);
        };
        let Some(blob) = self.store.blob(*id)? else {
            return Ok(None);
        };
        let (representation, length) = match entry.value.as_ref() {
            b"identity" => (Representation::Identity, blob.identity_length),
            b"zstd" => (Representation::Zstd, blob.zstd_length),
            b"gzip" => {
                let size = match blob.gzip {
                    Some((_, size)) => size,
                    None => self.store.make_gzip(*id)?.1,
                };
                (Representation::Gzip, size)
            }
            _ => return Err(ServiceError::StoredEntry(format!("blob {digest}"))),
        };
        Ok(Some(FoundBlob {
            blob,
            representation,
            length,
        }))
    }

    /// Opens a blob, `range` being (first byte, length).
    ///
    /// # Errors
    /// If bytes are missing, or the store fails.
    pub fn read_blob(
        &self,
        found: &FoundBlob,
        range: Option<(u64, u64)>,
    ) -> Result<BlobReader, RegistryError> {
        self.store
            .read(found.blob.id, found.representation, range)
            .map_err(|error| ServiceError::from(error).into())
    }

    /// Whether a blob is here, to be said to a pusher: its leases are renewed (rule 5).
    ///
    /// # Errors
    /// If the store fails.
    pub fn renew_blob(&self, cache: &Cache, digest: &Digest) -> Result<bool, RegistryError> {
        let key = digest.to_string();
        let present = self
            .store
            .renew(cache.row.id, EntryKind::RegistryBlob, &[&key])
            .map_err(ServiceError::from)?;
        Ok(present.contains(&true))
    }

    /// Makes a blob of `from` readable in `to`, if both share a domain. The caller has checked
    /// the right to read `from`. False if it must be uploaded.
    ///
    /// # Errors
    /// If the store fails.
    pub fn mount(&self, from: &Cache, to: &Cache, digest: &Digest) -> Result<bool, RegistryError> {
        if from.row.domain != to.row.domain {
            return Ok(false);
        }
        if !self.renew_blob(from, digest)? {
            return Ok(false);
        }
        let Some(found) = self.find_blob(from, digest)? else {
            return Ok(false);
        };
        if from.row.id != to.row.id {
            let entry = blob_entry(
                &digest.to_string(),
                found.representation,
                found.blob.id,
                Some(self.store.lease()),
            );
            self.publish(to, vec![entry], Vec::new())?;
        }
        Ok(true)
    }

    fn publish(
        &self,
        cache: &Cache,
        entries: Vec<NewEntry>,
        deletions: Vec<(EntryKind, String)>,
    ) -> Result<(), RegistryError> {
        let publication = Publication { entries, deletions };
        self.store
            .publish(None, cache.row.id, publication)
            .map_err(ServiceError::from)?;
        Ok(())
    }
}
