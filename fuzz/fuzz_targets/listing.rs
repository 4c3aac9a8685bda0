//! Whatever is accepted is written so that it reads the same.
#![no_main]

use firn_formats::nix::listing::Listing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(listing) = Listing::parse(bytes) {
        let json = listing.to_json().expect("a listing is JSON");
        assert_eq!(Listing::parse(&json).expect("its own JSON"), listing);
    }
});
