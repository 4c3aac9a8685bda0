//! The parts of an .xz stream around uncompressed LZMA2 chunks.

/// Most bytes in an uncompressed LZMA2 chunk.
pub(super) const CHUNK: u64 = 1 << 16;

const HEADER_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const FOOTER_MAGIC: [u8; 2] = *b"YZ";
/// Check type CRC-32.
const STREAM_FLAGS: [u8; 2] = [0, 1];
/// Size in words less one, one filter, LZMA2 (0x21) with one byte of
/// properties (a dictionary of 4 KiB), padding.
const BLOCK_HEADER: [u8; 8] = [2, 0, 0x21, 1, 0, 0, 0, 0];
const CRC: u64 = 4;
const STREAM_HEADER: u64 = 12;
const BLOCK_HEADER_SIZE: u64 = BLOCK_HEADER.len() as u64 + CRC;
/// Control byte and two bytes of size.
const CHUNK_HEADER: u64 = 3;

pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER_MAGIC);
    with_crc(&STREAM_FLAGS, out);
    with_crc(&BLOCK_HEADER, out);
}

/// The first chunk resets the dictionary.
pub(super) fn chunk(first: bool, size_less_one: u16, out: &mut Vec<u8>) {
    out.push(if first { 1 } else { 2 });
    out.extend_from_slice(&size_less_one.to_be_bytes());
}

/// LZMA2's end, the block's padding and check, the index, the footer.
pub(super) fn end(size: u64, crc: u32, out: &mut Vec<u8>) {
    let compressed = compressed_size(size);
    out.push(0);
    pad(compressed, out);
    out.extend_from_slice(&crc.to_le_bytes());
    let index = index(size);
    with_crc(&index, out);
    // The footer's sum is before what it covers: the index' size in words, with
    // its CRC, less one.
    let words = (index.len() / 4) as u32;
    let mut covered = words.to_le_bytes().to_vec();
    covered.extend_from_slice(&STREAM_FLAGS);
    out.extend_from_slice(&crc32fast::hash(&covered).to_le_bytes());
    out.extend_from_slice(&covered);
    out.extend_from_slice(&FOOTER_MAGIC);
}

/// What the stream has beyond its content.
pub(super) fn overhead(size: u64) -> u64 {
    let compressed = compressed_size(size);
    let index = index(size).len() as u64 + CRC;
    let around = STREAM_HEADER + BLOCK_HEADER_SIZE + padding(compressed) + CRC + index;
    around + STREAM_HEADER + (compressed - size)
}

/// LZMA2 data with its end marker. Sizes near 2^64 are out of the format's reach.
fn compressed_size(size: u64) -> u64 {
    size.saturating_add(size.div_ceil(CHUNK) * CHUNK_HEADER + 1)
}

/// The index without its CRC: one record, padded.
fn index(size: u64) -> Vec<u8> {
    let mut out = vec![0, 1];
    variable_length(
        (BLOCK_HEADER_SIZE + CRC).saturating_add(compressed_size(size)),
        &mut out,
    );
    variable_length(size, &mut out);
    pad(out.len() as u64, &mut out);
    out
}

/// Seven bits a byte, the least significant first.
fn variable_length(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const fn padding(size: u64) -> u64 {
    size.wrapping_neg() & 3
}

fn pad(size: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4][..padding(size) as usize]);
}

fn with_crc(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
}
