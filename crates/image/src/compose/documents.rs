//! Config and manifest, byte for byte.

use super::{PlannedImage, PlannedLayer, signature::LAYER_SIGNATURE_ANNOTATION};
use crate::{
    base::{BaseImage, inherited},
    encode::Representation,
};
use firn_formats::{
    Sha256,
    nix::Signature,
    oci::{
        Descriptor, Digest, ImageConfig, Manifest,
        config::{Config, History, RootFs},
        digest::DigestError,
        media_type,
    },
    push::LayerDescriptor,
};
use serde_json::Value;
use std::{collections::BTreeMap, iter::repeat};

/// The annotation of a layer's descriptor that holds its key.
pub const LAYER_KEY_ANNOTATION: &str = "dev.firn.layer.key";

/// Why an image cannot be put together.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ComposeError {
    #[error("the image has {planned} layers, {given} were given")]
    LayerCount { planned: usize, given: usize },
    #[error("a layer's descriptor has no digest")]
    Digest(#[from] DigestError),
    #[error("the layer {digest} has no gzip form")]
    NoGzip { digest: String },
    #[error("the image's documents cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// A layer as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LayerBlob {
    pub representation: Representation,
    /// Of the blob, in this representation.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub tar_size: u64,
}

impl LayerBlob {
    /// What a server's descriptor says of one representation.
    pub fn of(
        descriptor: &LayerDescriptor,
        representation: Representation,
    ) -> Result<Self, ComposeError> {
        let diff_id = Digest::parse(&descriptor.diff_id)?;
        let (digest, size) = match representation {
            Representation::Zstd => (Digest::parse(&descriptor.digest)?, descriptor.size),
            Representation::Tar => (diff_id.clone(), descriptor.tar_size),
            Representation::Gzip => match &descriptor.gzip {
                Some(gzip) => (Digest::parse(&gzip.digest)?, gzip.size),
                None => {
                    return Err(ComposeError::NoGzip {
                        digest: descriptor.digest.clone(),
                    });
                }
            },
        };
        Ok(Self {
            representation,
            digest,
            size,
            diff_id,
            tar_size: descriptor.tar_size,
        })
    }
}

/// The documents of an image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AssembledImage {
    pub config: Vec<u8>,
    pub config_digest: Sha256,
    pub manifest: Vec<u8>,
    pub manifest_digest: Sha256,
    pub manifest_media_type: &'static str,
}

pub(super) fn assemble(
    image: &PlannedImage,
    layers: &[LayerBlob],
    signatures: &[Option<Signature>],
) -> Result<AssembledImage, ComposeError> {
    if layers.len() != image.layers.len() {
        return Err(ComposeError::LayerCount {
            planned: image.layers.len(),
            given: layers.len(),
        });
    }
    let config = serde_json::to_vec(&image_config(image, layers))?;
    let config_digest = Sha256::of(&config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: descriptor(
            media_type::OCI_CONFIG,
            config_digest.into(),
            config.len() as u64,
        ),
        layers: layer_descriptors(image, layers, signatures),
        subject: None,
        annotations: image.spec.annotations.clone(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    Ok(AssembledImage {
        config,
        config_digest,
        manifest_digest: Sha256::of(&manifest),
        manifest,
        manifest_media_type: media_type::OCI_MANIFEST,
    })
}

/// The base's layers, then ours.
fn layer_descriptors(
    image: &PlannedImage,
    layers: &[LayerBlob],
    signatures: &[Option<Signature>],
) -> Vec<Descriptor> {
    let below = image.base_layers().iter();
    let signatures = signatures.iter().map(Option::as_ref).chain(repeat(None));
    let own = image.layers.iter().zip(layers).zip(signatures);
    below
        .map(|layer| layer.descriptor.clone())
        .chain(own.map(|((planned, blob), signature)| layer_descriptor(planned, blob, signature)))
        .collect()
}

pub(super) fn image_config(image: &PlannedImage, layers: &[LayerBlob]) -> ImageConfig {
    let spec = &image.spec;
    let config = match &spec.base {
        Some(base) => inherited(base, &spec.config),
        None => spec.config.clone(),
    };
    let config = Config {
        extra: without_nulls(&config.extra),
        ..config
    };
    let below = image.base_layers().iter();
    let own = image.layers.iter().map(|layer| history(image, layer));
    ImageConfig {
        created: Some(spec.created.clone()),
        architecture: spec.architecture.clone(),
        variant: spec.variant.clone(),
        os: spec.os.clone(),
        config,
        rootfs: RootFs {
            diff_ids: below
                .map(|layer| layer.diff_id.clone())
                .chain(layers.iter().map(|blob| blob.diff_id.clone()))
                .collect(),
            ..RootFs::default()
        },
        history: base_history(image).into_iter().chain(own).collect(),
        ..spec.base.as_ref().map(of_base).unwrap_or_default()
    }
}

/// What only the base says.
fn of_base(base: &BaseImage) -> ImageConfig {
    ImageConfig {
        os_version: base.config.os_version.clone(),
        os_features: base.config.os_features.clone(),
        ..ImageConfig::default()
    }
}

/// The base's history. There is one entry for each layer, or readers take one for another's.
fn base_history(image: &PlannedImage) -> Vec<History> {
    let Some(base) = &image.spec.base else {
        return Vec::new();
    };
    let told = &base.config.history;
    let filled = told.iter().filter(|entry| entry.empty_layer != Some(true));
    if filled.count() == base.layers.len() {
        return told.clone();
    }
    let entry = History {
        created: Some(image.spec.created.clone()),
        comment: Some("layer of the base image".to_owned()),
        ..History::default()
    };
    vec![entry; base.layers.len()]
}

fn history(image: &PlannedImage, layer: &PlannedLayer) -> History {
    let comment = match layer.paths.len() {
        0 => "links, users and temporary directories".to_owned(),
        1 => "1 store path".to_owned(),
        count => format!("{count} store paths"),
    };
    History {
        created: Some(image.spec.created.clone()),
        created_by: Some(layer.comment.clone()),
        comment: Some(comment),
        ..History::default()
    }
}

fn layer_descriptor(
    planned: &PlannedLayer,
    blob: &LayerBlob,
    signature: Option<&Signature>,
) -> Descriptor {
    let mut descriptor = descriptor(
        blob.representation.media_type(),
        blob.digest.clone(),
        blob.size,
    );
    let annotations = &mut descriptor.annotations;
    annotations.insert(LAYER_KEY_ANNOTATION.to_owned(), planned.key.clone());
    if let Some(signature) = signature {
        annotations.insert(LAYER_SIGNATURE_ANNOTATION.to_owned(), signature.to_string());
    }
    descriptor
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        artifact_type: None,
        platform: None,
        data: None,
    }
}

/// Some readers of configs stumble over null, so fields without a value are left out.
fn without_nulls(fields: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
