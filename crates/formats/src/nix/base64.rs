//! Base64 as Nix reads it: standard alphabet, padding optional.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Encodes with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

/// Decodes exactly `N` bytes.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode_vec(text, N)?.try_into().ok()
}

/// Decodes exactly `length` bytes.
pub(super) fn decode_vec(text: &str, length: usize) -> Option<Vec<u8>> {
    // The size is checked first, so that a long text is not decoded for nothing.
    if text.len() > length.div_ceil(3) * 4 {
        return None;
    }
    ENGINE
        .decode(text)
        .ok()
        .filter(|bytes| bytes.len() == length)
}
