//! The header block: its fields and their numbers.

use super::BLOCK_BYTES;
use std::ops::Range;

pub(super) type Block = [u8; BLOCK_BYTES];

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK_NAME: Range<usize> = 157..257;
/// Magic and version together.
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const DEVICE_MAJOR: Range<usize> = 329..337;
pub(super) const DEVICE_MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;

pub(super) const USTAR_MAGIC: &[u8; 8] = b"ustar\x0000";

/// Largest value of an octal field of `width` bytes, of which one is the NUL.
pub(super) const fn octal_max(width: usize) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

/// Writes `value` with leading zeros and a closing NUL. The caller has checked
/// it against [`octal_max`]; higher digits would be lost.
pub(super) fn put_octal(field: &mut [u8], value: u64) {
    let Some((last, digits)) = field.split_last_mut() else {
        return;
    };
    *last = 0;
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// Writes the checksum over the otherwise complete block.
pub(super) fn seal(block: &mut Block) {
    let (sum, _) = checksums(block);
    // Six digits, NUL, space: the historical form of this one field.
    put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], u64::from(sum));
    block[CHECKSUM.end - 1] = b' ';
}

/// The checksum holds; old writers summed signed bytes.
pub(super) fn is_sealed(block: &Block) -> bool {
    let (unsigned, signed) = checksums(block);
    match number(&block[CHECKSUM]) {
        Ok(Some(stated)) => {
            stated == u64::from(unsigned) || i64::try_from(stated) == Ok(i64::from(signed))
        }
        _ => false,
    }
}

fn checksums(block: &Block) -> (u32, i32) {
    let spaces = CHECKSUM.len() as u32 * u32::from(b' ');
    let counted = || block[..CHECKSUM.start].iter().chain(&block[CHECKSUM.end..]);
    let unsigned = counted().map(|byte| u32::from(*byte)).sum::<u32>();
    let signed = counted()
        .map(|byte| i32::from(byte.cast_signed()))
        .sum::<i32>();
    (unsigned + spaces, signed + spaces as i32)
}

/// A field's bytes up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field is neither octal nor base-256, or exceeds 64 bits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

/// Reads a numeric field: octal, or GNU's base-256; `None` if negative, which
/// only base-256 can be.
pub(super) fn number(field: &[u8]) -> Result<Option<u64>, NotANumber> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field).map(Some),
    }
}

fn octal(field: &[u8]) -> Result<u64, NotANumber> {
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' if value >> 61 == 0 => Ok(value << 3 | u64::from(digit - b'0')),
        _ => Err(NotANumber),
    })
}

/// Two's complement, most significant byte first; the top bit is the mark of
/// the form, the next one the sign.
fn base_256(field: &[u8]) -> Result<Option<u64>, NotANumber> {
    let mut bytes = field.iter();
    let first = bytes.next().map_or(0, |first| first & 0x7f);
    if first & 0x40 != 0 {
        return Ok(None);
    }
    bytes
        .try_fold(u64::from(first), |value, byte| match value >> 56 {
            0 => Ok(value << 8 | u64::from(*byte)),
            _ => Err(NotANumber),
        })
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn octal_fields_are_read_in_every_customary_form() {
        for field in [
            &b"0000644\0"[..],
            b"000644 \0",
            b"   644 \0",
            b"    644\0",
            b"644\0junk",
            b"00000644",
        ] {
            assert_eq!(number(field), Ok(Some(0o644)), "{field:?}");
        }
        assert_eq!(number(&[0; 8]), Ok(Some(0)));
        assert_eq!(number(b"        "), Ok(Some(0)));
        assert_eq!(number(b"0000648\0"), Err(NotANumber));
        assert_eq!(number(b"-000644\0"), Err(NotANumber));
        assert_eq!(number(b"6 44\0\0\0\0"), Err(NotANumber));
        assert_eq!(number(&[b'7'; 30]), Err(NotANumber));
    }

    #[test]
    fn base_256_fields_are_read_up_to_64_bits() {
        let mut field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(number(&field), Ok(Some(u64::MAX)));
        field[3] = 1;
        assert_eq!(number(&field), Err(NotANumber));
        assert_eq!(number(&[0xff; 12]), Ok(None));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0x20, 0, 0]), Ok(Some(1 << 21)));
    }

    proptest! {
        #[test]
        fn octal_round_trips(value in 0..=octal_max(12)) {
            let mut field = [b'x'; 12];
            put_octal(&mut field, value);
            prop_assert_eq!(number(&field), Ok(Some(value)));
        }

        #[test]
        fn a_sealed_block_is_sealed_until_a_byte_changes(
            mut bytes in prop::collection::vec(any::<u8>(), BLOCK_BYTES),
            at in 0..CHECKSUM.start,
        ) {
            let block: &mut Block = bytes.as_mut_slice().try_into().unwrap();
            seal(block);
            prop_assert!(is_sealed(block));
            block[at] ^= 1;
            prop_assert!(!is_sealed(block));
        }
    }
}
