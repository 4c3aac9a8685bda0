#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| firn_fuzz::run("layer", input));
