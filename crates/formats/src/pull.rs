//! How a NAR is stored, as Firn's server tells it to those who put NARs together themselves.
//!
//! `docs/pull-protocol.md` explains the exchange. All integers are little-endian.
//!
//! ```text
//! GET /api/v1/nars/HASH?cache=NAME
//!
//! layout = version u8 (1), SHA-256 of the zstd representation [32], count u32, count × frame
//! frame  = BLAKE3 id of its chunk [32], raw length u32, frame length u32
//! ```

use crate::Sha256;

/// Frames of one NAR, at most: some 64 GB of NAR, and 40 MiB of layout. Larger NARs are fetched whole.
pub const FRAMES_MAX: usize = 1 << 20;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 32 + 4;
const FRAME_BYTES: usize = 32 + 4 + 4;

/// The frames of a NAR in order. Its zstd representation is these, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarLayout {
    /// Names the representation: `nar/<base32>.nar.zst`.
    pub zstd_sha256: Sha256,
    /// Its frames.
    pub frames: Vec<StoredFrame>,
}

/// One chunk and its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StoredFrame {
    pub id: [u8; 32],
    pub raw_length: u32,
    pub frame_length: u32,
}

/// Why bytes are not a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed layout of a NAR: {0}")]
pub struct LayoutError(pub &'static str);

impl NarLayout {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + FRAME_BYTES * self.frames.len());
        out.push(VERSION);
        out.extend_from_slice(&self.zstd_sha256.0);
        out.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        for frame in &self.frames {
            out.extend_from_slice(&frame.id);
            out.extend_from_slice(&frame.raw_length.to_le_bytes());
            out.extend_from_slice(&frame.frame_length.to_le_bytes());
        }
        out
    }

    /// Reads it. No chunk and no frame is empty, and there is at least one.
    ///
    /// # Errors
    /// If `bytes` are anything but what [`NarLayout::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let cut = LayoutError("cut short");
        let (version, rest) = bytes.split_first().ok_or(cut.clone())?;
        if *version != VERSION {
            return Err(LayoutError("unknown version"));
        }
        let (zstd_sha256, rest) = rest.split_first_chunk().ok_or(cut.clone())?;
        let (count, rest) = rest.split_first_chunk().ok_or(cut)?;
        let count = u32::from_le_bytes(*count) as usize;
        let (frames, over) = rest.as_chunks::<FRAME_BYTES>();
        if count == 0 || count > FRAMES_MAX || count != frames.len() || !over.is_empty() {
            return Err(LayoutError("not as many frames as announced"));
        }
        let frames: Vec<StoredFrame> = frames.iter().map(frame).collect();
        let empty = |frame: &StoredFrame| frame.raw_length == 0 || frame.frame_length == 0;
        if frames.iter().any(empty) {
            return Err(LayoutError("a frame of no bytes"));
        }
        Ok(Self {
            zstd_sha256: Sha256(*zstd_sha256),
            frames,
        })
    }
}

fn frame(bytes: &[u8; FRAME_BYTES]) -> StoredFrame {
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[..32]);
    let [.., r0, r1, r2, r3, f0, f1, f2, f3] = *bytes;
    StoredFrame {
        id,
        raw_length: u32::from_le_bytes([r0, r1, r2, r3]),
        frame_length: u32::from_le_bytes([f0, f1, f2, f3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> NarLayout {
        let frame = |n: u8| StoredFrame {
            id: [n; 32],
            raw_length: 1000 + u32::from(n),
            frame_length: 10 + u32::from(n),
        };
        NarLayout {
            zstd_sha256: Sha256([9; 32]),
            frames: vec![frame(1), frame(2)],
        }
    }

    #[test]
    fn a_layout_is_these_bytes() {
        let bytes = layout().encode();
        assert_eq!(bytes.len(), 37 + 2 * 40);
        assert_eq!(bytes[33..37], [2, 0, 0, 0]);
        assert_eq!(bytes[37 + 32..37 + 40], [0xe9, 3, 0, 0, 11, 0, 0, 0]);
        assert_eq!(NarLayout::decode(&bytes), Ok(layout()));
    }

    #[test]
    fn anything_else_is_refused() {
        let bytes = layout().encode();
        for length in 0..bytes.len() {
            assert!(NarLayout::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(NarLayout::decode(&[&bytes[..], &[0]].concat()).is_err());
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            NarLayout::decode(&bytes)
        };
        assert!(with(0, 2).is_err(), "another version");
        assert!(with(36, 0xff).is_err(), "a count beyond all bounds");
        assert!(with(37 + 36, 0).is_err(), "a frame of no bytes");
    }
}
