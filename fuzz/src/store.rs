//! Files of a store. What has a checksum is given the right one, since no fuzzer guesses it.

use firn_chunks::{ChunkId, ChunkList, Decoder, Encoder, frame, pack, segment};

/// A frame decodes to what its header declares, or not at all.
pub(crate) fn frame(bytes: &[u8]) {
    let mut raw = Vec::new();
    let mut decoder = Decoder::new();
    if decoder.decode(bytes, &mut raw).is_ok() {
        assert_eq!(frame::content_length(bytes), Ok(raw.len()));
        let id = ChunkId::of(&raw);
        let verified = decoder.verify(id, bytes.to_vec().into(), &mut raw);
        assert_eq!(verified.map(|frame| frame.record().id), Ok(id));
    }
}

/// Chunk lists, pack trailers and segments as they are.
pub(crate) fn files(bytes: &[u8]) {
    if let Ok(list) = ChunkList::decode(bytes) {
        assert_eq!(ChunkList::decode(&list.encode()), Ok(list));
    }
    let _ = pack::check_header(bytes);
    let _ = pack::trailer_length(bytes);
    let _ = pack::frame_length(bytes);
    if let Ok(frames) = pack::read_trailer(bytes) {
        assert_eq!(pack::read_trailer(&pack::trailer(&frames)), Ok(frames));
    }
    check_segment(bytes);
}

fn check_segment(bytes: &[u8]) {
    if let Ok(read) = segment::decode(bytes) {
        let preamble = segment::Preamble {
            writer: &read.writer,
            at: read.at,
            covers: &read.covers,
            key: None,
        };
        let written = segment::encode_with(&preamble, &read.records);
        let again = segment::decode(&written).expect("its own bytes");
        assert_eq!(
            (&again.records, &again.covers),
            (&read.records, &read.covers)
        );
    }
}

/// The input is the records of a segment's one section.
pub(crate) fn segment(records: &[u8]) {
    let empty = segment::encode("", 0, &[]);
    let mut bytes = empty[..empty.len() - 32].to_vec();
    if records.len() > frame::CHUNK_BYTES_MAX {
        return;
    }
    let section = Encoder::new(1).encode(records);
    let section = section.frame();
    bytes.extend_from_slice(&(records.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(section.len() as u32).to_le_bytes());
    bytes.extend_from_slice(section);
    let checksum = ChunkId::of(&bytes).0;
    bytes.extend_from_slice(&checksum);
    check_segment(&bytes);
}

/// The input is the frames and entries of a pack: it is walked, and read as a trailer with its checksum.
pub(crate) fn pack(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(length) = pack::frame_length(rest) {
        let length = usize::try_from(length).expect("a frame in memory");
        assert!((1..=rest.len()).contains(&length));
        frame(&rest[..length]);
        rest = &rest[length..];
    }
    let entries = &bytes[..bytes.len() - bytes.len() % 64];
    let empty = pack::trailer(&[]);
    let mut trailer = empty[..4].to_vec();
    trailer.extend_from_slice(&((entries.len() + pack::END_BYTES) as u32).to_le_bytes());
    trailer.extend_from_slice(entries);
    let mut end = empty[empty.len() - 24..].to_vec();
    end[..4].copy_from_slice(&((entries.len() / 64) as u32).to_le_bytes());
    let checksum = ChunkId::of(&[&trailer[..], &end].concat()).0;
    trailer.extend_from_slice(&checksum);
    trailer.extend_from_slice(&end);
    if let Ok(frames) = pack::read_trailer(&trailer) {
        assert_eq!(pack::trailer(&frames), trailer);
    }
}
