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
