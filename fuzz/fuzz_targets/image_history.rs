//! An image's history is written as one that is read the same.
#![no_main]

use firn_image::plan::History;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(history) = History::parse(bytes) {
        let written = history.to_json().unwrap();
        assert_eq!(History::parse(&written).unwrap(), history);
    }
});
