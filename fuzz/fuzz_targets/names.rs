//! Store paths, hashes, keys, signatures and names of realisations.
#![no_main]

use firn_formats::nix::{
    Hash, PublicKey, SecretKey, Signature, StorePath, realisation::RealisationName,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = StorePath::parse(text) {
        assert_eq!(path.absolute(), text);
    }
    if let Ok(path) = StorePath::parse_base_name(text) {
        assert_eq!(path.to_string(), text);
    }
    if let Ok(hash) = Hash::parse(text) {
        assert_eq!(Hash::parse(&hash.to_string()), Ok(hash));
    }
    if let Ok(signature) = Signature::parse(text) {
        assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
    }
    if let Ok(name) = RealisationName::parse(text) {
        assert_eq!(RealisationName::parse(&name.to_string()), Ok(name));
    }
    let _ = PublicKey::parse(text);
    let _ = SecretKey::parse(text);
});
