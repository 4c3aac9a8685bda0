//! Descriptors, manifests and indexes, OCI's and Docker's.

use super::{Digest, media_type};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Largest manifest accepted, in bytes. The specification asks for at least 4 MiB.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;

/// Most layers of a manifest, and most manifests of an index.
pub const DESCRIPTORS_MAX: usize = 10_000;

/// Why bytes are not a manifest or index.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ManifestError {
    #[error("malformed manifest: {0}")]
    Json(#[from] serde_json::Error),
    #[error("manifest of {0} bytes is larger than {MANIFEST_BYTES_MAX}")]
    TooLarge(usize),
    #[error("unsound manifest: {0}")]
    Unsound(String),
}

/// A content descriptor.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// A platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// An index (manifest list).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// Either kind, as a registry receives them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AnyManifest {
    Manifest(Box<Manifest>),
    Index(Box<Index>),
}

impl AnyManifest {
    /// Parses by `media_type` (the Content-Type) and checks soundness: schema
    /// version 2, a `mediaType` inside that agrees, limits on counts.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        // A Content-Type may carry parameters, such as a charset.
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let shape: Shape = serde_json::from_slice(bytes)?;
        shape.check(media_type)?;
        let parsed = match media_type {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                Self::Manifest(serde_json::from_slice(bytes)?)
            }
            media_type::OCI_INDEX | media_type::DOCKER_MANIFEST_LIST => {
                Self::Index(serde_json::from_slice(bytes)?)
            }
            other => {
                return Err(unsound(format!(
                    "media type {other:?} is none of a manifest"
                )));
            }
        };
        parsed.check()?;
        Ok(parsed)
    }

    /// The config; an index has none.
    pub fn config(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => Some(&manifest.config),
            Self::Index(_) => None,
        }
    }

    /// The blobs that must be there before the manifest is: config and layers.
    /// Layers with `urls` (foreign ones, which no registry need hold) are left
    /// out. An index has none.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = match self {
            Self::Manifest(manifest) => manifest.layers.as_slice(),
            Self::Index(_) => &[],
        };
        let held = layers.iter().filter(|layer| layer.urls.is_empty());
        self.config().into_iter().chain(held)
    }

    /// The manifests that an index lists; empty for an image manifest.
    pub fn manifests(&self) -> &[Descriptor] {
        match self {
            Self::Manifest(_) => &[],
            Self::Index(index) => &index.manifests,
        }
    }

    /// The manifest that this one refers to. It need not exist.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// The artifact type as the referrers API states it: a manifest without one
    /// has its config's media type, an index without one has none.
    pub fn artifact_type(&self) -> Option<&str> {
        let (stated, otherwise) = match self {
            Self::Manifest(manifest) => (
                manifest.artifact_type.as_deref(),
                Some(manifest.config.media_type.as_str()),
            ),
            Self::Index(index) => (index.artifact_type.as_deref(), None),
        };
        stated.filter(|stated| !stated.is_empty()).or(otherwise)
    }

    /// The annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Manifest(manifest) => &manifest.annotations,
            Self::Index(index) => &index.annotations,
        }
    }

    /// The media type it is of: the one stated inside, or OCI's.
    pub fn media_type(&self) -> &str {
        let (stated, otherwise) = match self {
            Self::Manifest(manifest) => (&manifest.media_type, media_type::OCI_MANIFEST),
            Self::Index(index) => (&index.media_type, media_type::OCI_INDEX),
        };
        stated.as_deref().unwrap_or(otherwise)
    }

    /// What both types share with the wire, checked once they are parsed.
    fn check(&self) -> Result<(), ManifestError> {
        let listed = match self {
            Self::Manifest(manifest) => &manifest.layers,
            Self::Index(index) => &index.manifests,
        };
        if listed.len() > DESCRIPTORS_MAX {
            return Err(unsound(format!(
                "{} descriptors are more than {DESCRIPTORS_MAX}",
                listed.len()
            )));
        }
        let all = listed.iter().chain(self.config()).chain(self.subject());
        for descriptor in all {
            if i64::try_from(descriptor.size).is_err() {
                return Err(unsound(format!("size {} is too large", descriptor.size)));
            }
            if descriptor.media_type.is_empty() {
                return Err(unsound(format!("{} has no media type", descriptor.digest)));
            }
        }
        Ok(())
    }
}

/// The members that decide what a document is, read before the rest, so that
/// one kind does not pass for another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Shape {
    fn check(&self, expected: &str) -> Result<(), ManifestError> {
        match self.schema_version {
            Some(2) => {}
            Some(other) => return Err(unsound(format!("schema version {other} is not 2"))),
            None => return Err(unsound("schemaVersion is missing".to_owned())),
        }
        match &self.media_type {
            Some(stated) if stated != expected => {
                let shown: String = stated.chars().take(160).collect();
                return Err(unsound(format!("it says {shown:?}, not {expected:?}")));
            }
            // Docker's types always state theirs; only OCI may leave it out.
            None if expected.contains(".docker.") => {
                return Err(unsound("mediaType is missing".to_owned()));
            }
            _ => {}
        }
        let image = self.config.is_some() || self.layers.is_some();
        if image && self.manifests.is_some() {
            return Err(unsound("it is image manifest and index at once".to_owned()));
        }
        Ok(())
    }
}

fn unsound(what: String) -> ManifestError {
    ManifestError::Unsound(what)
}

/// Real documents, Go's above all, write `null` for an empty list or map.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
