#![no_main]
//! How a server says that a NAR is stored: no bytes panic, and what is read is what is written.

use firn_formats::pull::NarLayout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(layout) = NarLayout::decode(bytes) {
        assert_eq!(layout.encode(), bytes);
    }
});
