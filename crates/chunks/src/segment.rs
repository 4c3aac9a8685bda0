//! Segments: the index of what was written in some time. A store's content is the union of its segments.

use crate::{ChunkList, pack::Placed};

/// Why bytes are not a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed segment: {0}")]
pub struct SegmentError(pub String);

/// A record of a segment. Texts are UTF-8. Unknown record types are an error unless flagged skippable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Record {
    /// A cache as it is now; `config` is opaque here. Newest wins.
    Cache {
        name: String,
        domain: String,
        config: Vec<u8>,
        at: i64,
        deleted: bool,
    },
    /// A pack and its frames. `sealed_length` 0 for one still open.
    Pack {
        domain: String,
        pack: String,
        sealed_length: u64,
        frames: Vec<Placed>,
    },
    /// A blob.
    Blob(BlobRecord),
    /// An entry; blobs by list id. `deleted` is a tombstone. Newest `sequence` wins.
    Entry {
        cache: String,
        kind: u16,
        key: String,
        value: Vec<u8>,
        blobs: Vec<[u8; 32]>,
        sequence: u64,
        at: i64,
        deleted: bool,
    },
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BlobRecord {
    pub domain: String,
    pub flags: u16,
    pub list: ChunkList,
    pub identity_sha256: [u8; 32],
    pub zstd_sha256: [u8; 32],
    pub zstd_length: u64,
}

/// Writes a whole segment: header with version, flags, writer and time; zstd-compressed records; checksum.
pub fn encode(writer: &str, at: i64, records: &[Record]) -> Vec<u8> {
    todo!("{writer} {at} {}", records.len())
}

/// A segment read back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Segment {
    pub writer: String,
    pub at: i64,
    pub records: Vec<Record>,
}

/// Reads a segment.
pub fn decode(bytes: &[u8]) -> Result<Segment, SegmentError> {
    todo!("{}", bytes.len())
}
