#![no_main]
//! A config that is read is written as one that reads the same.

use firn_formats::oci::ImageConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input) {
        let written = serde_json::to_vec(&config).unwrap();
        let again: ImageConfig = serde_json::from_slice(&written).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    }
});
