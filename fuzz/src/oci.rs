//! Documents and names of images.

use firn_formats::oci::manifest::AnyManifest;
use firn_formats::oci::{Digest, ImageConfig, Reference, media_type};

/// A manifest that is taken is written as one that is taken again.
pub(crate) fn manifest(input: &[u8]) {
    for kind in [
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST,
        media_type::DOCKER_MANIFEST_LIST,
    ] {
        if let Ok(parsed) = AnyManifest::parse(kind, input) {
            let written = match &parsed {
                AnyManifest::Manifest(manifest) => serde_json::to_vec(manifest),
                AnyManifest::Index(index) => serde_json::to_vec(index),
            }
            .expect("a manifest is JSON");
            let again = AnyManifest::parse(kind, &written).expect("its own JSON");
            assert_eq!(again, parsed);
        }
    }
}

/// A config that is read is written as one that reads the same.
pub(crate) fn image_config(input: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input) {
        let written = serde_json::to_vec(&config).expect("a config is JSON");
        let again: ImageConfig = serde_json::from_slice(&written).expect("its own JSON");
        assert_eq!(serde_json::to_vec(&again).expect("JSON again"), written);
    }
}

/// A reference or digest that is read prints as the text it was read from.
pub(crate) fn reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
}
