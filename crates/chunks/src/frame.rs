//! Frames: one chunk, one self-contained zstd frame with its content size in the header.

use crate::ChunkId;
use zstd::zstd_safe::{self, CCtx, DCtx};

/// Largest raw chunk any frame may claim, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Longest frame that is accepted, in bytes: what zstd may need for [`CHUNK_BYTES_MAX`]
/// incompressible bytes.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES_MAX + (CHUNK_BYTES_MAX >> 8);
/// Largest window a frame may ask a decoder for, in bytes: every decoder is advised to have
/// it (RFC 8878, section 3.1.1.1.2), so what is stored here can be served to any client.
pub const WINDOW_BYTES_MAX: u64 = 8 << 20;

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
    /// A frame of raw blocks, as [`Encoder`] writes it where zstd cannot be had.
    pub const STORED: Self = Self(1);
    /// This build's library at `level`: `version_number << 8 | (level + 128)`.
    /// Levels beyond an `i8` count as its ends.
    pub fn this_build(level: i32) -> Self {
        let level = (level.clamp(-128, 127) + 128).unsigned_abs();
        Self(zstd_safe::version_number() << 8 | level)
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
    context: CCtx<'static>,
    level: i32,
    id: EncoderId,
    scratch: Vec<u8>,
}

impl Encoder {
    /// At a level.
    pub fn new(level: i32) -> Self {
        Self {
            context: CCtx::create(),
            level,
            id: EncoderId::this_build(level),
            scratch: Vec::new(),
        }
    }

    /// One frame. `raw` is a chunk, so at most [`CHUNK_BYTES_MAX`] bytes.
    pub fn encode(&mut self, raw: &[u8]) -> VerifiedFrame {
        self.encode_with_id(ChunkId::of(raw), raw)
    }

    /// One frame, where the caller has the id already and vouches for it.
    pub fn encode_with_id(&mut self, id: ChunkId, raw: &[u8]) -> VerifiedFrame {
        debug_assert!(raw.len() <= CHUNK_BYTES_MAX, "a chunk is bounded");
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(raw.len()));
        let compressed = self.context.compress(&mut self.scratch, raw, self.level);
        // Only a lack of memory can fail here; a frame of raw blocks needs none of zstd's.
        let encoder = match compressed {
            Ok(_) => self.id,
            Err(_) => {
                store_raw(raw, &mut self.scratch);
                EncoderId::STORED
            }
        };
        verified(
            id,
            raw.len(),
            bytes::Bytes::copy_from_slice(&self.scratch),
            encoder,
        )
    }
}

fn verified(
    id: ChunkId,
    raw_length: usize,
    frame: bytes::Bytes,
    encoder: EncoderId,
) -> VerifiedFrame {
    VerifiedFrame {
        record: FrameRecord {
            id,
            raw_length: raw_length as u32,
            frame_length: frame.len() as u32,
            encoder,
            flags: 0,
            checksum: checksum(&frame),
        },
        frame,
    }
}

/// A frame of raw blocks (RFC 8878, section 3.1.1), `out` cleared first: single segment,
/// 8 bytes of content size, blocks of at most 128 KiB.
pub(crate) fn store_raw(raw: &[u8], out: &mut Vec<u8>) {
    const BLOCK_BYTES_MAX: usize = 128 << 10;
    out.clear();
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.push(0b1110_0000);
    out.extend_from_slice(&(raw.len() as u64).to_le_bytes());
    let mut rest = raw;
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_BYTES_MAX));
        let last = u32::from(after.is_empty());
        let header = (block.len() as u32) << 3 | last;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
        if after.is_empty() {
            return;
        }
        rest = after;
    }
}

/// Decompresses frames; holds a zstd context, so keep one a thread.
#[derive(Default)]
pub struct Decoder {
    context: DCtx<'static>,
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes exactly one frame into `out` (cleared first; its memory is reused and never
    /// zeroed). The output is capped by the header's content size, which must be there and at
    /// most [`CHUNK_BYTES_MAX`].
    ///
    /// # Errors
    /// If `frame` is anything but one whole frame that follows these rules; `out` is then of
    /// no use.
    pub fn decode(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.clear();
        let content = checked_length(frame)?;
        out.reserve(content);
        self.decompress(frame, content, out)
    }

    fn decompress<C: zstd_safe::WriteBuf + ?Sized>(
        &mut self,
        frame: &[u8],
        content: usize,
        out: &mut C,
    ) -> Result<(), FrameError> {
        match self.context.decompress(out, frame) {
            Ok(written) if written == content => Ok(()),
            Ok(_) => Err(FrameError::Malformed("content size is not as declared")),
            Err(_) => Err(FrameError::Malformed("damaged blocks")),
        }
    }

    /// Decodes, and checks that the bytes have the id; `out` then holds them.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and if the content has another id.
    pub fn verify(
        &mut self,
        id: ChunkId,
        frame: bytes::Bytes,
        out: &mut Vec<u8>,
    ) -> Result<VerifiedFrame, FrameError> {
        self.decode(&frame, out)?;
        identified(id, frame, out)
    }

    /// As [`Decoder::verify`], into memory of exactly the length that the frame's header declares
    /// ([`content_length`]).
    ///
    /// # Errors
    /// As [`Decoder::verify`], and if `out` has another length.
    pub fn verify_into(
        &mut self,
        id: ChunkId,
        frame: bytes::Bytes,
        out: &mut [u8],
    ) -> Result<VerifiedFrame, FrameError> {
        let content = checked_length(&frame)?;
        if content != out.len() {
            return Err(FrameError::Malformed("content size is not as expected"));
        }
        self.decompress(&frame, content, out)?;
        identified(id, frame, out)
    }
}

/// Checks that `frame` is one whole frame; says how many bytes it declares.
fn checked_length(frame: &[u8]) -> Result<usize, FrameError> {
    let content = content_length(frame)?;
    if frame.len() > zstd_safe::compress_bound(content) {
        return Err(FrameError::Malformed("longer than its content needs"));
    }
    match zstd_safe::find_frame_compressed_size(frame) {
        Ok(length) if length == frame.len() => Ok(content),
        Ok(_) => Err(FrameError::Malformed("bytes after its end")),
        Err(_) => Err(FrameError::Malformed("its blocks do not add up")),
    }
}

fn identified(id: ChunkId, frame: bytes::Bytes, raw: &[u8]) -> Result<VerifiedFrame, FrameError> {
    let actual = ChunkId::of(raw);
    if actual != id {
        return Err(FrameError::WrongId {
            declared: id,
            actual,
        });
    }
    Ok(verified(id, raw.len(), frame, EncoderId::FOREIGN))
}

const FRAME_MAGIC: u32 = 0xFD2F_B528;

/// The content size a frame's header declares, in bytes (RFC 8878, section 3.1.1.1).
/// Refuses what Firn does not store: no content size, a dictionary, a large window.
///
/// # Errors
/// If the header is cut short, refused, or declares more than [`CHUNK_BYTES_MAX`].
pub fn content_length(frame: &[u8]) -> Result<usize, FrameError> {
    let short = FrameError::Malformed("header cut short");
    let (magic, rest) = frame.split_first_chunk::<4>().ok_or(short.clone())?;
    if u32::from_le_bytes(*magic) != FRAME_MAGIC {
        return Err(FrameError::Malformed("no zstd magic"));
    }
    let (&descriptor, mut rest) = rest.split_first().ok_or(short.clone())?;
    if descriptor & 0b1000 != 0 {
        return Err(FrameError::Malformed("reserved bit set"));
    }
    if descriptor & 0b11 != 0 {
        return Err(FrameError::Malformed("needs a dictionary"));
    }
    let single_segment = descriptor & 0b10_0000 != 0;
    if !single_segment {
        let (&window, after) = rest.split_first().ok_or(short.clone())?;
        let base = 1u64 << (10 + (window >> 3));
        if base + base / 8 * u64::from(window & 0b111) > WINDOW_BYTES_MAX {
            return Err(FrameError::Malformed("window too large"));
        }
        rest = after;
    }
    let claimed = match (descriptor >> 6, rest) {
        (0, _) if !single_segment => {
            return Err(FrameError::Malformed("no content size in its header"));
        }
        (0, &[a, ..]) => u64::from(a),
        (1, &[a, b, ..]) => u64::from(u16::from_le_bytes([a, b])) + 256,
        (2, &[a, b, c, d, ..]) => u64::from(u32::from_le_bytes([a, b, c, d])),
        (3, &[a, b, c, d, e, f, g, h, ..]) => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return Err(short),
    };
    if claimed > CHUNK_BYTES_MAX as u64 {
        return Err(FrameError::TooLarge { claimed });
    }
    Ok(claimed as usize)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
