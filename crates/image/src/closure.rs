//! A closure: store paths, what is known of them without reading them, and who refers to whom.

use firn_formats::{
    Sha256,
    nix::{Signature, StorePath},
};

/// One store path of a closure.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct PathInfo {
    pub path: StorePath,
    pub nar_hash: Sha256,
    pub nar_size: u64,
    /// Sorted; may include itself.
    pub references: Vec<StorePath>,
    pub deriver: Option<StorePath>,
    pub signatures: Vec<Signature>,
    pub ca: Option<String>,
}

/// A closed set of paths: every reference is in it. References come before referrers.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Closure {
    pub roots: Vec<StorePath>,
    pub paths: Vec<PathInfo>,
}
