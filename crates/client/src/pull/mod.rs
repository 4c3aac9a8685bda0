//! Bringing closures from a binary cache: into the local store by Nix, or into a folder without it.

mod narinfo;
mod nix;
mod unpack;

pub use narinfo::{BinaryCache, Passed};
pub use nix::pull_with_nix;
pub(crate) use unpack::decompress;
pub use unpack::{Chunks, pull_to_folder};

use serde::Serialize;

/// What a pull did.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct PullReport {
    /// Paths of the closure; absent where Nix did the work and did not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths_fetched: Option<u64>,
    /// Bytes of NARs, compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_received: Option<u64>,
    pub seconds: f64,
}
