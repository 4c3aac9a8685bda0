//! Where each chunk of a NAR comes from.

use super::{
    find::Found,
    local::{LocalChunk, LocalChunks, Opened},
};
use firn_chunks::ChunkRef;

/// A chunk of a NAR.
pub(super) struct Piece {
    pub(super) chunk: ChunkRef,
    /// A path of this machine that seems to hold it.
    pub(super) local: Option<LocalChunk>,
    /// The store that has it otherwise.
    pub(super) source: usize,
}

/// The NAR's chunks, in order. Older versions of the path on this machine are read if that may save much.
pub(super) fn make(local: &LocalChunks, found: &Found) -> Vec<Piece> {
    local.read_memory();
    let chunks = &found.list.chunks;
    let mut opened = Opened::default();
    let mut here = local.find(chunks, &mut opened);
    let missing_bytes = std::iter::zip(chunks, &here)
        .filter(|(_, here)| here.is_none())
        .map(|(chunk, _)| u64::from(chunk.raw_length))
        .sum();
    if local.learn_versions(&found.narinfo.store_path, missing_bytes) {
        here = local.find(chunks, &mut opened);
    }
    std::iter::zip(chunks, here)
        .zip(&found.located)
        .map(|((chunk, local), source)| Piece {
            chunk: *chunk,
            local,
            source: *source,
        })
        .collect()
}
