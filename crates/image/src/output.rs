//! Where an image goes that needs no network: an OCI layout folder or tar, a docker-archive;
//! and such images read back, made here or elsewhere.
//!
//! What is written depends on the image alone: names sorted, times and owners fixed. An OCI
//! layout and its tar carry layers as the spec compresses them. A docker-archive is an OCI
//! layout with a `manifest.json` beside it, which older readers use; they read no zstd, so
//! its layers are plain tars (nothing is gained by compressing what a local daemon unpacks
//! at once) unless the spec asks for gzip. Its config, and thereby the image id, is the same.
//! The layout of before Docker 25 is there too.

mod below;
mod build;
mod docker;
mod layout;
mod legacy;
mod read;
mod source;
mod tarball;

pub use layout::{DockerLayout, write_docker_archive, write_layout, write_oci_archive};
pub use read::read;
pub use source::{BlobReader, Document, Source, SourceImage};

use crate::{archive::ArchiveError, base::BaseError, compose::ComposeError};
use firn_formats::{
    oci::{Digest, digest::DigestError, manifest::ManifestError},
    tar::TarError,
};
use std::path::{Path, PathBuf};

/// Why an image cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OutputError {
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the image cannot be written")]
    Write(#[source] std::io::Error),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error("{0} is neither an OCI layout nor an archive of an image")]
    NotAnImage(PathBuf),
    #[error("the image lacks {0}")]
    Missing(String),
    #[error("the blob {0} does not have its digest")]
    WrongDigest(Digest),
    #[error("{name} is larger than {limit} bytes")]
    TooLarge { name: String, limit: usize },
    #[error("indexes are nested too deeply")]
    Nested,
    #[error("malformed archive")]
    Tar(#[from] TarError),
    #[error("malformed {name}")]
    Json {
        name: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl OutputError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
    fn json(name: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { name, source }
    }
}

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
const DOCKER_MANIFEST_FILE: &str = "manifest.json";
/// The tag, in an index; the specification's.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, in an index; containerd's and Docker's.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Where a layout keeps a blob.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replacen(':', "/", 1))
}
