//! Blobs: ordered lists of chunks, and their stored form.
//!
//! ```text
//! version u8 = 1, flags u8 = 0, zero u16, count u32, raw length of the whole u64
//! count × id [32]
//! count × raw length u32
//! one u64 for each 256th chunk after the first: where it begins in the blob
//! ```
//! Integers are little-endian. The length of the encoding follows from `count`, and a
//! range of a large blob is found in the last part and one stretch of the middle one.

use crate::ChunkId;
use std::ops::Range;

/// Chunks between two recorded positions.
const STRIDE: usize = 256;
const HEADER_BYTES: usize = 16;
const VERSION: u8 = 1;

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

    /// The list's id: BLAKE3 in key derivation mode, so that no chunk's id can be a list's,
    /// over `id [32], raw length u32` of each chunk.
    pub fn id(&self) -> ListId {
        let mut hasher = blake3::Hasher::new_derive_key("firn chunk list v1");
        let mut buffer = Vec::with_capacity(36 * STRIDE.min(self.chunks.len()));
        for stretch in self.chunks.chunks(STRIDE) {
            buffer.clear();
            for chunk in stretch {
                buffer.extend_from_slice(&chunk.id.0);
                buffer.extend_from_slice(&chunk.raw_length.to_le_bytes());
            }
            hasher.update(&buffer);
        }
        ListId(*hasher.finalize().as_bytes())
    }

    /// The stored form: version, flags, count, then ids and cumulative lengths, laid out so
    /// that a range of a 20 GiB blob is found without reading the whole.
    pub fn encode(&self) -> Vec<u8> {
        let count = self.chunks.len();
        let mut out = Vec::with_capacity(encoded_length(count));
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&(count as u32).to_le_bytes());
        out.extend_from_slice(&self.raw_length().to_le_bytes());
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.id.0);
        }
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.raw_length.to_le_bytes());
        }
        let mut position = 0u64;
        for (index, chunk) in self.chunks.iter().enumerate() {
            if index > 0 && index % STRIDE == 0 {
                out.extend_from_slice(&position.to_le_bytes());
            }
            position += u64::from(chunk.raw_length);
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If `bytes` are anything but what [`ChunkList::encode`] makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        let view = ChunkListView::new(bytes)?;
        let chunks: Vec<ChunkRef> = view.chunks(0).collect();
        let mut position = 0u64;
        for (index, chunk) in chunks.iter().enumerate() {
            if index % STRIDE == 0 && view.mark(index / STRIDE) != position {
                return Err(ListError("a position is not the sum of the lengths"));
            }
            position += u64::from(chunk.raw_length);
        }
        if position != view.raw_length() {
            return Err(ListError("the length is not the sum of the lengths"));
        }
        Ok(Self { chunks })
    }
}

fn encoded_length(count: usize) -> usize {
    HEADER_BYTES + count * 36 + count.div_ceil(STRIDE).saturating_sub(1) * 8
}

/// A stored chunk list, read in place.
#[derive(Debug, Clone, Copy)]
pub struct ChunkListView<'a> {
    raw_length: u64,
    ids: &'a [[u8; 32]],
    lengths: &'a [[u8; 4]],
    marks: &'a [[u8; 8]],
}

impl<'a> ChunkListView<'a> {
    /// Checks the header and the size, in constant time; [`ChunkList::decode`] checks the sums.
    ///
    /// # Errors
    /// If the version or a flag is not known, or the size does not fit the count.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ListError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(ListError("header cut short"))?;
        let &[
            version,
            flags,
            z0,
            z1,
            c0,
            c1,
            c2,
            c3,
            l0,
            l1,
            l2,
            l3,
            l4,
            l5,
            l6,
            l7,
        ] = header;
        if version != VERSION {
            return Err(ListError("unknown version"));
        }
        if flags != 0 || z0 != 0 || z1 != 0 {
            return Err(ListError("unknown flags"));
        }
        let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        if bytes.len() != encoded_length(count) {
            return Err(ListError("size does not fit the count"));
        }
        let (ids, rest) = body.split_at(count * 32);
        let (lengths, marks) = rest.split_at(count * 4);
        Ok(Self {
            raw_length: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
            ids: ids.as_chunks().0,
            lengths: lengths.as_chunks().0,
            marks: marks.as_chunks().0,
        })
    }

    /// How many chunks.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Bytes of the blob.
    pub fn raw_length(&self) -> u64 {
        self.raw_length
    }

    /// The chunks from the one at `index` on.
    pub fn chunks(&self, index: usize) -> impl ExactSizeIterator<Item = ChunkRef> + use<'a> {
        let ids = self.ids.get(index..).unwrap_or_default();
        let lengths = self.lengths.get(index..).unwrap_or_default();
        ids.iter().zip(lengths).map(|(id, length)| ChunkRef {
            id: ChunkId(*id),
            raw_length: u32::from_le_bytes(*length),
        })
    }

    /// Finds the chunks that hold the bytes `range` of the blob: their indices, and where the
    /// first of them begins in the blob. `None` if the range is empty or reaches past the end.
    pub fn find(&self, range: Range<u64>) -> Option<(Range<usize>, u64)> {
        if range.is_empty() || range.end > self.raw_length {
            return None;
        }
        let (first, begin) = self.find_byte(range.start)?;
        let (last, _) = self.find_byte(range.end - 1)?;
        (first <= last).then_some((first..last + 1, begin))
    }

    /// The chunk that holds the byte at `offset`, and where that chunk begins.
    fn find_byte(&self, offset: u64) -> Option<(usize, u64)> {
        let stretch = self
            .marks
            .partition_point(|mark| u64::from_le_bytes(*mark) <= offset);
        let mut begin = self.mark(stretch);
        for (index, length) in self.lengths.iter().enumerate().skip(stretch * STRIDE) {
            let end = begin.checked_add(u64::from(u32::from_le_bytes(*length)))?;
            if offset < end {
                return Some((index, begin));
            }
            begin = end;
        }
        None
    }

    /// Where chunk `stretch * STRIDE` begins.
    fn mark(&self, stretch: usize) -> u64 {
        let mark = stretch.checked_sub(1).and_then(|at| self.marks.get(at));
        mark.map_or(0, |mark| u64::from_le_bytes(*mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(lengths: &[u32]) -> ChunkList {
        let chunk = |(index, &raw_length): (usize, &u32)| ChunkRef {
            id: ChunkId::of(&index.to_le_bytes()),
            raw_length,
        };
        ChunkList {
            chunks: lengths.iter().enumerate().map(chunk).collect(),
        }
    }

    #[test]
    fn the_id_is_golden_and_depends_on_every_length() {
        assert_eq!(
            ChunkId(list(&[3, 4]).id().0).to_string(),
            "b059c50105b0c8fe8d921cf974ef9f99cd33c345f45d734fe06979d6b69474f0"
        );
        assert_ne!(list(&[3, 4]).id(), list(&[4, 3]).id());
        assert_ne!(list(&[3]).id(), list(&[3, 4]).id());
    }

    #[test]
    fn a_wrong_sum_is_refused() {
        let mut bytes = list(&vec![7; 300]).encode();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(ChunkList::decode(&bytes).is_err());
        let mut bytes = list(&[7; 3]).encode();
        bytes[8] ^= 1;
        assert!(ChunkList::decode(&bytes).is_err());
    }

    #[test]
    fn unknown_versions_and_flags_are_refused() {
        for (at, value) in [(0, 2), (1, 1), (2, 1)] {
            let mut bytes = list(&[7; 3]).encode();
            bytes[at] = value;
            assert!(ChunkList::decode(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn round_trip(lengths in prop::collection::vec(0u32.., 0..1200)) {
            let list = list(&lengths);
            prop_assert_eq!(ChunkList::decode(&list.encode()).unwrap(), list);
        }

        #[test]
        fn ranges_are_found(lengths in prop::collection::vec(0u32..50, 1..1200), start in 0u64..60_000, length in 1u64..500) {
            let list = list(&lengths);
            let encoded = list.encode();
            let view = ChunkListView::new(&encoded).unwrap();
            let total = list.raw_length();
            let owners: Vec<(usize, u64)> = lengths.iter().enumerate().scan(0u64, |at, (index, length)| {
                let begin = *at;
                *at += u64::from(*length);
                Some(vec![(index, begin); *length as usize])
            }).flatten().collect();
            let end = start + length;
            let expected = (end <= total).then(|| {
                let (first, begin) = owners[start as usize];
                (first..owners[end as usize - 1].0 + 1, begin)
            });
            prop_assert_eq!(view.find(start..end), expected);
        }

        #[test]
        fn any_bytes_survive(mut bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..4, offset: u64) {
            if bytes.len() >= 16 {
                bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
                bytes[4..8].copy_from_slice(&count.to_le_bytes());
                bytes.resize(encoded_length(count as usize), 7);
            }
            let _ = ChunkList::decode(&bytes);
            if let Ok(view) = ChunkListView::new(&bytes) {
                let _ = view.find(offset..offset.saturating_add(9));
            }
        }
    }
}
