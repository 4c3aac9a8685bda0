//! Blobs: ordered lists of chunks.

use crate::ChunkId;

/// A chunk in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ChunkRef {
    pub id: ChunkId,
    pub raw_length: u32,
}

/// BLAKE3 over a list's canonical encoding: names a blob by its chunking, so that a
/// list verified once is not verified again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ListId(pub [u8; 32]);

/// Why bytes are not a chunk list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunk list: {0}")]
pub struct ListError(pub &'static str);

/// A blob's chunks, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkList {
    /// The chunks.
    pub chunks: Vec<ChunkRef>,
}

impl ChunkList {
    /// Sum of the raw lengths.
    pub fn raw_length(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.raw_length))
            .sum()
    }
    /// The list's id.
    pub fn id(&self) -> ListId {
        todo!()
    }
    /// The stored form: version, flags, count, then ids and cumulative lengths, laid out so
    /// that a range of a 20 GiB blob is found without reading the whole.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        todo!("{}", bytes.len())
    }
}
