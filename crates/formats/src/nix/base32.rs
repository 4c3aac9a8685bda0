//! Nix's base32: alphabet `0123456789abcdfghijklmnpqrsvwxyz`, least significant digit last.

/// Why a text is not Nix base32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not Nix base32: {0:?}")]
pub struct Base32Error(pub String);

/// Encodes bytes.
pub fn encode(bytes: &[u8]) -> String {
    todo!("{bytes:?}")
}

/// Decodes exactly `N` bytes.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N], Base32Error> {
    todo!("{text}")
}
