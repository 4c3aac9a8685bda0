//! What a writer's key says of a layer: that its key belongs to this blob. A layer's key says what is in it and is
//! known before anything is read, so whoever takes a blob by its key takes the word of the one who named it.
//!
//! Signed is the text `firn-layer-1;<layer key>;<media type>;<digest>;<size>;<diff_id>`, whose beginning keeps it
//! apart from the other things that a key of Nix signs.

use super::LayerBlob;

/// The annotation of a layer's descriptor that holds the signature, `name:base64`.
pub const LAYER_SIGNATURE_ANNOTATION: &str = "dev.firn.layer.signature";

/// The text that is signed.
pub fn layer_fingerprint(key: &str, blob: &LayerBlob) -> String {
    format!(
        "firn-layer-1;{key};{};{};{};{}",
        blob.representation.media_type(),
        blob.digest,
        blob.size,
        blob.diff_id
    )
}
