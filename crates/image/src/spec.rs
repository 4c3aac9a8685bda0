//! What an image shall be.

mod accounts;
mod document;

pub use accounts::{Accounts, Group, User};
pub use document::{
    ClosureEntry, Compression, LayersDocument, SPEC_BYTES_MAX, SpecDocument, SpecError,
    named_store_paths, store_path, texts_of_config,
};
pub use firn_formats::layer::{Attributes, Rule, RuleError, Rules};

use crate::{
    base::BaseImage,
    plan::{Algorithm, History},
};
use firn_formats::{
    nix::StorePath,
    oci::{Platform, config::Config},
};
use std::collections::BTreeMap;

/// Layer compression.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LayerCompression {
    #[default]
    Zstd,
    Gzip,
    /// Plain tars.
    None,
}

/// An image spec: everything but the closure.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ImageSpec {
    pub config: Config,
    pub architecture: String,
    /// Of the architecture, such as `v7`.
    pub variant: Option<String>,
    pub os: String,
    /// RFC 3339; the epoch by default, so that equal inputs give equal images.
    pub created: String,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// What lies below; its layers count against the limit.
    pub base: Option<BaseImage>,
    pub max_layers: usize,
    pub algorithm: Algorithm,
    /// What is known of the image's revisions so far.
    pub history: History,
    /// Paths that shall share layers, whatever the algorithm says; lowest first.
    pub groups: Vec<LayerGroup>,
    pub compression: LayerCompression,
    /// Symlinks at `/bin`, `/etc`, `/lib`, `/share` to what the roots have there.
    pub root_links: bool,
    /// Store paths whose contents lie at `/` themselves, not as links.
    pub copy_to_root: Vec<CopiedPath>,
    /// `/etc/passwd` and `/etc/group` with root and nobody.
    pub users: bool,
    /// Who is in them besides.
    pub accounts: Accounts,
    /// `/tmp` and `/var/tmp` with mode 1777.
    pub tmp: bool,
    /// Further files, made by others.
    pub files: Vec<RootFile>,
    /// Modes and owners.
    pub rules: Rules,
}

/// A store path that is copied to `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CopiedPath {
    pub path: StorePath,
    /// What is copied, said without reading it.
    pub nar_hash: firn_formats::Sha256,
}

/// Paths that share layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGroup {
    /// With all that they refer to and no group before has.
    pub paths: Vec<StorePath>,
    /// Most layers of theirs.
    pub max_layers: usize,
}

/// A file or link at the root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RootFile {
    /// Without a leading slash; parents are made.
    pub path: String,
    pub content: RootContent,
    pub mode: u32,
}

/// What a [`RootFile`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RootContent {
    File(Vec<u8>),
    Symlink(String),
    Directory,
}

/// `created` of an image of which nothing else is said: a second after the epoch, as the files' mtime.
pub const CREATED: &str = "1970-01-01T00:00:01Z";

/// Layers by default: overlayfs takes 127, and some room is left for others to build upon.
pub const LAYERS_DEFAULT: usize = 100;

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            config: Config::default(),
            architecture: "amd64".to_owned(),
            variant: None,
            os: "linux".to_owned(),
            created: CREATED.to_owned(),
            annotations: BTreeMap::new(),
            base: None,
            max_layers: LAYERS_DEFAULT,
            algorithm: Algorithm::default(),
            history: History::default(),
            groups: Vec::new(),
            compression: LayerCompression::default(),
            root_links: true,
            copy_to_root: Vec::new(),
            users: true,
            accounts: Accounts::default(),
            tmp: true,
            files: Vec::new(),
            rules: Rules::default(),
        }
    }
}

impl ImageSpec {
    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            ..Platform::default()
        }
    }
}
