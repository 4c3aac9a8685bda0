//! narinfo: what a binary cache says of one store path.

use super::{Hash, Signature, StorePath};
use crate::Sha256;

/// Longest narinfo read, in bytes.
pub const NARINFO_BYTES_MAX: usize = 1 << 20;

/// Why a text is not a narinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed narinfo: line {line}: {what}")]
pub struct NarInfoError {
    /// Line number, from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// How a NAR is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Xz,
    Bzip2,
    Gzip,
    Zstd,
    Brotli,
    Lz4,
}

impl Compression {
    /// The file ending, `""` or with its dot (`.zst`).
    pub fn ending(self) -> &'static str {
        todo!()
    }
    /// The narinfo's word.
    pub fn name(self) -> &'static str {
        todo!()
    }
    /// From the narinfo's word.
    pub fn from_name(name: &str) -> Option<Self> {
        todo!("{name}")
    }
    /// From a file name such as `<hash>.nar.zst`; `None` unless it ends in `.nar` or `.nar.<known>`.
    pub fn from_nar_file_name(name: &str) -> Option<Self> {
        todo!("{name}")
    }
}

/// A parsed narinfo. `Display` writes it in Nix's order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NarInfo {
    pub store_path: StorePath,
    pub url: String,
    pub compression: Compression,
    pub file_hash: Option<Hash>,
    pub file_size: Option<u64>,
    pub nar_hash: Sha256,
    pub nar_size: u64,
    pub references: Vec<StorePath>,
    pub deriver: Option<StorePath>,
    pub signatures: Vec<Signature>,
    pub ca: Option<String>,
}

impl NarInfo {
    /// Parses; control characters and unsound values are refused.
    pub fn parse(text: &str) -> Result<Self, NarInfoError> {
        todo!("{text}")
    }
    /// What signatures are over.
    pub fn fingerprint(&self) -> String {
        fingerprint(
            &self.store_path,
            &self.nar_hash,
            self.nar_size,
            &self.references,
        )
    }
}

/// `1;<path>;sha256:<base32>;<size>;<sorted full reference paths, comma-joined>`.
pub fn fingerprint(
    path: &StorePath,
    nar_hash: &Sha256,
    nar_size: u64,
    references: &[StorePath],
) -> String {
    todo!("{path} {nar_hash:?} {nar_size} {references:?}")
}

impl std::fmt::Display for NarInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!("{}", f.alternate())
    }
}
