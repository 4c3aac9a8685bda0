//! Derivations (`.drv`) in ATerm form.

use std::collections::{BTreeMap, BTreeSet};

/// Why bytes are not a derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed derivation at byte {offset}: {what}")]
pub struct DerivationError {
    /// Offset of the fault.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Output {
    pub path: String,
    pub hash_algorithm: String,
    pub hash: String,
}

/// A derivation. Strings are bytes in Nix; those that are not UTF-8 are refused here only where a path is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Derivation {
    pub outputs: BTreeMap<String, Output>,
    pub input_derivations: BTreeMap<String, BTreeSet<String>>,
    pub input_sources: BTreeSet<String>,
    pub system: Vec<u8>,
    pub builder: Vec<u8>,
    pub arguments: Vec<Vec<u8>>,
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Derivation {
    /// Parses `Derive(...)`.
    pub fn parse(bytes: &[u8]) -> Result<Self, DerivationError> {
        todo!("{}", bytes.len())
    }
    /// Writes it back, byte for byte as Nix does.
    pub fn to_aterm(&self) -> Vec<u8> {
        todo!()
    }
}
