//! Frames: one chunk, one self-contained zstd frame with its content size in the header.

use crate::ChunkId;

/// Largest raw chunk any frame may claim, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FrameError {
    #[error("not one whole zstd frame: {0}")]
    Malformed(&'static str),
    #[error("frame claims {claimed} bytes, more than {CHUNK_BYTES_MAX}")]
    TooLarge { claimed: u64 },
    #[error("frame holds chunk {actual}, not {declared}")]
    WrongId { declared: ChunkId, actual: ChunkId },
    #[error("frame of chunk {0} does not have its checksum")]
    WrongChecksum(ChunkId),
}

/// Which encoder made a frame: the zstd library's version and level, or foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncoderId(pub u32);

impl EncoderId {
    /// A frame that came from outside; nothing is known of its encoder.
    pub const FOREIGN: Self = Self(0);
    /// This build's library at `level`: `version_number << 8 | (level + 128)`.
    pub fn this_build(level: i32) -> Self {
        todo!("{level}")
    }
}

/// XXH3-64 of a frame's bytes, checked at each read.
pub fn checksum(frame: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(frame)
}

/// What is recorded of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FrameRecord {
    pub id: ChunkId,
    pub raw_length: u32,
    pub frame_length: u32,
    pub encoder: EncoderId,
    pub flags: u16,
    pub checksum: u64,
}

/// A frame that was decoded and whose bytes hash to its id. Only [`Decoder::verify`] and
/// [`Encoder::encode`] make one.
#[derive(Debug, Clone)]
pub struct VerifiedFrame {
    record: FrameRecord,
    frame: bytes::Bytes,
}

impl VerifiedFrame {
    /// Its record.
    pub fn record(&self) -> &FrameRecord {
        &self.record
    }
    /// Its stored bytes.
    pub fn frame(&self) -> &bytes::Bytes {
        &self.frame
    }
}

/// Compresses chunks; holds a zstd context, so keep one a thread.
pub struct Encoder {
    _level: i32,
}

impl Encoder {
    /// At a level.
    pub fn new(level: i32) -> Self {
        Self { _level: level }
    }
    /// One frame.
    pub fn encode(&mut self, raw: &[u8]) -> VerifiedFrame {
        todo!("{}", raw.len())
    }
    /// One frame, where the caller has the id already.
    pub fn encode_with_id(&mut self, id: ChunkId, raw: &[u8]) -> VerifiedFrame {
        todo!("{id} {}", raw.len())
    }
}

/// Decompresses frames; holds a zstd context, so keep one a thread.
#[derive(Default)]
pub struct Decoder {}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Self::default()
    }
    /// Decodes exactly one frame into `out` (cleared first). The output is capped
    /// by the header's content size, which must be there and at most [`CHUNK_BYTES_MAX`].
    pub fn decode(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        todo!("{} {}", frame.len(), out.len())
    }
    /// Decodes, and checks that the bytes have the id; `out` then holds them.
    pub fn verify(
        &mut self,
        id: ChunkId,
        frame: bytes::Bytes,
        out: &mut Vec<u8>,
    ) -> Result<VerifiedFrame, FrameError> {
        todo!("{id} {} {}", frame.len(), out.len())
    }
}
