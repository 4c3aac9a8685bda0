//! ed25519 keys and signatures as Nix writes them: `<name>:<base64>`.
//!
//! A secret key is libsodium's 64 bytes: the seed, then the public key. The
//! name is what stands before the first colon; since signatures become lines of
//! narinfos, names with white space or control characters are refused.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use super::base64;

/// Why a text is not a key or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SignatureError {
    /// The text is malformed; secrets are never quoted.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// A signature with the name of its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// The key's name, such as `cache.nixos.org-1`.
    pub key_name: String,
    /// The ed25519 signature.
    pub bytes: [u8; 64],
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    /// The key's name.
    pub name: String,
    /// The ed25519 public key.
    pub bytes: [u8; 32],
}

/// A key that signs. Its `Debug` never shows the secret.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// A key from 32 random bytes, which the caller draws.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            key: SigningKey::from_bytes(&seed),
        }
    }
    /// Reads Nix's form `<name>:<base64 of 64 bytes>`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        const WHAT: &str = "secret key";
        // Key files may end in a newline.
        let (name, bytes) = split::<64>(text.trim_ascii_end(), WHAT)?;
        let key =
            SigningKey::from_keypair_bytes(&bytes).map_err(|_| SignatureError::Malformed(WHAT))?;
        Ok(Self { name, key })
    }
    /// Nix's form; a secret.
    pub fn to_secret_string(&self) -> String {
        let bytes = self.key.to_keypair_bytes();
        format!("{}:{}", self.name, base64::encode(&bytes))
    }
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            bytes: self.key.verifying_key().to_bytes(),
        }
    }
    /// Signs a fingerprint.
    pub fn sign(&self, fingerprint: &str) -> Signature {
        Signature {
            key_name: self.name.clone(),
            bytes: self.key.sign(fingerprint.as_bytes()).to_bytes(),
        }
    }
}

impl PublicKey {
    /// Reads `<name>:<base64 of 32 bytes>`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = split(text.trim_ascii_end(), "public key")?;
        Ok(Self { name, bytes })
    }
    /// Whether `signature` is this key's over `fingerprint`. Keys of small
    /// order, for which anything can be signed, never verify.
    pub fn verify(&self, fingerprint: &str, signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.bytes) else {
            return false;
        };
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        signature.key_name == self.name && key.verify_strict(fingerprint.as_bytes(), &bytes).is_ok()
    }
}
impl Signature {
    /// Reads `<name>:<base64 of 64 bytes>`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let (key_name, bytes) = split(text, "signature")?;
        Ok(Self { key_name, bytes })
    }
}
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_name, base64::encode(&self.bytes))
    }
}
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, base64::encode(&self.bytes))
    }
}
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// Whether `name` can name a key: it becomes part of lines and of comma-less lists.
pub fn is_valid_key_name(name: &str) -> bool {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == ':';
    (1..=KEY_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(forbidden)
}

fn split<const N: usize>(
    text: &str,
    what: &'static str,
) -> Result<(String, [u8; N]), SignatureError> {
    let malformed = SignatureError::Malformed(what);
    let (name, encoded) = text.split_once(':').ok_or(malformed.clone())?;
    if !is_valid_key_name(name) {
        return Err(malformed);
    }
    let bytes = base64::decode(encoded).ok_or(malformed)?;
    Ok((name.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::NarInfo;
    use proptest::prelude::*;

    // Made by `nix-store --generate-binary-cache-key` and `nix copy`.
    const SECRET: &str = include_str!("../../tests/vectors/test-key-1.secret");
    const PUBLIC: &str = include_str!("../../tests/vectors/test-key-1.public");
    const NARINFO: &str = include_str!("../../tests/vectors/libhwy.narinfo");

    #[test]
    fn signs_as_nix_does() {
        let secret = SecretKey::parse(SECRET).unwrap();
        let public = PublicKey::parse(PUBLIC).unwrap();
        assert_eq!(secret.to_secret_string(), SECRET);
        assert_eq!(public.to_string(), PUBLIC);
        assert_eq!(secret.public(), public);
        let narinfo = NarInfo::parse(NARINFO).unwrap();
        assert_eq!(
            [secret.sign(&narinfo.fingerprint())].as_slice(),
            narinfo.signatures.as_slice()
        );
        assert!(public.verify(&narinfo.fingerprint(), &narinfo.signatures[0]));
    }

    #[test]
    fn verifies_nothing_else() {
        let secret = SecretKey::parse(SECRET).unwrap();
        let public = secret.public();
        let signature = secret.sign("text");
        assert!(!public.verify("other text", &signature));
        let mut renamed = signature.clone();
        renamed.key_name = "test-key-2".into();
        assert!(!public.verify("text", &renamed));
        let mut changed = signature.clone();
        changed.bytes[0] ^= 1;
        assert!(!public.verify("text", &changed));
        // The neutral element: with it as the key, a zero signature would fit any text.
        let mut bytes = [0; 32];
        bytes[0] = 1;
        let neutral = PublicKey {
            name: public.name,
            bytes,
        };
        let mut forged = signature;
        forged.bytes = [0; 64];
        forged.bytes[0] = 1;
        assert!(!neutral.verify("text", &forged));
    }

    #[test]
    fn refuses_malformed() {
        let encoded = Signature::parse(&format!("k:{}", base64::encode(&[7; 64])));
        assert!(encoded.is_ok());
        for name in ["", "a b", "a\n", "a\u{a0}", &"k".repeat(256)] {
            let text = format!("{name}:{}", base64::encode(&[7; 64]));
            assert!(Signature::parse(&text).is_err(), "{name:?}");
        }
        for text in ["", "k", "k:", "k:AAAA", "k:!", "k::AAAA"] {
            assert!(Signature::parse(text).is_err());
            assert!(PublicKey::parse(text).is_err());
            assert!(SecretKey::parse(text).is_err());
        }
        let seed_only = format!("k:{}", base64::encode(&[7; 32]));
        assert!(SecretKey::parse(&seed_only).is_err());
        let wrong_half = format!("k:{}", base64::encode(&[7; 64]));
        assert!(SecretKey::parse(&wrong_half).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", SecretKey::parse(SECRET).unwrap());
        assert!(shown.contains("test-key-1"));
        assert_eq!(shown.len(), "SecretKey { name: \"test-key-1\", .. }".len());
    }

    proptest! {
        #[test]
        fn round_trip(seed: [u8; 32], text: String) {
            let key = SecretKey::from_seed("k-1", seed);
            let again = SecretKey::parse(&format!("{}\n", key.to_secret_string())).unwrap();
            let signature = again.sign(&text);
            prop_assert!(key.public().verify(&text, &signature));
            prop_assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
        }
    }
}
