//! Bytes put into xz, gzip and brotli formats without compressing them.
//!
//! A client that once saw `<hash>.nar.xz` asks for it for a month. The bytes it
//! then gets are a valid stream of that format, made at the speed of a copy and
//! always the same, with a length known beforehand ([`wrapped_length`]).
//!
//! - xz: one block of LZMA2 chunks "uncompressed", CRC-32 check (the .xz file
//!   format 1.2.1, sections 2 to 5).
//! - gzip: one member of stored blocks (RFC 1952, RFC 1951 3.2.4).
//! - brotli: uncompressed meta-blocks (RFC 7932 9.2), window of 16 bits.

mod xz;

/// The formats that can hold bytes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    Xz,
    Gzip,
    Brotli,
}

/// The input was not as long as it was said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given} bytes were given to wrap where {promised} were announced")]
pub struct LengthError {
    /// Bytes announced to [`Encoder::new`].
    pub promised: u64,
    /// Bytes given so far.
    pub given: u64,
}

/// Most bytes in a stored block of deflate.
const GZIP_BLOCK: u64 = 65_535;
/// Bytes before each stored block: header bits, length, its complement.
const GZIP_BLOCK_HEADER: u64 = 5;
/// Member header: magic, deflate, no flags, no time, no hints, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// CRC-32 and size.
const GZIP_TRAILER: u64 = 8;

/// Most bytes in an uncompressed meta-block whose length has four nibbles.
const BROTLI_BLOCK: u64 = 1 << 16;
/// Bytes before each meta-block.
const BROTLI_BLOCK_HEADER: u64 = 3;

impl Format {
    /// Most input bytes in one block.
    const fn block(self) -> u64 {
        match self {
            Self::Xz => xz::CHUNK,
            Self::Gzip => GZIP_BLOCK,
            Self::Brotli => BROTLI_BLOCK,
        }
    }
}

/// Length of the wrapped form of `input_length` bytes; saturates.
pub fn wrapped_length(format: Format, input_length: u64) -> u64 {
    let blocks = input_length.div_ceil(format.block());
    let overhead = match format {
        Format::Xz => xz::overhead(input_length),
        Format::Gzip => GZIP_HEADER.len() as u64 + blocks.max(1) * GZIP_BLOCK_HEADER + GZIP_TRAILER,
        Format::Brotli => blocks * BROTLI_BLOCK_HEADER + 1,
    };
    input_length.saturating_add(overhead)
}

/// Wraps a stream of known length, in pieces of any size; it holds none of it.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    promised: u64,
    given: u64,
    /// Bytes that the current block still takes.
    block_left: u64,
    crc: crc32fast::Hasher,
}

impl Encoder {
    /// For exactly `input_length` bytes.
    pub fn new(format: Format, input_length: u64) -> Self {
        Self {
            format,
            promised: input_length,
            given: 0,
            block_left: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// Appends the wrapped form of the next bytes to `out`. More bytes than
    /// announced are an error, and nothing is appended.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), LengthError> {
        let given = self.given.saturating_add(input.len() as u64);
        if given > self.promised {
            return Err(self.mismatch(given));
        }
        if self.format != Format::Brotli {
            self.crc.update(input);
        }
        let mut rest = input;
        while !rest.is_empty() {
            if self.block_left == 0 {
                self.begin_block(out);
            }
            let left = usize::try_from(self.block_left).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(left.min(rest.len()));
            out.extend_from_slice(now);
            self.block_left -= now.len() as u64;
            self.given += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Appends what ends the stream. It is an error if bytes are missing.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), LengthError> {
        if self.given != self.promised {
            return Err(self.mismatch(self.given));
        }
        if self.given == 0 {
            self.begin_empty(out);
        }
        let crc = std::mem::take(&mut self.crc).finalize();
        match self.format {
            Format::Xz => xz::end(self.given, crc, out),
            Format::Gzip => {
                out.extend_from_slice(&crc.to_le_bytes());
                // The size is kept modulo 2^32.
                out.extend_from_slice(&(self.given as u32).to_le_bytes());
            }
            // An empty last meta-block: ISLAST and ISLASTEMPTY.
            Format::Brotli if self.given > 0 => out.push(0b11),
            // The same after the one bit of the window size.
            Format::Brotli => out.push(0b110),
        }
        Ok(())
    }

    fn mismatch(&self, given: u64) -> LengthError {
        LengthError {
            promised: self.promised,
            given,
        }
    }

    fn begin_empty(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Xz => xz::begin(out),
            Format::Gzip => {
                out.extend_from_slice(&GZIP_HEADER);
                gzip_block(true, 0, out);
            }
            Format::Brotli => {}
        }
    }

    /// Starts a block as large as the format and the announced length allow, so
    /// that the output does not depend on the pieces.
    fn begin_block(&mut self, out: &mut Vec<u8>) {
        let left = self.promised - self.given;
        self.block_left = left.min(self.format.block());
        let first = self.given == 0;
        // A block's size fits in 16 bits once 1 is taken off, for each format.
        let size_less_one = self.block_left.saturating_sub(1) as u16;
        match self.format {
            Format::Xz => {
                if first {
                    xz::begin(out);
                }
                xz::chunk(first, size_less_one, out);
            }
            Format::Gzip => {
                if first {
                    out.extend_from_slice(&GZIP_HEADER);
                }
                gzip_block(left == self.block_left, self.block_left as u16, out);
            }
            Format::Brotli => brotli_block(first, size_less_one, out),
        }
    }
}

/// The block's three header bits fill a byte, since stored data are aligned.
fn gzip_block(last: bool, size: u16, out: &mut Vec<u8>) {
    out.push(u8::from(last));
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&(!size).to_le_bytes());
}

/// ISLAST 0, MNIBBLES 0 (four of them), MLEN - 1, ISUNCOMPRESSED 1, fill bits;
/// the first is after a WBITS of one zero bit.
fn brotli_block(first: bool, size_less_one: u16, out: &mut Vec<u8>) {
    let bits = (u32::from(size_less_one) << 3) | (1 << 19);
    let bits = if first { bits << 1 } else { bits };
    let [low, middle, high, _] = bits.to_le_bytes();
    out.extend_from_slice(&[low, middle, high]);
}

#[cfg(test)]
mod tests;
