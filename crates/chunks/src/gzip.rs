//! The gzip representation: deterministic, so that whoever makes it from the same bytes gets the same digest.
//!
//! RFC 1952 with mtime 0, OS 255 (unknown) and no name, DEFLATE by zlib-rs at level 6. The
//! compressor's output depends on the pieces in which it is fed (where it has to match
//! without looking ahead), so it gets blocks of 64 KiB, whatever comes in.

use flate2::{Compression, GzBuilder, write::GzEncoder};
use std::io::{self, Write};

/// Part of the format, as are level and header.
const BLOCK_BYTES: usize = 64 << 10;
const LEVEL: u32 = 6;
const OS_UNKNOWN: u8 = 255;

/// Compresses what is written to it, in bounded memory.
#[derive(Debug)]
pub struct GzipEncoder<W: Write> {
    encoder: GzEncoder<W>,
    /// Less than a block.
    held: Vec<u8>,
}

impl<W: Write> GzipEncoder<W> {
    /// Writes the gzip stream to `out`.
    pub fn new(out: W) -> Self {
        let encoder = GzBuilder::new()
            .mtime(0)
            .operating_system(OS_UNKNOWN)
            .write(out, Compression::new(LEVEL));
        Self {
            encoder,
            held: Vec::with_capacity(BLOCK_BYTES),
        }
    }

    /// Where the stream goes; take from it what is there, but write nothing.
    pub fn get_mut(&mut self) -> &mut W {
        self.encoder.get_mut()
    }

    /// Writes the last bytes.
    pub fn finish(mut self) -> io::Result<W> {
        self.encoder.write_all(&self.held)?;
        self.encoder.finish()
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held.is_empty() && bytes.len() >= BLOCK_BYTES {
            self.encoder.write_all(&bytes[..BLOCK_BYTES])?;
            return Ok(BLOCK_BYTES);
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == BLOCK_BYTES {
            self.encoder.write_all(&self.held)?;
            self.held.clear();
        }
        Ok(taken)
    }

    /// Does nothing: a flush would show in the stream.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Text and noise, so that matches and literals alternate.
    fn sample() -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut bytes = Vec::new();
        while bytes.len() < 500_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let line = format!("{} bottles on the wall {}\n", state % 100, state % 7);
            bytes.extend_from_slice(line.repeat(1 + (state % 3) as usize).as_bytes());
            bytes.extend_from_slice(&state.to_le_bytes()[..(state % 9) as usize]);
        }
        bytes
    }

    fn gzip(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = GzipEncoder::new(Vec::new());
        for part in bytes.chunks(piece) {
            encoder.write_all(part).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    #[test]
    fn pieces_do_not_show() {
        let bytes = sample();
        let whole = gzip(&bytes, bytes.len());
        for piece in [999, 4_096, 65_535, 65_536, 65_537, 300_000] {
            assert!(gzip(&bytes, piece) == whole, "pieces of {piece} show");
        }
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(whole.as_slice())
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == bytes);
    }

    #[test]
    fn the_header_says_nothing_of_the_place() {
        let empty = gzip(&[], 1);
        assert_eq!(empty[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        assert_eq!(empty, [&empty[..10], &[3, 0], &[0; 8]].concat());
    }
}
