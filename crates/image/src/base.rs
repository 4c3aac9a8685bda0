//! An image below ours: its layers as they are, its config to inherit, its directories to link into.

mod inherit;
mod tree;

pub use inherit::inherited;
pub use tree::{BaseNode, BaseTree};

use firn_formats::oci::{
    AnyManifest, Descriptor, Digest, ImageConfig, Manifest, Platform, manifest::ManifestError,
    media_type,
};
use std::{
    io::{self, Read},
    sync::Arc,
};

/// Where the blobs of an image can be read.
pub trait BlobSource: std::fmt::Debug + Send + Sync {
    /// Opens a blob. Its bytes are not checked: whoever takes them does.
    fn open_blob(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>>;
}

/// A layer of a base image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BaseLayer {
    /// In OCI's words; without urls.
    pub descriptor: Descriptor,
    /// Digest of the tar.
    pub diff_id: Digest,
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Origin {
    /// `HOST[:PORT]`.
    pub registry: String,
    pub repository: String,
}

/// An image to build upon.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct BaseImage {
    /// As the user wrote it.
    pub name: String,
    /// Lowest first.
    pub layers: Vec<BaseLayer>,
    pub config: ImageConfig,
    pub source: Arc<dyn BlobSource>,
    /// Where its blobs can be mounted from.
    pub origin: Option<Origin>,
    /// What lies in it; needed where something is put at the root.
    pub tree: Option<Arc<BaseTree>>,
}

/// Why an image cannot be built upon.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BaseError {
    #[error("the base image {name} is not for {platform}: {found}")]
    Platform {
        name: String,
        platform: String,
        found: String,
    },
    #[error("the base image {name}: {what}")]
    Unsound { name: String, what: String },
    #[error("the base image {name} has a malformed {what}")]
    Json {
        name: String,
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the base image {name} has a malformed manifest")]
    Manifest {
        name: String,
        #[source]
        source: ManifestError,
    },
    #[error("the layer {digest} of the base image cannot be read")]
    Layer {
        digest: Digest,
        #[source]
        source: io::Error,
    },
    #[error("the layer {digest} of the base image is no tar")]
    Tar {
        digest: Digest,
        #[source]
        source: firn_formats::tar::TarError,
    },
    #[error(
        "the base image {name} has {layers} layers, and one more is needed: the limit is {limit}"
    )]
    TooManyLayers {
        name: String,
        layers: usize,
        limit: usize,
    },
}

/// A manifest or an index of a base image, read.
#[derive(Debug)]
pub enum Chosen {
    /// An image.
    Image(Box<Manifest>),
    /// What to read next: the index's manifest for the platform.
    Other(Box<Descriptor>),
}

/// Reads a document of a base image.
pub fn choose(
    name: &str,
    media_type: &str,
    bytes: &[u8],
    platform: &Platform,
) -> Result<Chosen, BaseError> {
    let parsed = AnyManifest::parse(media_type, bytes).map_err(|source| BaseError::Manifest {
        name: name.to_owned(),
        source,
    })?;
    match parsed {
        AnyManifest::Manifest(manifest) => Ok(Chosen::Image(manifest)),
        AnyManifest::Index(index) => {
            let offered = index.manifests;
            let fits = |entry: &&Descriptor| {
                let offered = entry.platform.as_ref();
                offered.is_none_or(|offered| runs_on(offered, platform))
            };
            // What names its platform goes before what names none.
            let named = offered
                .iter()
                .filter(fits)
                .find(|entry| entry.platform.is_some());
            let found = named.or_else(|| offered.iter().find(fits)).cloned();
            found.map(Box::new).map(Chosen::Other).ok_or_else(|| {
                let platforms = offered.iter().filter_map(|entry| entry.platform.as_ref());
                wrong_platform(name, platform, platforms.map(text_of).collect())
            })
        }
    }
}

fn wrong_platform(name: &str, platform: &Platform, found: Vec<String>) -> BaseError {
    BaseError::Platform {
        name: name.to_owned(),
        platform: text_of(platform),
        found: format!("it is for {}", found.join(", ")),
    }
}

/// `os/architecture/variant`.
pub fn text_of(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = &platform.variant {
        text.push('/');
        text.push_str(variant);
    }
    text
}

/// A variant that is not asked for may be any; arm64 has `v8` whether it is said or not.
fn runs_on(offered: &Platform, wanted: &Platform) -> bool {
    let variant = wanted.variant.as_deref();
    let implied = |variant: &str| offered.architecture == "arm64" && variant == "v8";
    offered.os == wanted.os
        && offered.architecture == wanted.architecture
        && variant.is_none_or(|wanted| match offered.variant.as_deref() {
            Some(offered) => offered == wanted,
            None => implied(wanted),
        })
}

impl BaseImage {
    /// An image of this manifest and config.
    pub fn new(
        name: &str,
        manifest: &Manifest,
        config: &[u8],
        platform: &Platform,
        source: Arc<dyn BlobSource>,
    ) -> Result<Self, BaseError> {
        let unsound = |what: String| BaseError::Unsound {
            name: name.to_owned(),
            what,
        };
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(|source| BaseError::Json {
                name: name.to_owned(),
                what: "config",
                source,
            })?;
        let own = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: config.variant.clone(),
            ..Platform::default()
        };
        if !runs_on(&own, platform) {
            return Err(wrong_platform(name, platform, vec![text_of(&own)]));
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(unsound(format!(
                "its manifest has {} layers, its config {}",
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        let layers = manifest.layers.iter().zip(diff_ids);
        let layers = layers
            .map(|(layer, diff_id)| {
                Ok(BaseLayer {
                    descriptor: in_oci_words(layer).map_err(unsound)?,
                    diff_id: diff_id.clone(),
                })
            })
            .collect::<Result<_, BaseError>>()?;
        Ok(Self {
            name: name.to_owned(),
            layers,
            config,
            source,
            origin: None,
            tree: None,
        })
    }

    /// Reads which directories and links the layers make.
    pub fn with_tree(self) -> Result<Self, BaseError> {
        let tree = BaseTree::read(&self)?;
        Ok(Self {
            tree: Some(Arc::new(tree)),
            ..self
        })
    }
}

/// What Docker calls a layer that is not compressed.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A layer's descriptor under OCI's media type: Docker's layers are the same bytes by another name.
fn in_oci_words(layer: &Descriptor) -> Result<Descriptor, String> {
    if !layer.urls.is_empty() {
        return Err(format!("its layer {} lies in no registry", layer.digest));
    }
    let media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP | media_type::OCI_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        media_type::OCI_LAYER | DOCKER_LAYER => media_type::OCI_LAYER,
        other => return Err(format!("its layer {} is of type {other:?}", layer.digest)),
    };
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: layer.digest.clone(),
        size: layer.size,
        urls: Vec::new(),
        annotations: layer.annotations.clone(),
        artifact_type: None,
        platform: None,
        data: None,
    })
}
