//! `manifest.json` of a docker-archive: `[{Config, RepoTags, Layers}]`, names of files in it.

use super::{OutputError, blob_path};
use firn_formats::{Sha256, oci::Digest};

/// One image of a docker-archive.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    /// Absent or null in images without a name.
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

pub(super) fn manifest(
    config: Sha256,
    names: &[String],
    layers: &[&Digest],
) -> Result<Vec<u8>, OutputError> {
    let image = DockerImage {
        config: blob_path(&config.into()),
        repo_tags: Some(names.to_vec()),
        layers: layers.iter().map(|digest| blob_path(digest)).collect(),
    };
    serde_json::to_vec(&[image]).map_err(OutputError::json(super::DOCKER_MANIFEST_FILE))
}
