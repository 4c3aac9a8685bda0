//! Layers whose digests are known before they are read, by their keys. That saves work and is no more than
//! that: whatever cannot be read gives none, and a layer that is not there is made.

use super::RegistryPush;
use crate::{
    error::{ClientError, Result},
    registry::Repository,
};
use firn_formats::{
    nix::Signature,
    oci::{ImageConfig, Manifest, media_type},
};
use firn_image::{
    compose::{LAYER_KEY_ANNOTATION, LAYER_SIGNATURE_ANNOTATION, LayerBlob},
    encode::Representation,
};
use std::collections::HashMap;

/// A layer that the repository may have.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) blob: LayerBlob,
    /// Over the key and the blob, by whoever made the layer.
    pub(super) signature: Option<Signature>,
    /// The store told of it, and so knows where its frames lie.
    pub(super) is_stored: bool,
}

/// What is known of an image's layers.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// For each layer what the store says of it, or else the image that the tag points at now.
    pub(super) layers: Vec<Option<Known>>,
    /// Layers of which that image says something, with no signature that counts.
    pub(super) not_believed: u64,
}

/// Asks the store, then the image of the tag.
pub(super) fn candidates(
    push: &RegistryPush<'_>,
    tag: &str,
    representation: Representation,
) -> Result<Candidates> {
    let layers = &push.image.layers;
    let mut found: Vec<Option<Known>> = Vec::with_capacity(layers.len());
    let mut not_believed = 0;
    for layer in layers {
        found.push(match &push.beside {
            Some(beside) => beside.layer(&layer.key, representation)?,
            None => None,
        });
    }
    if found.iter().any(Option::is_none) {
        let previous = previous_layers(push.repository, tag, representation);
        for (layer, slot) in layers.iter().zip(&mut found) {
            let Some(known) = previous.get(&layer.key).filter(|_| slot.is_none()) else {
                continue;
            };
            // Keys in a manifest are anybody's who may push: what nobody trusted has signed is made and compared.
            let signature = known.signature.as_ref();
            match push.trust.believes(&layer.key, &known.blob, signature) {
                true => *slot = Some(known.clone()),
                false => not_believed += 1,
            }
        }
    }
    Ok(Candidates {
        layers: found,
        not_believed,
    })
}

/// The layers of the image that the tag points at now, by key. An image that cannot be read, or has no keys,
/// gives none.
fn previous_layers(
    repository: &Repository,
    tag: &str,
    representation: Representation,
) -> HashMap<String, Known> {
    read_previous(repository, tag, representation).unwrap_or_else(|error| {
        tracing::debug!(%error, "nothing is known of the previous image");
        HashMap::new()
    })
}

fn read_previous(
    repository: &Repository,
    tag: &str,
    representation: Representation,
) -> Result<HashMap<String, Known>> {
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
            let signature = layer.annotations.get(LAYER_SIGNATURE_ANNOTATION);
            let known = Known {
                signature: signature.and_then(|text| Signature::parse(text).ok()),
                blob: LayerBlob {
                    representation,
                    digest: layer.digest,
                    size: layer.size,
                    diff_id,
                    tar_size: 0,
                },
                is_stored: false,
            };
            Some((key, known))
        })
        .collect())
}
