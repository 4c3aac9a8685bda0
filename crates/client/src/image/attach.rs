//! Artifacts that refer to an image: what is known of it, what is in it.

use crate::{
    error::{ClientError, Result},
    registry::Repository,
};
use firn_formats::{
    Sha256,
    oci::{Descriptor, Digest, Manifest, media_type},
};
use std::collections::BTreeMap;

const EMPTY_CONFIG: &[u8] = b"{}";

/// A document beside an image.
#[derive(Debug)]
pub struct Artifact<'a> {
    /// Of the artifact and of its one layer.
    pub media_type: &'a str,
    /// The document.
    pub bytes: &'a [u8],
    /// On the artifact's manifest and where it is listed.
    pub annotations: BTreeMap<String, String>,
}

/// Puts an artifact whose subject is the manifest with this digest, under a tag or else under its own digest.
/// Gives its digest; `None` if there is no such manifest.
pub fn attach(
    repository: &Repository,
    subject: &str,
    artifact: &Artifact<'_>,
    tag: Option<&str>,
) -> Result<Option<Digest>> {
    let digest = Digest::parse(subject)?;
    let Some(raw) = repository.manifest(subject)? else {
        return Ok(None);
    };
    let layer = descriptor(artifact.media_type, artifact.bytes);
    let config = descriptor(media_type::OCI_EMPTY, EMPTY_CONFIG);
    repository.put_blob(&layer.digest, artifact.bytes)?;
    repository.put_blob(&config.digest, EMPTY_CONFIG)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: Some(artifact.media_type.to_owned()),
        config,
        layers: vec![layer],
        subject: Some(Descriptor {
            digest: digest.clone(),
            ..descriptor(&raw.media_type, &raw.bytes)
        }),
        annotations: artifact.annotations.clone(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|source| ClientError::json("manifest of an artifact", source))?;
    let own = Descriptor {
        artifact_type: Some(artifact.media_type.to_owned()),
        annotations: artifact.annotations.clone(),
        ..descriptor(media_type::OCI_MANIFEST, &bytes)
    };
    let by_digest = own.digest.to_string();
    let reference = tag.unwrap_or(&by_digest);
    repository.put_referrer(reference, &bytes, &own, &digest)?;
    Ok(Some(own.digest))
}

pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Sha256::of(bytes).into(),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        artifact_type: None,
        platform: None,
        data: None,
    }
}
