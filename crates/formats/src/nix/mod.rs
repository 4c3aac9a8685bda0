//! Nix: store paths, hashes, NARs, narinfos, signatures, derivations.

pub mod base32;
mod base64;
pub mod cache_info;
pub mod content_address;
pub mod derivation;
pub mod hash;
pub mod listing;
pub mod nar;
pub mod narinfo;
pub mod realisation;
pub mod rewrap;
pub mod signature;
pub mod store_path;

pub use cache_info::CacheInfo;
pub use content_address::ContentAddress;
pub use hash::Hash;
pub use narinfo::{Compression, NarInfo};
pub use signature::{PublicKey, SecretKey, Signature};
pub use store_path::{StorePath, StorePathHash};
