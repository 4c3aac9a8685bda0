//! `manifest.json` of a docker-archive: `[{Config, RepoTags, Layers}]`, names of files in it.

use super::OutputError;

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

/// `config` and `layers` are names of files in the archive.
pub(super) fn manifest(
    config: String,
    names: &[String],
    layers: Vec<String>,
) -> Result<Vec<u8>, OutputError> {
    let image = DockerImage {
        config,
        repo_tags: Some(names.to_vec()),
        layers,
    };
    serde_json::to_vec(&[image]).map_err(OutputError::json(super::DOCKER_MANIFEST_FILE))
}
