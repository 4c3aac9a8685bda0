//! Whatever is accepted is written so that it reads the same.
#![no_main]

use firn_formats::nix::{CacheInfo, NarInfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = CacheInfo::parse(text);
    if let Ok(info) = NarInfo::parse(text) {
        assert_eq!(NarInfo::parse(&info.to_string()).as_ref(), Ok(&info));
        assert!(!info.fingerprint().contains('\n'));
    }
});
