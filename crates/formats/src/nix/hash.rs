//! Hashes in every notation Nix uses: `sha256:` with base16, base32 or base64, and SRI.

use crate::Sha256;

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: {0:?}")]
pub struct HashError(pub String);

/// The algorithms Nix knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// A hash with its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hash {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Hash {
    /// Reads `algo:base16|base32|base64` or SRI `algo-base64`.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        todo!("{text}")
    }
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// The digest's bytes.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
    /// The digest, if it is a SHA-256.
    pub fn as_sha256(&self) -> Option<Sha256> {
        todo!()
    }
}

impl Sha256 {
    /// `sha256:<base32>`, as narinfos write it.
    pub fn nix(&self) -> String {
        todo!()
    }
    /// 52 characters of Nix base32, as NAR file names have it.
    pub fn base32(&self) -> String {
        todo!()
    }
    /// SRI, `sha256-<base64>`.
    pub fn sri(&self) -> String {
        todo!()
    }
    /// Reads any notation of a SHA-256 that [`Hash::parse`] knows.
    pub fn parse_nix(text: &str) -> Result<Self, HashError> {
        todo!("{text}")
    }
}
