//! Packs: frames back to back, then a trailer that indexes them.
//!
//! A pack is itself a valid zstd stream: header and trailer are skippable frames.

use crate::FrameRecord;

/// Why bytes are not a pack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed pack: {0}")]
pub struct PackError(pub &'static str);

/// Bytes of the header, which is a skippable frame: magic, version, flags.
pub fn header() -> Vec<u8> {
    todo!()
}

/// A frame and where it lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Placed {
    pub offset: u64,
    pub record: FrameRecord,
}

/// The trailer of a sealed pack, with its own checksum, so written that it can be found from the end.
pub fn trailer(frames: &[Placed]) -> Vec<u8> {
    todo!("{}", frames.len())
}

/// How many bytes at the end of a sealed pack hold the trailer, told by the pack's last bytes.
pub fn trailer_length(tail: &[u8]) -> Result<u64, PackError> {
    todo!("{}", tail.len())
}

/// Reads a whole trailer.
pub fn read_trailer(bytes: &[u8]) -> Result<Vec<Placed>, PackError> {
    todo!("{}", bytes.len())
}

/// Length of the first zstd frame in `bytes`, skippable or not; for walking a pack that was never sealed.
pub fn frame_length(bytes: &[u8]) -> Result<u64, PackError> {
    todo!("{}", bytes.len())
}
