//! Referrers: the manifests that name another as their subject.

use super::{Registry, RegistryError, Repository};
use crate::ServiceError;
use firn_formats::oci::manifest::AnyManifest;
use firn_formats::oci::{Descriptor, Digest, Index, media_type};
use firn_store::{EntryKind, IfExists, NewEntry};
use std::collections::BTreeMap;

pub(super) fn referrer_key(repository: &Repository, subject: &Digest, digest: &str) -> String {
    format!("{}@{subject}@{digest}", repository.name)
}

impl Registry {
    pub(super) fn referrer_entry(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
        manifest: &AnyManifest,
        content_type: &str,
        size: u64,
    ) -> Result<NewEntry, ServiceError> {
        let (artifact_type, annotations) = match manifest {
            AnyManifest::Manifest(manifest) => (
                manifest
                    .artifact_type
                    .clone()
                    .filter(|kind| !kind.is_empty())
                    .or_else(|| Some(manifest.config.media_type.clone())),
                manifest.annotations.clone(),
            ),
            AnyManifest::Index(index) => (index.artifact_type.clone(), index.annotations.clone()),
        };
        let descriptor = Descriptor {
            media_type: content_type.to_owned(),
            digest: digest.clone(),
            size,
            urls: Vec::new(),
            annotations,
            artifact_type,
            platform: None,
            data: None,
        };
        Ok(NewEntry {
            kind: EntryKind::Referrer,
            key: referrer_key(repository, subject, &digest.to_string()),
            value: serde_json::to_vec(&descriptor)?.into(),
            blobs: Vec::new(),
            requires: Vec::new(),
            if_exists: IfExists::Replace,
            lease: None,
        })
    }

    /// The index of a manifest's referrers, empty if there are none; of one artifact type if asked.
    ///
    /// # Errors
    /// If the store fails.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<u8>, RegistryError> {
        let prefix = format!("{}@{subject}@", repository.name);
        let mut manifests = Vec::new();
        for entry in self.all_entries(repository, EntryKind::Referrer, &prefix)? {
            let descriptor: Descriptor =
                serde_json::from_slice(&entry.value).map_err(ServiceError::from)?;
            if artifact_type
                .is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
            {
                manifests.push(descriptor);
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        };
        Ok(serde_json::to_vec(&index).map_err(ServiceError::from)?)
    }
}
