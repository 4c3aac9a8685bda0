//! Whose word counts on which blob a layer's key stands for.

use crate::{
    error::Result,
    storage::{signing_key, trusted_keys},
};
use firn_formats::nix::{PublicKey, SecretKey, Signature};
use firn_image::compose::{LayerBlob, layer_fingerprint};

/// Keys for the statements in manifests. Without any, everybody who may push is believed.
#[derive(Debug, Default)]
pub struct LayerTrust {
    signing: Option<SecretKey>,
    /// The own one among them.
    trusted: Vec<PublicKey>,
}

impl LayerTrust {
    /// Signs with `signing`, and believes it and `trusted`.
    pub fn new(signing: Option<SecretKey>, mut trusted: Vec<PublicKey>) -> Self {
        trusted.extend(signing.as_ref().map(SecretKey::public));
        Self { signing, trusted }
    }

    /// As `FIRN_SIGNING_KEY` and `FIRN_TRUSTED_KEYS` say.
    pub fn from_environment() -> Result<Self> {
        Ok(Self::new(signing_key()?, trusted_keys()?))
    }

    /// Whether somebody says that the layer `key` is this blob whose word counts.
    pub(super) fn believes(
        &self,
        key: &str,
        blob: &LayerBlob,
        signature: Option<&Signature>,
    ) -> bool {
        let signed = |signature| {
            let fingerprint = layer_fingerprint(key, blob);
            let mut trusted = self.trusted.iter();
            trusted.any(|trusted| trusted.verify(&fingerprint, signature))
        };
        self.trusted.is_empty() || signature.is_some_and(signed)
    }

    /// What this writer says of a layer that it has made itself.
    pub(super) fn sign(&self, key: &str, blob: &LayerBlob) -> Option<Signature> {
        let signing = self.signing.as_ref()?;
        Some(signing.sign(&layer_fingerprint(key, blob)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_formats::oci::Digest;
    use firn_image::encode::Representation;

    fn blob(digit: &str) -> LayerBlob {
        let digest = Digest::parse(&format!("sha256:{}", digit.repeat(64))).expect("a digest");
        LayerBlob {
            representation: Representation::Zstd,
            digest: digest.clone(),
            size: 1,
            diff_id: digest,
            tar_size: 0,
        }
    }

    #[test]
    fn only_a_trusted_keys_word_on_this_very_blob_counts() {
        let key = |name, seed| SecretKey::from_seed(name, [seed; 32]);
        let team = LayerTrust::new(Some(key("team-1", 1)), Vec::new());
        let stranger = LayerTrust::new(Some(key("team-1", 2)), Vec::new());
        let reader = LayerTrust::new(None, vec![key("team-1", 1).public()]);
        let anybody = LayerTrust::default();
        let signed = team.sign("k", &blob("a"));
        assert!(reader.believes("k", &blob("a"), signed.as_ref()));
        assert!(team.believes("k", &blob("a"), signed.as_ref()));
        assert!(!reader.believes("k", &blob("b"), signed.as_ref()));
        assert!(!reader.believes("other", &blob("a"), signed.as_ref()));
        assert!(!reader.believes("k", &blob("a"), None));
        let foreign = stranger.sign("k", &blob("a"));
        assert!(!reader.believes("k", &blob("a"), foreign.as_ref()));
        assert!(anybody.believes("k", &blob("a"), None));
        assert!(anybody.sign("k", &blob("a")).is_none());
    }
}
