//! Where a region is cut: FastCDC, and store references inside file contents.

/// Bounds of chunks, in bytes, and the zstd level. Part of the format: every
/// writer must use the same, or nothing deduplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Params {
    /// A file of at least this size is a region of its own.
    pub file_bytes_min: usize,
    pub chunk_bytes_min: usize,
    pub chunk_bytes_avg: usize,
    pub chunk_bytes_max: usize,
    /// A store hash whose neighbours are at least this far away is cut out.
    pub reference_distance_bytes: usize,
    pub zstd_level: i32,
}

/// The parameters of format version 1.
pub const V1: Params = Params {
    file_bytes_min: 4 << 10,
    chunk_bytes_min: 16 << 10,
    chunk_bytes_avg: 64 << 10,
    chunk_bytes_max: 256 << 10,
    reference_distance_bytes: 4 << 10,
    zstd_level: 2,
};

/// One random 64-bit word for each value of a byte: the outputs of SplitMix64 seeded with
/// the ASCII letters `FIRNGEAR`. Part of the format.
static GEAR: [u64; 256] = gear_table(u64::from_be_bytes(*b"FIRNGEAR"));

const fn gear_table(seed: u64) -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = seed;
    let mut index = 0;
    while index < table.len() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        table[index] = word ^ (word >> 31);
        index += 1;
    }
    table
}

/// Bytes that the rolling hash remembers: each byte is shifted out of 64 bits after as many.
const GEAR_WINDOW_BYTES: usize = 64;
/// How many bits harder than the average a cut is before it, and easier after it.
const NORMALIZATION_BITS: u32 = 2;

/// Length of the first chunk of `bytes` by FastCDC (Xia et al., USENIX ATC 2016) with
/// normalized chunking at level 2. All of `bytes` if they end before a boundary; at most
/// `chunk_bytes_max` of them are looked at.
///
/// A position is a boundary where the top bits of the gear hash of the 64 bytes before it
/// are zero: two more bits than the average asks for up to the average, two fewer after it.
pub(crate) fn content_cut(params: &Params, bytes: &[u8]) -> usize {
    let end = bytes.len().min(params.chunk_bytes_max);
    let start = params.chunk_bytes_min;
    if end <= start {
        return end;
    }
    let middle = params.chunk_bytes_avg.clamp(start, end);
    let bits = params.chunk_bytes_avg.ilog2();
    let hard = 1u64 << (64 - (bits + NORMALIZATION_BITS));
    let easy = 1u64 << (64 - (bits - NORMALIZATION_BITS));
    let warm_up = &bytes[start.saturating_sub(GEAR_WINDOW_BYTES)..start];
    let mut hash = warm_up.iter().fold(0, |hash, byte| roll(hash, *byte));
    if let Some(length) = first_below(&mut hash, hard, &bytes[start..middle]) {
        return start + length;
    }
    if let Some(length) = first_below(&mut hash, easy, &bytes[middle..end]) {
        return middle + length;
    }
    end
}

#[inline(always)]
fn roll(hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(GEAR[usize::from(byte)])
}

/// Rolls over `bytes` until the hash is below `limit`; how many bytes that took.
/// In blocks, so that the loop over a block unrolls: this is the hottest loop of a push.
fn first_below(hash: &mut u64, limit: u64, bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 16;
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut now = *hash;
    for (index, block) in blocks.iter().enumerate() {
        for (at, byte) in block.iter().enumerate() {
            now = roll(now, *byte);
            if now < limit {
                return Some(index * BLOCK + at + 1);
            }
        }
    }
    for (at, byte) in rest.iter().enumerate() {
        now = roll(now, *byte);
        if now < limit {
            return Some(blocks.len() * BLOCK + at + 1);
        }
    }
    *hash = now;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gear_table_is_golden() {
        let bytes: Vec<u8> = GEAR.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(
            crate::ChunkId::of(&bytes).to_string(),
            "6e0e14a8d33433ce339fdb2c2cce4e0282198699f16c3c3cc23620e6beb69902"
        );
    }

    #[test]
    fn cuts_of_noise_are_golden_and_near_the_average() {
        let mut noise = vec![0; 8 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let (mut rest, mut lengths) = (&noise[..], Vec::new());
        while !rest.is_empty() {
            let length = content_cut(&V1, rest);
            assert!(length <= V1.chunk_bytes_max);
            assert!(length >= V1.chunk_bytes_min || length == rest.len());
            lengths.push(length);
            rest = &rest[length..];
        }
        let mean = noise.len() / lengths.len();
        assert!(
            (V1.chunk_bytes_avg * 3 / 4..V1.chunk_bytes_avg * 3 / 2).contains(&mean),
            "{mean}"
        );
        assert_eq!(lengths[..4], [73425, 71866, 65743, 67562]);
    }
}
