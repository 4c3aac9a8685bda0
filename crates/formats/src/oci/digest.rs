//! Digests: `sha256:<hex>` and `sha512:<hex>`.

use crate::Sha256;
use std::fmt;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: {0:?}")]
pub struct DigestError(pub String);

/// A digest of the algorithms registries use.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// Reads `algorithm:hex`, lower case only.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        todo!("{text}")
    }
    /// The digest, if SHA-256.
    pub fn as_sha256(&self) -> Option<Sha256> {
        todo!()
    }
    /// The digest of `bytes` by this digest's algorithm equals it.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        todo!("{}", bytes.len())
    }
}
impl From<Sha256> for Digest {
    fn from(value: Sha256) -> Self {
        Self::Sha256(value)
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!("{}", f.width().is_some())
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
// serde as the string form: implemented with the type.
impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
