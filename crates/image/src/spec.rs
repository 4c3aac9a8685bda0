//! What an image shall be.

use crate::plan::Algorithm;
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
    pub compression: LayerCompression,
    /// Symlinks at `/bin`, `/etc`, `/lib`, `/share` to what the roots have there.
    pub root_links: bool,
    /// `/etc/passwd` and `/etc/group` with root and nobody.
    pub users: bool,
    /// `/tmp` and `/var/tmp` with mode 1777.
    pub tmp: bool,
}
