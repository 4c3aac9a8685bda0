//! The little of protobuf that the messages need: varints and strings, in messages without messages inside.
//!
//! Unknown fields are passed over, as protobuf wants it; groups, which proto3 does not have, are refused. A field
//! that comes again counts as it came last.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not protobuf of this call")]
pub struct Malformed;

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no field here has.
    Other,
}

impl<'a> Field<'a> {
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| Malformed),
            _ => Err(Malformed),
        }
    }

    pub(super) fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Malformed),
        }
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for place in 0..10 {
        let (byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        let bits = u64::from(byte & 0x7F);
        if place == 9 && bits > 1 {
            return Err(Malformed);
        }
        value |= bits << (place * 7);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(rest: &mut &'a [u8], count: u64) -> Result<&'a [u8], Malformed> {
    let count = usize::try_from(count).map_err(|_| Malformed)?;
    let (taken, after) = rest.split_at_checked(count).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

/// Gives every field, by its number, to `each`.
pub(super) fn read<'a>(
    mut rest: &'a [u8],
    mut each: impl FnMut(u64, Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut rest)?),
            1 => take(&mut rest, 8).map(|_| Field::Other)?,
            2 => {
                let length = varint(&mut rest)?;
                Field::Bytes(take(&mut rest, length)?)
            }
            5 => take(&mut rest, 4).map(|_| Field::Other)?,
            _ => return Err(Malformed),
        };
        match tag >> 3 {
            0 => return Err(Malformed),
            number => each(number, field)?,
        }
    }
    Ok(())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a number; 0 is what a field that is not there means.
pub(super) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, field << 3);
        put_varint(out, value);
    }
}

/// Writes a string; the empty one is what a field that is not there means.
pub(super) fn put_text(out: &mut Vec<u8>, field: u64, value: &str) {
    if !value.is_empty() {
        put_varint(out, field << 3 | 2);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<u64>, Malformed> {
        let mut numbers = Vec::new();
        read(bytes, |number, _| {
            numbers.push(number);
            Ok(())
        })?;
        Ok(numbers)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        for value in [1, 127, 128, 300, u64::MAX] {
            put_number(&mut out, 3, value);
        }
        put_text(&mut out, 1000, "h\u{e4}");
        put_text(&mut out, 1, "");
        let mut numbers = Vec::new();
        read(&out, |number, field| {
            match number {
                3 => numbers.push(field.number()?),
                _ => assert_eq!((number, field.text()?), (1000, "h\u{e4}")),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(numbers, [1, 127, 128, 300, u64::MAX]);
    }

    #[test]
    fn hostile_bytes_are_refused() {
        for bad in [
            &b"\x0a"[..],
            b"\x0a\x05abc",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0b\x0c",
            b"\x00\x01",
            b"\x07",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x09abc",
            b"\x0dabc",
        ] {
            assert_eq!(fields(bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(fields(b"\x0d1234\x0912345678\x08\x01"), Ok(vec![1, 1, 1]));
    }
}
