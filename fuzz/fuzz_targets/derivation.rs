//! Whatever is accepted is written so that it reads the same.
#![no_main]

use firn_formats::nix::derivation::Derivation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(derivation) = Derivation::parse(bytes) {
        assert_eq!(Derivation::parse(&derivation.to_aterm()), Ok(derivation));
    }
});
