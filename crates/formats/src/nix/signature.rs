//! ed25519 keys and signatures as Nix writes them: `<name>:<base64>`.

use std::fmt;

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
    key: ed25519_dalek::SigningKey,
}

impl SecretKey {
    /// A key from 32 random bytes, which the caller draws.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            key: ed25519_dalek::SigningKey::from_bytes(&seed),
        }
    }
    /// Reads Nix's form `<name>:<base64 of 64 bytes>`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        todo!("{}", text.len())
    }
    /// Nix's form; a secret.
    pub fn to_secret_string(&self) -> String {
        todo!("{:?}", self.key)
    }
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The public half.
    pub fn public(&self) -> PublicKey {
        todo!()
    }
    /// Signs a fingerprint.
    pub fn sign(&self, fingerprint: &str) -> Signature {
        todo!("{fingerprint}")
    }
}

impl PublicKey {
    /// Reads `<name>:<base64 of 32 bytes>`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        todo!("{text}")
    }
    /// Whether `signature` is this key's over `fingerprint`.
    pub fn verify(&self, fingerprint: &str, signature: &Signature) -> bool {
        todo!("{fingerprint} {signature:?}")
    }
}
impl Signature {
    /// Reads `<name>:<base64 of 64 bytes>`.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        todo!("{text}")
    }
}
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!("{}", f.alternate())
    }
}
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!("{}", f.alternate())
    }
}
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
