//! Digests: `sha256:<hex>` and `sha512:<hex>`, lower case, as the OCI image
//! specification registers them.

use crate::Sha256;
use crate::sha256::Sha256Hasher;
use std::fmt;

/// Longest part of a foreign text that an error repeats, in characters.
const QUOTED_CHARS_MAX: usize = 160;

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
        let parsed = match text.split_once(':') {
            Some(("sha256", hex)) => from_lower_hex(hex).map(|raw| Self::Sha256(Sha256(raw))),
            Some(("sha512", hex)) => from_lower_hex(hex).map(|raw| Self::Sha512(Box::new(raw))),
            _ => None,
        };
        parsed.ok_or_else(|| DigestError(text.chars().take(QUOTED_CHARS_MAX).collect()))
    }

    /// The digest, if SHA-256.
    pub fn as_sha256(&self) -> Option<Sha256> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Sha512(_) => None,
        }
    }

    /// The algorithm's registered name: `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The digest's bytes: 32 or 64.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(digest) => &digest.0,
            Self::Sha512(digest) => digest.as_slice(),
        }
    }

    /// The digest of `bytes` by this digest's algorithm equals it.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }

    /// A hasher of this digest's algorithm, to verify bytes that come in pieces.
    pub fn hasher(&self) -> DigestHasher {
        match self {
            Self::Sha256(_) => DigestHasher::Sha256(Sha256Hasher::new()),
            Self::Sha512(_) => DigestHasher::Sha512(Box::default()),
        }
    }
}

/// A digest under way.
#[derive(Clone)]
pub enum DigestHasher {
    /// SHA-256.
    Sha256(Sha256Hasher),
    /// SHA-512.
    Sha512(Box<sha2::Sha512>),
}

impl DigestHasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => sha2::Digest::update(hasher.as_mut(), bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finish()),
            Self::Sha512(hasher) => {
                Digest::Sha512(Box::new(sha2::Digest::finalize(*hasher).into()))
            }
        }
    }
}

fn from_lower_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let hex = hex.as_bytes();
    if hex.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

impl From<Sha256> for Digest {
    fn from(value: Sha256) -> Self {
        Self::Sha256(value)
    }
}

impl std::str::FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm())?;
        self.bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest such as sha256:<64 hexadecimal digits>")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                Digest::parse(text).map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // FIPS 180-2's vectors for "abc".
    const ABC_256: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn both_algorithms_match_their_vectors() {
        for text in [ABC_256, ABC_512] {
            let digest = Digest::parse(text).unwrap();
            assert_eq!(digest.to_string(), text);
            assert!(digest.matches(b"abc"));
            assert!(!digest.matches(b"abd"));
            let mut pieces = digest.hasher();
            pieces.update(b"a");
            pieces.update(b"bc");
            assert_eq!(pieces.finish(), digest);
        }
        assert_eq!(
            Digest::parse(ABC_256).unwrap().as_sha256(),
            Some(Sha256::of(b"abc"))
        );
        assert_eq!(Digest::parse(ABC_512).unwrap().as_sha256(), None);
    }

    #[test]
    fn everything_else_is_refused() {
        let upper = ABC_256.to_uppercase().replacen("SHA256", "sha256", 1);
        let long = format!("{ABC_256}0");
        let crossed = ABC_256.replacen("sha256", "sha512", 1);
        let multibyte = format!("sha256:{}", "é".repeat(32));
        for text in [
            "",
            ":",
            "sha256",
            "sha256:",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &ABC_256[..70],
            &ABC_256[7..],
            &ABC_256.replacen("sha256", "SHA256", 1),
            &upper,
            &long,
            &crossed,
            &multibyte,
        ] {
            assert!(Digest::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn errors_quote_a_bounded_part() {
        let error = Digest::parse(&"x".repeat(1 << 20)).unwrap_err();
        assert_eq!(error.0.len(), QUOTED_CHARS_MAX);
    }

    #[test]
    fn json_is_the_text_whatever_the_source() {
        let digest = Digest::parse(ABC_256).unwrap();
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{ABC_256}\""));
        // Borrowed, escaped, from a reader and from a tree: each visits another way.
        let escaped = json.replacen('s', "\\u0073", 1);
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert_eq!(serde_json::from_str::<Digest>(&escaped).unwrap(), digest);
        assert_eq!(
            serde_json::from_reader::<_, Digest>(json.as_bytes()).unwrap(),
            digest
        );
        assert_eq!(
            serde_json::from_value::<Digest>(serde_json::json!(ABC_256)).unwrap(),
            digest
        );
        assert!(serde_json::from_str::<Digest>("7").is_err());
        assert!(serde_json::from_str::<Digest>("null").is_err());
    }

    proptest! {
        #[test]
        fn any_digest_round_trips(raw in any::<[u8; 32]>(), wide in prop::collection::vec(any::<u8>(), 64)) {
            let wide: [u8; 64] = wide.try_into().unwrap();
            for digest in [Digest::Sha256(Sha256(raw)), Digest::Sha512(Box::new(wide))] {
                prop_assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
            }
        }

        #[test]
        fn no_text_panics_and_what_parses_prints_back(text in "(sha(256|512):)?[0-9a-fA-F]{0,130}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
