//! A frame decodes to what its header declares, or not at all.
#![no_main]

use firn_chunks::{ChunkId, Decoder, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut raw = Vec::new();
    let mut decoder = Decoder::new();
    if decoder.decode(bytes, &mut raw).is_ok() {
        assert_eq!(frame::content_length(bytes), Ok(raw.len()));
        let id = ChunkId::of(&raw);
        let verified = decoder.verify(id, bytes.to_vec().into(), &mut raw);
        assert_eq!(verified.map(|frame| frame.record().id), Ok(id));
    }
});
