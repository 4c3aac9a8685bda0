#![no_main]
//! Bodies of the push protocol: no bytes panic, and what is read can be written.

use firn_formats::push::{
    decode_answers, decode_frames, decode_proposals, encode_answers, encode_frame,
    encode_proposals,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(proposals) = decode_proposals(body) {
        assert_eq!(encode_proposals(&proposals), body);
    }
    if let Ok(answers) = decode_answers(body) {
        // Unused bits of a bitmap are free, so only the meaning must hold.
        assert_eq!(decode_answers(&encode_answers(&answers)).unwrap(), answers);
    }
    if let Ok(frames) = decode_frames(body) {
        let mut written = Vec::new();
        for (id, range) in frames {
            encode_frame(&id, &body[range], &mut written);
        }
        assert_eq!(written, body);
    }
});
