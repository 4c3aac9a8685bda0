//! From spec and closure to layers with keys, and from the layers' descriptors to config and manifest.

use crate::{
    archive::{Archive, ArchiveError},
    closure::Closure,
    spec::ImageSpec,
};
use firn_formats::push::LayerDescriptor;

/// One layer before anything of it was read.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct PlannedLayer {
    /// Hash over its (store path, narHash) pairs, its options and the layer format's version;
    /// for the layer of root files, over its entries.
    pub key: String,
    /// Indices into the closure's paths; empty for the layer of root files.
    pub paths: Vec<usize>,
    /// What `docker history` shows.
    pub comment: String,
}

/// A planned image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct PlannedImage {
    pub spec: ImageSpec,
    pub closure: Closure,
    pub layers: Vec<PlannedLayer>,
}

/// Plans. Reads nothing of the store but, for root links, the roots' own directories.
pub fn plan_image(closure: Closure, spec: ImageSpec) -> Result<PlannedImage, ArchiveError> {
    todo!("{} {spec:?}", closure.paths.len())
}

impl PlannedImage {
    /// The tar of one layer, readable at random.
    pub fn layer_archive(&self, index: usize) -> Result<Archive, ArchiveError> {
        todo!("{index}")
    }
    /// Config and manifest, byte for byte, given every layer's descriptor (zstd or gzip as the spec says).
    /// Layer descriptors carry their key as annotation `dev.firn.layer.key`.
    pub fn assemble(&self, layers: &[LayerDescriptor]) -> AssembledImage {
        todo!("{}", layers.len())
    }
}

/// The documents of an image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AssembledImage {
    pub config: Vec<u8>,
    pub config_digest: firn_formats::Sha256,
    pub manifest: Vec<u8>,
    pub manifest_digest: firn_formats::Sha256,
    pub manifest_media_type: &'static str,
}
