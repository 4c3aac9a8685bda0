#![no_main]
//! A manifest that is taken is written as one that is taken again.

use firn_formats::oci::manifest::AnyManifest;
use firn_formats::oci::media_type;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
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
            .unwrap();
            assert_eq!(AnyManifest::parse(kind, &written).unwrap(), parsed);
        }
    }
});
