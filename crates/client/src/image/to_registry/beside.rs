//! The store that lies in the image's own repository: it knows layers by their keys, and takes them as packs,
//! so that caching the closure costs only what lies between the files.

use super::{known::Known, layers::Layer};
use crate::{
    credentials::cache_home,
    error::{ClientError, Result},
    progress::Progress,
    push::work::Work,
    registry::Repository,
    storage::{StorageLocation, push_work, registry::RegistryBackend, shared_options},
};
use firn_formats::{nix::Signature, oci::Reference, push::LayerDescriptor};
use firn_image::{
    compose::{LayerBlob, PlannedImage},
    encode::Representation,
};
use firn_store::{
    EntryKind,
    shared::{Run, SharedStore, StoredPack},
};
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;

/// A store in the repository that an image goes to.
#[derive(Debug)]
pub struct StoreBeside {
    store: SharedStore,
    /// Whose entries are read and written.
    cache: String,
    /// Who writes, as segments tell it.
    writer: String,
    /// What was read of the store lies there, where there is no home for it; it goes with this value.
    _folder: Option<TempDir>,
}

/// What the entry of a layer says.
#[derive(Serialize, Deserialize)]
struct LayerEntry {
    #[serde(flatten)]
    descriptor: LayerDescriptor,
    /// As it stands in manifests, so that an image made of known layers is the same image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// The key of a layer's entry: a layer's key names its tar, and what is wanted is a blob.
fn entry_key(layer_key: &str, representation: Representation) -> String {
    match representation {
        Representation::Zstd => layer_key.to_owned(),
        Representation::Gzip => format!("{layer_key}+gzip"),
        Representation::Tar => format!("{layer_key}+tar"),
    }
}

impl StoreBeside {
    /// Opens the store over the repository's own connections, with its token; asks nothing yet. Without a home
    /// that can be written to, what is read of it is kept for as long as this value only.
    pub fn open(repository: &Arc<Repository>, reference: &Reference, cache: &str) -> Result<Self> {
        let at_home = cache_home()
            .map(|home| home.join("firn/stores"))
            .filter(|folder| std::fs::create_dir_all(folder).is_ok());
        if let Some(folder) = at_home {
            return Self::open_with_cache(repository, reference, cache, &folder);
        }
        let folder =
            tempfile::tempdir().map_err(|source| ClientError::io(std::env::temp_dir(), source))?;
        let opened = Self::open_with_cache(repository, reference, cache, folder.path())?;
        Ok(Self {
            _folder: Some(folder),
            ..opened
        })
    }

    /// [`StoreBeside::open`], keeping what was read of the store below another folder.
    pub fn open_with_cache(
        repository: &Arc<Repository>,
        reference: &Reference,
        cache: &str,
        folder: &Path,
    ) -> Result<Self> {
        let registry = reference.registry.clone().unwrap_or_default();
        let location = StorageLocation::Registry {
            registry,
            name: reference.name.as_str().to_owned(),
        };
        let backend = RegistryBackend::sharing(Arc::clone(repository), &location.to_string());
        Ok(Self {
            store: SharedStore::open(Arc::new(backend), shared_options(folder)?)?,
            cache: cache.to_owned(),
            writer: format!("image push to {reference}"),
            _folder: None,
        })
    }

    /// Reads what the store has now.
    pub(super) fn refresh(&self) -> Result<()> {
        self.store.refresh()?;
        Ok(())
    }

    /// What the store knows of a layer: believed as any entry of a segment that is believed.
    pub(super) fn layer(&self, key: &str, representation: Representation) -> Result<Option<Known>> {
        let key = entry_key(key, representation);
        let Some(entry) = self.store.entry(&self.cache, EntryKind::Layer, &key)? else {
            return Ok(None);
        };
        let told: LayerEntry = serde_json::from_slice(&entry.value)
            .map_err(|source| ClientError::json(format!("entry of layer {key}"), source))?;
        // The entry is of this representation's blob alone.
        let blob = LayerBlob::of(&told.descriptor, Representation::Zstd)?;
        let signature = told.signature.as_deref();
        Ok(Some(Known {
            blob: LayerBlob {
                representation,
                ..blob
            },
            signature: signature.and_then(|text| Signature::parse(text).ok()),
            is_stored: true,
        }))
    }

    /// Whether the store has all paths of a layer.
    pub(super) fn has_paths(&self, image: &PlannedImage, layer: usize) -> Result<bool> {
        let paths = image.layers.get(layer).map(|layer| layer.paths.as_slice());
        let hashes: Vec<String> = paths
            .unwrap_or_default()
            .iter()
            .filter_map(|path| Some(image.closure.paths.get(*path)?.path.hash().to_string()))
            .collect();
        let keys: Vec<&str> = hashes.iter().map(String::as_str).collect();
        let present = self.store.paths_kept(&self.cache, &keys)?;
        Ok(present.into_iter().all(|present| present))
    }

    /// Publishes the layers as packs and by their keys, and the closure's paths; gives the number of paths that
    /// were new.
    pub(super) fn publish(
        &self,
        image: &PlannedImage,
        work: &Work<'_>,
        layers: &[Layer],
        progress: &dyn Progress,
    ) -> Result<u64> {
        let run = self.store.run(&self.writer)?;
        for (planned, layer) in image.layers.iter().zip(layers) {
            if !layer.frames.is_empty() {
                let pack = StoredPack {
                    name: layer.blob.digest.to_string(),
                    length: layer.blob.size,
                };
                run.add_stored_pack(pack, &layer.frames)?;
            }
            if !layer.is_stored {
                self.add_layer(&run, &planned.key, layer)?;
            }
        }
        let report = push_work(&self.store, &run, &self.cache, work, &[], progress)?;
        run.publish()?;
        Ok(report.paths_pushed)
    }

    fn add_layer(&self, run: &Run, key: &str, layer: &Layer) -> Result<()> {
        let blob = &layer.blob;
        let told = LayerEntry {
            descriptor: LayerDescriptor {
                digest: blob.digest.to_string(),
                size: blob.size,
                diff_id: blob.diff_id.to_string(),
                tar_size: blob.tar_size,
                gzip: None,
            },
            signature: layer.signature.as_ref().map(ToString::to_string),
        };
        let value = serde_json::to_vec(&told)
            .map_err(|source| ClientError::json("entry of a layer", source))?;
        let key = entry_key(key, blob.representation);
        run.add_entry(&self.cache, EntryKind::Layer, &key, &value, &[])?;
        Ok(())
    }
}
