//! Pushing images: to Firn by chunks, to other registries by layers, and those made elsewhere.

mod archive_source;
mod attach;
mod base;
mod below;
mod history;
mod index;
mod to_firn;
mod to_registry;

pub use archive_source::{StoredImage, push_stored};
pub use attach::{Artifact, attach};
pub use base::{base_of_file, base_of_repository};
pub use below::mount_source;
pub use history::{HISTORY_TAG, HISTORY_TYPE, read_history, with_revision, write_history};
pub use index::{IndexReport, IndexSource, push_index};
pub use to_firn::push_to_firn;
pub use to_registry::{CONNECTIONS, LayerTrust, RegistryPush, StoreBeside};

use serde::Serialize;

/// What an image push did.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct ImageReport {
    /// Where the image can be pulled from.
    pub image: String,
    pub digest: String,
    pub layers_total: u64,
    /// Layers that were not there and had to be sent (or, to Firn, described by their chunks).
    pub layers_sent: u64,
    /// Layers that were there already.
    pub layers_reused: u64,
    /// Layers that the image under the tag names by their keys without a trusted key's signature; they were made
    /// here, and compared.
    pub layers_not_believed: u64,
    /// Sum of the layers' sizes as a registry stores them.
    pub bytes_total: u64,
    /// Bytes of all requests, heads included.
    pub bytes_sent: u64,
    /// Store paths published on the way.
    pub paths_pushed: u64,
    pub seconds: f64,
}
