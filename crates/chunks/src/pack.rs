//! Packs: frames back to back, then a trailer that indexes them.
//!
//! A pack is itself a valid zstd stream: header and trailer are skippable frames.
//!
//! ```text
//! header   skippable magic u32 = 0x184D2A5F, size u32 = 16,
//!          "FIRNPACK", version u16 = 1, flags u16, zero u32
//! frames   bare, without gaps
//! trailer  skippable magic u32, size u32,
//!          count × entry [64],
//!          end [56]: checksum [32], count u32, zero u32, version u16, flags u16, zero u32, "FIRNTAIL"
//! entry    id [32], offset u64, raw length u32, frame length u32, encoder u32,
//!          flags u16, zero u16, checksum u64 (XXH3-64 of the frame)
//! ```
//! Integers are little-endian. The trailer's checksum is BLAKE3 over all its bytes but the
//! checksum itself.

use crate::{ChunkId, EncoderId, FrameRecord, frame::CHUNK_BYTES_MAX, frame::FRAME_BYTES_MAX};
use zstd::zstd_safe;

/// The skippable frames that are Firn's.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5F;
const HEADER_MAGIC: &[u8; 8] = b"FIRNPACK";
const TRAILER_MAGIC: &[u8; 8] = b"FIRNTAIL";
const VERSION: u16 = 1;
/// Flags this version understands. Reserved: bit 0, the frames are encrypted.
const FLAGS_KNOWN: u16 = 0;

/// Bytes of [`header`]; the first frame begins here.
pub const HEADER_BYTES: usize = 24;
/// Bytes at the end of a sealed pack from which [`trailer_length`] tells the rest.
pub const END_BYTES: usize = 56;
/// Bytes of a recorded frame.
pub(crate) const ENTRY_BYTES: usize = 64;
/// Most frames in one pack. More in a trailer are refused.
pub const FRAMES_MAX: usize = 1 << 20;

/// Why bytes are not a pack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed pack: {0}")]
pub struct PackError(pub &'static str);

/// Bytes of the header, which is a skippable frame: magic, version, flags.
pub fn header() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    out.extend_from_slice(&(HEADER_BYTES as u32 - 8).to_le_bytes());
    out.extend_from_slice(HEADER_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u16.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out
}

/// Checks that a pack begins as this version writes it.
///
/// # Errors
/// If `bytes` do not begin with a header, or it has a version or flags that are not known.
pub fn check_header(bytes: &[u8]) -> Result<(), PackError> {
    let header = bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or(PackError("header cut short"))?;
    let expected = self::header();
    if header[..16] != expected[..16] {
        return Err(PackError("no header"));
    }
    check_version(&header[16..20])?;
    match header[20..] {
        [0, 0, 0, 0] => Ok(()),
        _ => Err(PackError("reserved bytes in the header")),
    }
}

/// Reads `version u16, flags u16`.
fn check_version(bytes: &[u8]) -> Result<(), PackError> {
    let &[v0, v1, f0, f1] = bytes else {
        return Err(PackError("version cut short"));
    };
    if u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(PackError("unknown version"));
    }
    if u16::from_le_bytes([f0, f1]) & !FLAGS_KNOWN != 0 {
        return Err(PackError("unknown flags"));
    }
    Ok(())
}

/// A frame and where it lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Placed {
    pub offset: u64,
    pub record: FrameRecord,
}

impl Placed {
    /// Appends the entry, [`ENTRY_BYTES`] long.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let record = &self.record;
        out.extend_from_slice(&record.id.0);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&record.raw_length.to_le_bytes());
        out.extend_from_slice(&record.frame_length.to_le_bytes());
        out.extend_from_slice(&record.encoder.0.to_le_bytes());
        out.extend_from_slice(&record.flags.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&record.checksum.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Result<Self, PackError> {
        let (id, rest) = split::<32>(bytes)?;
        let (offset, rest) = split::<8>(rest)?;
        let (raw_length, rest) = split::<4>(rest)?;
        let (frame_length, rest) = split::<4>(rest)?;
        let (encoder, rest) = split::<4>(rest)?;
        let (flags, rest) = split::<2>(rest)?;
        let (reserved, rest) = split::<2>(rest)?;
        let (checksum, _) = split::<8>(rest)?;
        let placed = Self {
            offset: u64::from_le_bytes(offset),
            record: FrameRecord {
                id: ChunkId(id),
                raw_length: u32::from_le_bytes(raw_length),
                frame_length: u32::from_le_bytes(frame_length),
                encoder: EncoderId(u32::from_le_bytes(encoder)),
                flags: u16::from_le_bytes(flags),
                checksum: u64::from_le_bytes(checksum),
            },
        };
        if reserved != [0; 2] {
            return Err(PackError("reserved bytes in an entry"));
        }
        if placed.record.raw_length as usize > CHUNK_BYTES_MAX
            || placed.record.frame_length as usize > FRAME_BYTES_MAX
        {
            return Err(PackError("an entry's frame is too large"));
        }
        if placed.offset > i64::MAX as u64 {
            return Err(PackError("an entry lies beyond any file"));
        }
        Ok(placed)
    }
}

fn split<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), PackError> {
    let (first, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(PackError("entry cut short"))?;
    Ok((*first, rest))
}

/// The trailer of a sealed pack, with its own checksum, so written that it can be found from
/// the end. At most [`FRAMES_MAX`] frames.
pub fn trailer(frames: &[Placed]) -> Vec<u8> {
    debug_assert!(frames.len() <= FRAMES_MAX, "packs are sealed long before");
    let payload = frames.len() * ENTRY_BYTES + END_BYTES;
    let mut out = Vec::with_capacity(8 + payload);
    out.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    out.extend_from_slice(&(payload as u32).to_le_bytes());
    for frame in frames {
        frame.encode(&mut out);
    }
    let mut end = Vec::with_capacity(END_BYTES - 32);
    end.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    end.extend_from_slice(&[0; 4]);
    end.extend_from_slice(&VERSION.to_le_bytes());
    end.extend_from_slice(&0u16.to_le_bytes());
    end.extend_from_slice(&[0; 4]);
    end.extend_from_slice(TRAILER_MAGIC);
    let checksum = trailer_checksum(&out, &end);
    out.extend_from_slice(&checksum);
    out.extend_from_slice(&end);
    out
}

fn trailer_checksum(before: &[u8], after: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(after);
    *hasher.finalize().as_bytes()
}

/// How many bytes at the end of a sealed pack hold the trailer, told by the pack's last
/// [`END_BYTES`] bytes (more may be given).
///
/// # Errors
/// If the bytes are not a trailer's end: the pack was never sealed, or was cut.
pub fn trailer_length(tail: &[u8]) -> Result<u64, PackError> {
    let end = tail
        .last_chunk::<END_BYTES>()
        .ok_or(PackError("too short for a trailer"))?;
    if end[48..] != TRAILER_MAGIC[..] {
        return Err(PackError("no trailer"));
    }
    check_version(&end[40..44])?;
    let count = u32::from_le_bytes([end[32], end[33], end[34], end[35]]) as usize;
    if count > FRAMES_MAX {
        return Err(PackError("too many frames"));
    }
    Ok((8 + count * ENTRY_BYTES + END_BYTES) as u64)
}

/// Reads a whole trailer, whose length [`trailer_length`] told.
///
/// # Errors
/// If `bytes` are not exactly a trailer, or its checksum is wrong.
pub fn read_trailer(bytes: &[u8]) -> Result<Vec<Placed>, PackError> {
    if trailer_length(bytes)? != bytes.len() as u64 {
        return Err(PackError("trailer is not as long as it says"));
    }
    let (before, end) = bytes.split_at(bytes.len() - END_BYTES);
    let (checksum, after) = end.split_at(32);
    if trailer_checksum(before, after) != checksum {
        return Err(PackError("trailer does not have its checksum"));
    }
    let entries = &before[8..];
    let mut frames = Vec::with_capacity(entries.len() / ENTRY_BYTES);
    for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
        frames.push(Placed::decode(entry)?);
    }
    Ok(frames)
}

/// Length of the first zstd frame in `bytes`, skippable or not; for walking a pack that was
/// never sealed. A frame is at most [`FRAME_BYTES_MAX`] long, so that many bytes suffice.
///
/// # Errors
/// If `bytes` do not begin with a whole frame.
pub fn frame_length(bytes: &[u8]) -> Result<u64, PackError> {
    zstd_safe::find_frame_compressed_size(bytes)
        .map(|length| length as u64)
        .map_err(|_| PackError("no whole frame"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoder;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn pack(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Placed>) {
        let (mut bytes, mut frames) = (header(), Vec::new());
        let mut encoder = Encoder::new(2);
        for chunk in chunks {
            let frame = encoder.encode(chunk);
            frames.push(Placed {
                offset: bytes.len() as u64,
                record: *frame.record(),
            });
            bytes.extend_from_slice(frame.frame());
        }
        (bytes, frames)
    }

    #[test]
    fn the_header_is_as_documented() {
        assert_eq!(
            header(),
            b"\x5f\x2a\x4d\x18\x10\0\0\0FIRNPACK\x01\0\0\0\0\0\0\0"
        );
        check_header(&header()).unwrap();
        for at in 0..HEADER_BYTES {
            let mut damaged = header();
            damaged[at] ^= 2;
            assert!(check_header(&damaged).is_err(), "byte {at}");
        }
    }

    /// A pack without Firn is still its content: `zstd -d` of the whole gives it back.
    #[test]
    fn zstd_decodes_a_sealed_pack() {
        let noise = blake3::hash(b"noise");
        let (mut bytes, frames) = pack(&[b"one ", noise.as_bytes(), b"two", &[0; 300_000]]);
        bytes.extend_from_slice(&trailer(&frames));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let zstd = std::process::Command::new("zstd")
            .args(["-d", "-c"])
            .arg(file.path())
            .output()
            .expect("this test needs the zstd program");
        assert!(zstd.status.success(), "{zstd:?}");
        let expected = [b"one ", &noise.as_bytes()[..], b"two", &[0; 300_000]].concat();
        assert!(zstd.stdout == expected);
    }

    #[test]
    fn a_pack_is_walked_without_its_trailer() {
        let (bytes, frames) = pack(&[b"one", b"", &[1; 70_000]]);
        let mut offset = frame_length(&bytes).unwrap();
        for placed in &frames {
            assert_eq!(placed.offset, offset);
            let length = frame_length(&bytes[offset as usize..]).unwrap();
            assert_eq!(length, u64::from(placed.record.frame_length));
            offset += length;
        }
        assert_eq!(offset, bytes.len() as u64);
        assert!(frame_length(&bytes[frames[2].offset as usize..bytes.len() - 1]).is_err());
    }

    #[test]
    fn every_damaged_byte_of_a_trailer_is_noticed() {
        let (_, frames) = pack(&[b"one", b"two"]);
        let good = trailer(&frames);
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            assert!(read_trailer(&damaged).is_err(), "byte {at}");
        }
        assert!(read_trailer(&good[1..]).is_err());
    }

    proptest! {
        #[test]
        fn the_trailer_is_found_from_the_end(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let (mut bytes, frames) = pack(&chunks);
            bytes.extend_from_slice(&trailer(&frames));
            let length = trailer_length(&bytes[bytes.len() - END_BYTES..]).unwrap() as usize;
            prop_assert_eq!(read_trailer(&bytes[bytes.len() - length..]).unwrap(), frames);
        }

        #[test]
        fn any_bytes_survive(mut bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0u32..4, sealed: bool) {
            if sealed {
                bytes.extend_from_slice(&[0; 32]);
                bytes.extend_from_slice(&count.to_le_bytes());
                bytes.extend_from_slice(b"\0\0\0\0\x01\0\0\0\0\0\0\0FIRNTAIL");
            }
            let _ = (trailer_length(&bytes), read_trailer(&bytes), frame_length(&bytes), check_header(&bytes));
        }
    }
}
