//! From spec and closure to layers with keys, and from the layers' descriptors to config and manifest.
//!
//! The layers of store paths come first, as [`crate::plan`] orders them; on top lies one
//! layer of root files (links, users, `/tmp`), if there are any. It counts against the
//! limit; where the limit is one layer, that one holds both.

mod documents;
mod key;
mod layer;
mod rootfs;
mod signature;

pub(crate) use documents::descriptor;
pub use documents::{AssembledImage, ComposeError, LAYER_KEY_ANNOTATION, LayerBlob};
pub use rootfs::RootConflict;
pub use signature::{LAYER_SIGNATURE_ANNOTATION, layer_fingerprint};

use crate::{
    archive::{Archive, ArchiveError},
    closure::Closure,
    encode::Representation,
    plan,
    spec::ImageSpec,
};
use firn_formats::{
    nix::{Signature, store_path::STORE_DIR},
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

/// Plans. Reads nothing of the store but, for root links, the roots' own directories.
pub fn plan_image(closure: Closure, spec: ImageSpec) -> Result<PlannedImage, ArchiveError> {
    plan_image_in(Path::new(STORE_DIR), closure, spec)
}

/// Plans, with the store's files lying in another directory than `/nix/store`
/// (in the image they lie in `/nix/store` all the same).
pub fn plan_image_in(
    store_dir: &Path,
    closure: Closure,
    spec: ImageSpec,
) -> Result<PlannedImage, ArchiveError> {
    let (root_entries, conflicts) = rootfs::collect(store_dir, &closure, &spec)?;
    let with_root = !root_entries.is_empty();
    let limit = spec.max_layers.max(1);
    let limit = if with_root && limit > 1 {
        limit - 1
    } else {
        limit
    };
    let mut layers: Vec<PlannedLayer> = plan::plan(&closure, spec.algorithm, limit, &spec.history)
        .into_iter()
        .map(|paths| PlannedLayer {
            key: key::of_paths(&closure, &paths),
            comment: comment(&closure, &paths),
            paths,
            root_files: false,
        })
        .collect();
    if with_root {
        add_root_files(&mut layers, &root_entries, spec.max_layers)?;
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

fn add_root_files(
    layers: &mut Vec<PlannedLayer>,
    entries: &RootEntries,
    max_layers: usize,
) -> Result<(), ArchiveError> {
    let tar = entries.tar()?;
    match layers.first_mut() {
        Some(only) if max_layers <= 1 => {
            only.key = key::of_both(&only.key, &tar);
            only.comment.push_str(", root files");
            only.root_files = true;
        }
        _ => layers.push(PlannedLayer {
            key: key::of_root_files(&tar),
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
        layer::tar(&self.store_dir, paths, root)
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
