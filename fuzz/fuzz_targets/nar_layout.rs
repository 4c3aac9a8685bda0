#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| firn_fuzz::run("nar_layout", input));
