//! Chunk lists, pack trailers and segments: what is read can be written, and reads the same.
#![no_main]

use firn_chunks::{ChunkList, pack, segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(list) = ChunkList::decode(bytes) {
        assert_eq!(ChunkList::decode(&list.encode()), Ok(list));
    }
    let _ = pack::check_header(bytes);
    let _ = pack::trailer_length(bytes);
    let _ = pack::frame_length(bytes);
    if let Ok(frames) = pack::read_trailer(bytes) {
        assert_eq!(pack::read_trailer(&pack::trailer(&frames)), Ok(frames));
    }
    if let Ok(read) = segment::decode(bytes) {
        let written = segment::encode(&read.writer, read.at, &read.records);
        assert_eq!(segment::decode(&written), Ok(read));
    }
});
