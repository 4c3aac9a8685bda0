//! Nix's base32: alphabet `0123456789abcdfghijklmnpqrsvwxyz`, least significant digit last.
//!
//! The bytes are read as one little-endian number, so the last byte decides
//! the first character. A text has `ceil(bytes * 8 / 5)` characters.

const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// No digit.
const INVALID: u8 = 0xff;

/// The value of each byte as a digit, or [`INVALID`].
const DIGITS: [u8; 256] = {
    let mut digits = [INVALID; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        digits[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

/// Foreign text is quoted in errors up to this many characters.
const QUOTED_CHARS_MAX: usize = 96;

/// Why a text is not Nix base32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not Nix base32: {0:?}")]
pub struct Base32Error(pub String);

/// Characters that `bytes` bytes take.
pub const fn encoded_length(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Encodes bytes.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(encoded_length(bytes.len()));
    for position in (0..encoded_length(bytes.len())).rev() {
        let bit = position * 5;
        let (index, shift) = (bit / 8, bit % 8);
        let high = bytes.get(index + 1).copied().unwrap_or(0);
        let window = u16::from_le_bytes([bytes[index], high]) >> shift;
        out.push(char::from(ALPHABET[usize::from(window & 31)]));
    }
    out
}

/// Decodes exactly `N` bytes. One text decodes to given bytes: unused bits must be zero.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N], Base32Error> {
    let mut out = [0; N];
    if decode_into(text, &mut out) {
        Ok(out)
    } else {
        Err(Base32Error(quoted(text)))
    }
}

/// Fills `out` from `text`; false if the text is not the encoding of so many bytes.
pub(super) fn decode_into(text: &str, out: &mut [u8]) -> bool {
    if text.len() != encoded_length(out.len()) {
        return false;
    }
    out.fill(0);
    for (position, byte) in text.bytes().rev().enumerate() {
        let digit = DIGITS[usize::from(byte)];
        if digit == INVALID {
            return false;
        }
        let bit = position * 5;
        let (index, shift) = (bit / 8, bit % 8);
        let [low, high] = (u16::from(digit) << shift).to_le_bytes();
        out[index] |= low;
        match out.get_mut(index + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return false,
            None => {}
        }
    }
    true
}

/// As much of a foreign text as an error may hold.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_vectors() {
        // `nix-hash --type sha256 --to-base32` of the empty input's SHA-256.
        assert_eq!(
            encode(&crate::Sha256::of(b"").0),
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
        );
        assert_eq!(encode(&[0x1f]), "0z");
        assert_eq!(encode(&[]), "");
    }

    #[test]
    fn refuses_what_does_not_encode_back() {
        assert!(decode::<1>("0z").is_ok());
        assert!(decode::<1>("8z").is_err(), "bits beyond the last byte");
        assert!(decode::<1>("z").is_err());
        assert!(decode::<1>("00z").is_err());
        for letter in ["0e", "0o", "0t", "0u", "0A", "0é"] {
            assert!(decode::<1>(letter).is_err(), "{letter}");
        }
        assert!(decode::<20>(&"a".repeat(100_000)).unwrap_err().0.len() <= 96);
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 20], digest: [u8; 32]) {
            prop_assert_eq!(decode::<20>(&encode(&bytes)), Ok(bytes));
            prop_assert_eq!(decode::<32>(&encode(&digest)), Ok(digest));
        }

        #[test]
        fn any_accepted_text_is_canonical(text in "[0-9a-z]{52}") {
            if let Ok(bytes) = decode::<32>(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
