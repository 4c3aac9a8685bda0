//! Store paths: `/nix/store/<32 characters of base32>-<name>`.

use std::fmt;

/// The one store directory Firn serves.
pub const STORE_DIR: &str = "/nix/store";

/// Why a text is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a store path: {0:?}")]
pub struct StorePathError(pub String);

/// The hash part of a store path: 20 bytes, 32 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePathHash(pub [u8; 20]);

/// A store path: hash and name. Displays as `<hash>-<name>` (the base name).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath {
    hash: StorePathHash,
    name: String,
}

impl StorePathHash {
    /// Reads 32 characters.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        todo!("{text}")
    }
}

impl fmt::Display for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!("{}", f.alternate())
    }
}
impl fmt::Debug for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StorePath {
    /// Reads a base name, `<hash>-<name>`.
    pub fn parse_base_name(text: &str) -> Result<Self, StorePathError> {
        todo!("{text}")
    }
    /// Reads `/nix/store/<hash>-<name>`, nothing below it.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        todo!("{text}")
    }
    /// The hash part.
    pub fn hash(&self) -> StorePathHash {
        self.hash
    }
    /// The name part.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// `/nix/store/<hash>-<name>`.
    pub fn absolute(&self) -> String {
        format!("{STORE_DIR}/{self}")
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.name)
    }
}
impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
