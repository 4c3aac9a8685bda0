//! Signed URLs of the Actions cache: whoever has one needs no token, for one method on one entry.

use super::{TOKEN_BYTES_MAX, Tokens, now};
use crate::{ServiceError, sync};
use jsonwebtoken::DecodingKey;

/// What a signed URL of the Actions cache is good for. No token has these claims, and no URL those of a token.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UrlClaims {
    /// The method: `get` or `put`.
    pub method: String,
    /// The row of the cache.
    pub cache: i64,
    /// The entry or the upload.
    pub entry: String,
    /// Bytes: of the entry, or at most of the upload.
    pub size: u64,
    /// Seconds since 1970.
    pub exp: u64,
    /// The look-up that a download follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<u64>,
}

impl Tokens {
    /// The signature of a URL: its claims, signed.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn sign_url(&self, claims: &UrlClaims) -> Result<String, ServiceError> {
        self.sign(claims)
    }

    /// The claims of a signed URL, if one of the keys signed them and they are good still.
    pub fn verify_url(&self, signature: &str) -> Option<UrlClaims> {
        if signature.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let now = now();
        let keys = sync::read(&self.keys);
        let found = keys.iter().rev().find_map(|key| {
            let decoding = DecodingKey::from_secret(&key.secret);
            let decoded = jsonwebtoken::decode::<UrlClaims>(signature, &decoding, &self.validation);
            Some((decoded.ok()?.claims, key.is_over(now)))
        });
        let (claims, over) = found?;
        (!over && claims.exp > now).then_some(claims)
    }
}
