//! How much memory a compressed body asks for, by its first bytes: what its format says of its window.

use firn_formats::nix::Compression;

/// First bytes that are looked at: no format needs more to say its window.
pub(super) const FIRST_BYTES: usize = 64;
/// Every decoder may have a window of so much; a larger one is paid for.
pub(super) const FREE_BYTES: u64 = 2 << 20;
/// Log of the largest zstd window: its highest level uses 27, which Nix reads too.
const ZSTD_LOG_MAX: u32 = 27;
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
/// Length of the header of an .xz file.
const XZ_HEADER_BYTES: usize = 12;
const XZ_LZMA2: u64 = 0x21;
/// Memory an xz body may ask for: its highest preset needs 65 MiB.
const XZ_BYTES_MAX: u64 = 128 << 20;
/// What xz needs beside its window.
const XZ_BESIDE_BYTES: u64 = 1 << 20;

/// The window is larger than any that is taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("its window is larger than the {0} MiB that are taken; compress it with a smaller one")]
pub(super) struct WindowTooLarge(u64);

/// The window that a body's first bytes ask for. What cannot be read asks for none: its decoder refuses it.
pub(super) fn window(format: Compression, first: &[u8]) -> Result<u64, WindowTooLarge> {
    let (asked, most) = match format {
        Compression::Zstd => (zstd(first), 1 << ZSTD_LOG_MAX),
        Compression::Xz => (xz(first).map(|bytes| bytes + XZ_BESIDE_BYTES), XZ_BYTES_MAX),
        Compression::Brotli => (first.first().map(|byte| brotli(*byte)), 1 << 24),
        _ => (None, 0),
    };
    match asked.unwrap_or(0) {
        asked if asked > most => Err(WindowTooLarge(most >> 20)),
        asked => Ok(asked.max(FREE_BYTES)),
    }
}

/// RFC 8878, 3.1.1.1: the frame header's descriptor, then the window's or the content's size.
fn zstd(first: &[u8]) -> Option<u64> {
    let rest = first.strip_prefix(&ZSTD_MAGIC)?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let byte = *rest.first()?;
        let base = 1u64 << (10 + u32::from(byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let bytes = rest.get(dictionary..)?;
    let number = |length: usize| {
        let mut number = [0; 8];
        number
            .get_mut(..length)?
            .copy_from_slice(bytes.get(..length)?);
        Some(u64::from_le_bytes(number))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2).map(|length| length + 256),
        2 => number(4),
        _ => number(8),
    }
}

/// The .xz file format, 3.1: the filters of the first block, of which LZMA2 has a dictionary.
fn xz(first: &[u8]) -> Option<u64> {
    let block = first
        .strip_prefix(XZ_MAGIC)?
        .get(XZ_HEADER_BYTES - XZ_MAGIC.len()..)?;
    let (_size, block) = block.split_first()?;
    let (flags, mut rest) = block.split_first()?;
    for present in [flags & 0x40, flags & 0x80] {
        if present != 0 {
            xz_number(&mut rest)?;
        }
    }
    for _ in 0..=flags & 3 {
        let (id, length) = (xz_number(&mut rest)?, xz_number(&mut rest)?);
        let (properties, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        if id == XZ_LZMA2 {
            let bits = u32::from(*properties.first()? & 0x3f);
            return Some(u64::from(2 | (bits & 1)) << (bits / 2 + 11));
        }
    }
    None
}

fn xz_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// RFC 7932, 9.1. One pattern is no standard window: it begins a stream with one of up to a gigabyte.
fn brotli(byte: u8) -> u64 {
    let log = match (byte & 1, byte >> 1 & 7, byte >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, 1) => return u64::MAX,
        (_, 0, small) => 8 + u32::from(small),
        (_, large, _) => 17 + u32::from(large),
    };
    1 << log
}

/// Log of the smallest power of two that has room for a window.
pub(super) fn log(window: u64) -> u32 {
    window.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn windows_are_read_from_what_encoders_write() {
        let text = vec![7; 100_000];
        for log in [10, 17, 21, 23, 27] {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(&text).unwrap();
            let body = encoder.finish().unwrap();
            assert_eq!(zstd(&body), Some(1 << log), "{log}");
        }
        let whole = zstd::bulk::compress(&text, 3).unwrap();
        assert_eq!(zstd(&whole), Some(100_000));
        for (preset, mib) in [(1, 1), (6, 8), (9, 64)] {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), preset);
            encoder.write_all(&text).unwrap();
            let body = encoder.finish().unwrap();
            assert_eq!(xz(&body), Some(mib << 20), "{preset}");
        }
        assert_eq!(brotli(0x0f), 1 << 24);
        assert_eq!(brotli(0x0b), 1 << 22);
        assert_eq!(brotli(0x0c), 1 << 16);
    }

    #[test]
    fn s9_windows_beyond_what_is_taken_are_refused_and_nothing_panics() {
        let huge_zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff];
        let huge_xz = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x27";
        for (format, body, most) in [
            (Compression::Zstd, &huge_zstd[..], 128),
            (Compression::Xz, huge_xz, 128),
            (Compression::Brotli, b"\x11\x1e", 16),
        ] {
            assert_eq!(
                window(format, body),
                Err(WindowTooLarge(most)),
                "{format:?}"
            );
            for length in 0..body.len() {
                let _ = window(format, &body[..length]);
            }
        }
        for byte in 0..=255 {
            let _ = window(Compression::Xz, &[XZ_MAGIC, &[byte; 58]].concat());
            let _ = window(Compression::Zstd, &[&ZSTD_MAGIC[..], &[byte; 20]].concat());
        }
    }
}
