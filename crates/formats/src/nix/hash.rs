//! Hashes in every notation Nix uses: `sha256:` with base16, base32 or base64, and SRI.
//!
//! After a colon the digest's length tells its notation; after a dash (SRI) it
//! is base64. Written back it is `algo:base32`, as narinfos have it.

use std::fmt;

use super::{base32, base64};
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

impl Algorithm {
    /// Nix's word, such as `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// From Nix's word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Bytes of a digest.
    pub const fn digest_length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A hash with its algorithm. Displays as `algo:base32`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hash {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Hash {
    /// Reads `algo:base16|base32|base64` or SRI `algo-base64`.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        Self::parse_any(text).ok_or_else(|| HashError(base32::quoted(text)))
    }

    fn parse_any(text: &str) -> Option<Self> {
        // None of the algorithms' names has a colon or a dash: the first one separates.
        let separator = text.find([':', '-'])?;
        let (name, rest) = text.split_at(separator);
        let algorithm = Algorithm::from_name(name)?;
        let digest = match rest.strip_prefix(':') {
            Some(digest) => decode_by_length(digest, algorithm.digest_length())?,
            None => base64::decode_vec(rest.get(1..)?, algorithm.digest_length())?,
        };
        Some(Self { algorithm, digest })
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
        match self.algorithm {
            Algorithm::Sha256 => self.digest.as_slice().try_into().ok().map(Sha256),
            _ => None,
        }
    }
}

impl From<Sha256> for Hash {
    fn from(digest: Sha256) -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            digest: digest.0.to_vec(),
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.algorithm.name(),
            base32::encode(&self.digest)
        )
    }
}

/// The three notations differ in length for every algorithm.
fn decode_by_length(text: &str, length: usize) -> Option<Vec<u8>> {
    if text.len() == length * 2 {
        return decode_hex(text);
    }
    if text.len() == base32::encoded_length(length) {
        let mut digest = vec![0; length];
        return base32::decode_into(text, &mut digest).then_some(digest);
    }
    base64::decode_vec(text, length)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

impl Sha256 {
    /// `sha256:<base32>`, as narinfos write it.
    pub fn nix(&self) -> String {
        format!("sha256:{}", self.base32())
    }
    /// 52 characters of Nix base32, as NAR file names have it.
    pub fn base32(&self) -> String {
        base32::encode(&self.0)
    }
    /// SRI, `sha256-<base64>`.
    pub fn sri(&self) -> String {
        format!("sha256-{}", base64::encode(&self.0))
    }
    /// Reads any notation of a SHA-256 that [`Hash::parse`] knows.
    pub fn parse_nix(text: &str) -> Result<Self, HashError> {
        Hash::parse(text)?
            .as_sha256()
            .ok_or_else(|| HashError(base32::quoted(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_notation_is_the_same_hash() {
        let expected = Hash::from(Sha256::of(b""));
        for text in [
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ] {
            assert_eq!(Hash::parse(text), Ok(expected.clone()), "{text}");
        }
        assert_eq!(Sha256::of(b"").nix(), expected.to_string());
        assert_eq!(
            Sha256::of(b"").sri(),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }

    #[test]
    fn other_algorithms() {
        for (text, length) in [
            ("md5:d41d8cd98f00b204e9800998ecf8427e", 16),
            ("md5-1B2M2Y8AsgTpgAmY7PhCfg==", 16),
            ("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", 20),
            ("sha1:143xibwh31h9bvxzalr0sjvbbvpa6ffs", 20),
        ] {
            let hash = Hash::parse(text).unwrap();
            assert_eq!(hash.digest().len(), length, "{text}");
            assert_eq!(Hash::parse(&hash.to_string()), Ok(hash.clone()));
            assert_eq!(hash.as_sha256(), None);
            assert!(Sha256::parse_nix(text).is_err());
        }
        assert_eq!(
            Hash::parse("sha1:143xibwh31h9bvxzalr0sjvbbvpa6ffs"),
            Hash::parse("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709")
        );
    }

    #[test]
    fn refuses_malformed() {
        for text in [
            "",
            ":",
            "-",
            "sha256",
            "sha256:",
            "sha256-",
            "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha3:e3b0",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85g",
            "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256-0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73 ",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        ] {
            assert!(Hash::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>) {
            let digest = Sha256::of(&bytes);
            for text in [digest.nix(), digest.sri(), format!("sha256:{}", digest.hex())] {
                prop_assert_eq!(Sha256::parse_nix(&text), Ok(digest));
            }
        }

        #[test]
        fn never_panics(text in "(md5|sha1|sha256|sha512)?[:-]?\\PC{0,140}") {
            let _ = Hash::parse(&text);
        }
    }
}
