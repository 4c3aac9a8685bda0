//! Bodies of the push and pull protocols and of the administration.

use firn_formats::admin::{CacheCreate, StatusQuery, TokenCreate};
use firn_formats::pull::NarLayout;
use firn_formats::push::{
    Begin, Publish, decode_answers, decode_frames, decode_proposals, encode_answers, encode_frame,
    encode_proposals,
};

/// The binary ones: what is read can be written, byte for byte.
pub(crate) fn wire(body: &[u8]) {
    if let Ok(proposals) = decode_proposals(body) {
        assert_eq!(encode_proposals(&proposals), body);
    }
    if let Ok(answers) = decode_answers(body) {
        // Unused bits of a bitmap are free, so only the meaning must hold.
        assert_eq!(decode_answers(&encode_answers(&answers)), Ok(answers));
    }
    if let Ok(frames) = decode_frames(body) {
        let mut written = Vec::new();
        for (id, range) in frames {
            encode_frame(&id, &body[range], &mut written);
        }
        assert_eq!(written, body);
    }
}

/// How a server says that a NAR is stored: what is read can be written, byte for byte.
pub(crate) fn layout(bytes: &[u8]) {
    if let Ok(layout) = NarLayout::decode(bytes) {
        assert_eq!(layout.encode(), bytes);
    }
}

/// Those in JSON: what is read is written as what reads the same.
pub(crate) fn json(body: &[u8]) {
    fn check<T: serde::Serialize + serde::de::DeserializeOwned>(body: &[u8]) {
        if let Ok(read) = serde_json::from_slice::<T>(body) {
            let written = serde_json::to_vec(&read).expect("a message is JSON");
            let again: T = serde_json::from_slice(&written).expect("its own JSON");
            assert_eq!(serde_json::to_vec(&again).expect("JSON again"), written);
        }
    }
    check::<Begin>(body);
    check::<Publish>(body);
    check::<CacheCreate>(body);
    check::<TokenCreate>(body);
    check::<StatusQuery>(body);
}
