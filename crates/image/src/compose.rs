//! From spec and closure to layers with keys, and from the layers' descriptors to config and manifest.
//!
//! The layers of a base image come first, as they are; then those of store paths, as
//! [`crate::plan`] orders them; on top lies one layer of root files (links, users, `/tmp`),
//! if there are any. All count against the limit; where one layer is left, that one holds
//! store paths and root files.

mod documents;
mod key;
mod layer;
mod recipe;
mod rootfs;
mod signature;

pub(crate) use documents::descriptor;
pub use documents::{AssembledImage, ComposeError, LAYER_KEY_ANNOTATION, LayerBlob};
pub use rootfs::RootConflict;
pub use signature::{LAYER_SIGNATURE_ANNOTATION, layer_fingerprint};

use crate::{
    archive::{Archive, ArchiveError},
    base::{BaseError, BaseLayer},
    closure::Closure,
    encode::Representation,
    plan::{self, GroupError},
    spec::ImageSpec,
};
use firn_formats::{
    nix::{Signature, store_path::STORE_DIR},
    oci::ImageConfig,
    push::LayerDescriptor,
};
use rootfs::RootEntries;
use std::path::{Path, PathBuf};

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
    /// Whether the root files are in it.
    pub root_files: bool,
}

/// A planned image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct PlannedImage {
    pub spec: ImageSpec,
    pub closure: Closure,
    pub layers: Vec<PlannedLayer>,
    /// What several roots have at the same place of the root directory.
    pub conflicts: Vec<RootConflict>,
    root_entries: RootEntries,
    store_dir: PathBuf,
}

/// Why an image cannot be planned.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlanError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Plans. Reads nothing of the store but, for root links, the roots' own directories.
pub fn plan_image(closure: Closure, spec: ImageSpec) -> Result<PlannedImage, PlanError> {
    plan_image_in(Path::new(STORE_DIR), closure, spec)
}

/// Plans, with the store's files lying in another directory than `/nix/store`
/// (in the image they lie in `/nix/store` all the same).
pub fn plan_image_in(
    store_dir: &Path,
    closure: Closure,
    spec: ImageSpec,
) -> Result<PlannedImage, PlanError> {
    let (root_entries, conflicts) = rootfs::collect(store_dir, &closure, &spec)?;
    let with_root = !root_entries.is_empty();
    let own = own_layers(&spec)?;
    let limit = if with_root && own > 1 { own - 1 } else { own };
    let grouped = plan::plan_grouped(&closure, &spec.groups, spec.algorithm, limit, &spec.history)?;
    let mut layers: Vec<PlannedLayer> = grouped
        .into_iter()
        .map(|paths| PlannedLayer {
            key: key::of_paths(&closure, &paths, &spec.rules),
            comment: comment(&closure, &paths),
            paths,
            root_files: false,
        })
        .collect();
    if with_root {
        add_root_files(&mut layers, &root_entries, &spec, own)?;
    }
    Ok(PlannedImage {
        spec,
        closure,
        layers,
        conflicts,
        root_entries,
        store_dir: store_dir.to_owned(),
    })
}

/// How many layers the base image leaves; at least one.
fn own_layers(spec: &ImageSpec) -> Result<usize, BaseError> {
    let limit = spec.max_layers.max(1);
    let Some(base) = &spec.base else {
        return Ok(limit);
    };
    match limit.saturating_sub(base.layers.len()) {
        0 => Err(BaseError::TooManyLayers {
            name: base.name.clone(),
            layers: base.layers.len(),
            limit,
        }),
        own => Ok(own),
    }
}

fn add_root_files(
    layers: &mut Vec<PlannedLayer>,
    entries: &RootEntries,
    spec: &ImageSpec,
    own_layers: usize,
) -> Result<(), ArchiveError> {
    let copied = &spec.copy_to_root;
    match layers.first_mut() {
        Some(only) if own_layers <= 1 => {
            only.key = key::of_both(&only.key, entries, copied)?;
            only.comment.push_str(", root files");
            only.root_files = true;
        }
        _ => layers.push(PlannedLayer {
            key: key::of_root_files(entries, copied)?,
            paths: Vec::new(),
            comment: "root files".to_owned(),
            root_files: true,
        }),
    }
    Ok(())
}

fn comment(closure: &Closure, paths: &[usize]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|&i| closure.paths[i].path.to_string())
        .collect();
    format!("store paths: {}", names.join(" "))
}

impl PlannedImage {
    /// The tar of one layer, readable at random.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer_archive(&self, index: usize) -> Result<Archive, ArchiveError> {
        let layer = &self.layers[index];
        let paths: Vec<String> = layer
            .paths
            .iter()
            .map(|&i| self.closure.paths[i].path.to_string())
            .collect();
        let none = RootEntries::default();
        let root = if layer.root_files {
            &self.root_entries
        } else {
            &none
        };
        layer::tar(&self.store_dir, paths, root, &self.spec.rules)
    }

    /// The layers of the base image, which lie below [`PlannedImage::layers`].
    pub fn base_layers(&self) -> &[BaseLayer] {
        self.spec.base.as_ref().map_or(&[], |base| &base.layers)
    }

    /// The config that the image will have, but for the digests of its own layers.
    pub fn config(&self) -> ImageConfig {
        documents::image_config(self, &[])
    }

    /// Config and manifest, byte for byte, given every layer's descriptor (zstd or gzip as the spec says).
    /// Layer descriptors carry their key as annotation `dev.firn.layer.key`.
    pub fn assemble(&self, layers: &[LayerDescriptor]) -> Result<AssembledImage, ComposeError> {
        let representation = Representation::from(self.spec.compression);
        let blobs = layers
            .iter()
            .map(|descriptor| LayerBlob::of(descriptor, representation))
            .collect::<Result<Vec<_>, _>>()?;
        self.assemble_blobs(&blobs)
    }

    /// [`PlannedImage::assemble`] for layers in whatever representation each has.
    pub fn assemble_blobs(&self, layers: &[LayerBlob]) -> Result<AssembledImage, ComposeError> {
        self.assemble_signed(layers, &[])
    }

    /// [`PlannedImage::assemble_blobs`], with a signature over each layer that has one: it goes beside the key,
    /// as annotation `dev.firn.layer.signature`.
    pub fn assemble_signed(
        &self,
        layers: &[LayerBlob],
        signatures: &[Option<Signature>],
    ) -> Result<AssembledImage, ComposeError> {
        documents::assemble(self, layers, signatures)
    }
}
