//! Layers whose digests are known before they are read, by their keys. That saves work and is no more than
//! that: whatever cannot be read gives none, and a layer that is not there is made.

use super::{RegistryPush, beside::StoreBeside};
use crate::{
    error::{ClientError, Result},
    registry::Repository,
};
use firn_formats::oci::{ImageConfig, Manifest, media_type};
use firn_image::{
    compose::{LAYER_KEY_ANNOTATION, LayerBlob},
    encode::Representation,
};
use std::collections::HashMap;

/// A layer that the repository may have.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) blob: LayerBlob,
    /// The store told of it, and so knows where its frames lie.
    pub(super) is_stored: bool,
}

/// For each layer of the image what the store says of it, or else the image that the tag points at now.
pub(super) fn candidates(
    push: &RegistryPush<'_>,
    tag: &str,
    representation: Representation,
) -> Result<Vec<Option<Known>>> {
    let layers = &push.image.layers;
    let mut found: Vec<Option<Known>> = Vec::with_capacity(layers.len());
    for layer in layers {
        let stored = match &push.beside {
            Some(beside) => beside.layer(&layer.key, representation)?,
            None => None,
        };
        found.push(stored.map(|blob| Known {
            blob,
            is_stored: true,
        }));
    }
    // Keys in a manifest are anybody's who may push; where signatures are asked for, they say nothing.
    let believed = !push.beside.is_some_and(StoreBeside::signed_only);
    if believed && found.iter().any(Option::is_none) {
        let previous = previous_layers(push.repository, tag, representation);
        for (layer, slot) in layers.iter().zip(&mut found) {
            if slot.is_none() {
                *slot = previous.get(&layer.key).map(|blob| Known {
                    blob: blob.clone(),
                    is_stored: false,
                });
            }
        }
    }
    Ok(found)
}

/// The layers of the image that the tag points at now, by key. An image that cannot be read, or has no keys,
/// gives none.
fn previous_layers(
    repository: &Repository,
    tag: &str,
    representation: Representation,
) -> HashMap<String, LayerBlob> {
    read_previous(repository, tag, representation).unwrap_or_else(|error| {
        tracing::debug!(%error, "nothing is known of the previous image");
        HashMap::new()
    })
}

fn read_previous(
    repository: &Repository,
    tag: &str,
    representation: Representation,
) -> Result<HashMap<String, LayerBlob>> {
    let Some(raw) = repository.manifest(tag)? else {
        return Ok(HashMap::new());
    };
    let manifest: Manifest = serde_json::from_slice(&raw.bytes)
        .map_err(|source| ClientError::json("previous manifest", source))?;
    if manifest.config.media_type != media_type::OCI_CONFIG {
        return Ok(HashMap::new());
    }
    let config: ImageConfig = serde_json::from_slice(&repository.blob(&manifest.config.digest)?)
        .map_err(|source| ClientError::json("previous image's config", source))?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Ok(HashMap::new());
    }
    let layers = manifest.layers.into_iter().zip(config.rootfs.diff_ids);
    Ok(layers
        .filter(|(layer, _)| layer.media_type == representation.media_type())
        .filter_map(|(layer, diff_id)| {
            let key = layer.annotations.get(LAYER_KEY_ANNOTATION)?.clone();
            let blob = LayerBlob {
                representation,
                digest: layer.digest,
                size: layer.size,
                diff_id,
                tar_size: 0,
            };
            Some((key, blob))
        })
        .collect())
}
