//! What an image shall be.

use crate::plan::{Algorithm, History};
use firn_formats::oci::config::Config;

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
}

/// An image spec: everything but the closure.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ImageSpec {
    pub config: Config,
    pub architecture: String,
    pub os: String,
    /// RFC 3339; the epoch by default, so that equal inputs give equal images.
    pub created: String,
    pub max_layers: usize,
    pub algorithm: Algorithm,
    /// What is known of the image's revisions so far.
    pub history: History,
    pub compression: LayerCompression,
    /// Symlinks at `/bin`, `/etc`, `/lib`, `/share` to what the roots have there.
    pub root_links: bool,
    /// `/etc/passwd` and `/etc/group` with root and nobody.
    pub users: bool,
    /// `/tmp` and `/var/tmp` with mode 1777.
    pub tmp: bool,
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
            os: "linux".to_owned(),
            created: CREATED.to_owned(),
            max_layers: LAYERS_DEFAULT,
            algorithm: Algorithm::default(),
            history: History::default(),
            compression: LayerCompression::default(),
            root_links: true,
            users: true,
            tmp: true,
        }
    }
}
