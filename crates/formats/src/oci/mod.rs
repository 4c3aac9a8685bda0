//! OCI and Docker: digests, references, descriptors, manifests, configs, the registry's error table.

pub mod config;
pub mod digest;
pub mod error;
pub mod manifest;
pub mod media_type;
pub mod reference;

pub use config::ImageConfig;
pub use digest::Digest;
pub use error::ErrorCode;
pub use manifest::{AnyManifest, Descriptor, Index, Manifest, Platform};
pub use reference::{Reference, RepositoryName, Tag};
