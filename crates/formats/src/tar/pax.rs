//! PAX extended headers: records `length key=value\n`, where the decimal length
//! counts the whole record, itself included.

use super::NAME_BYTES_MAX;

/// Appends one record.
pub(super) fn put_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    // Space, equals sign and newline; the length's own digits come on top, and
    // counting them may make it one digit longer.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + decimal_digits(rest);
    length = rest + decimal_digits(length);
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(value: usize) -> usize {
    value.checked_ilog10().unwrap_or(0) as usize + 1
}

/// What extended headers say of an entry in place of its own header.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<u64>,
}

impl Overrides {
    /// Applies an extended header's records, in order; other keys are ignored.
    pub(super) fn apply(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value, rest) = split_record(records).ok_or("broken PAX record")?;
            records = rest;
            self.set(key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link_path = name(value)?,
            b"size" => self.size = integer(value)?,
            b"uid" => self.uid = integer(value)?,
            b"gid" => self.gid = integer(value)?,
            b"mtime" => self.mtime = seconds(value)?,
            sparse if sparse.starts_with(b"GNU.sparse.") => {
                return Err("sparse files are not supported");
            }
            _ => {}
        }
        Ok(())
    }
}

/// `(key, value, what follows)` of the first record.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    match equals {
        0 => None,
        _ => Some((&body[..equals], &body[equals + 1..], rest)),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

// An empty value takes an earlier record back, in each of the three forms.

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    match value {
        [] => Ok(None),
        long if long.len() > NAME_BYTES_MAX => Err("name too long"),
        nul if nul.contains(&0) => Err("NUL in a PAX name"),
        name => Ok(Some(name.to_vec())),
    }
}

fn integer(value: &[u8]) -> Result<Option<u64>, &'static str> {
    match value {
        [] => Ok(None),
        text => decimal(text)
            .map(Some)
            .ok_or("broken number in a PAX record"),
    }
}

/// Whole seconds of a decimal fraction; before 1970 is 0.
fn seconds(value: &[u8]) -> Result<Option<u64>, &'static str> {
    let (negative, digits) = match value {
        [] => return Ok(None),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &[][..]),
    };
    match decimal(whole) {
        Some(_) if !fraction.iter().all(u8::is_ascii_digit) => Err("broken time in a PAX record"),
        Some(_) if negative => Ok(Some(0)),
        Some(seconds) => Ok(Some(seconds)),
        None => Err("broken time in a PAX record"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_count_themselves_at_every_edge() {
        // 9 → 10, 99 → 100 and so on: where the count's own digits grow.
        for value_length in (0..30).chain(80..110).chain(980..1010).chain(9_980..10_010) {
            let mut record = Vec::new();
            put_record(&mut record, "k", &vec![b'v'; value_length]);
            let text = String::from_utf8(record.clone()).unwrap();
            let stated: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(stated, record.len());
        }
        let mut record = Vec::new();
        put_record(&mut record, "path", b"a\nb");
        assert_eq!(record, b"12 path=a\nb\n");
    }

    #[test]
    fn records_apply_in_order_and_empty_ones_take_back() {
        let mut overrides = Overrides::default();
        let records =
            b"9 path=a\n9 path=b\n7 uid=\n9 uid=17\n7 uid=\n21 mtime=1234.567890\n15 comment=x=y\n";
        overrides.apply(records).unwrap();
        assert_eq!(
            overrides,
            Overrides {
                path: Some(b"b".to_vec()),
                mtime: Some(1234),
                ..Overrides::default()
            }
        );
    }

    #[test]
    fn broken_records_are_refused() {
        for records in [
            &b"x"[..],
            b"9 path=a",
            b"9 path=ab\n",
            b"8 path=a\n",
            b"6 path\n",
            b"5 =a\n\n",
            b"0 path=a\n",
            b"1 \n",
            b"+9 path=a\n",
            b" 9 path=a\n",
            b"99999999999999999999 path=a\n",
            b"11 size=-10\n",
            b"12 mtime=1.x\n",
            b"11 mtime=.\n\n",
            b"10 path=a\0\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            let mut overrides = Overrides::default();
            assert!(overrides.apply(records).is_err(), "{records:?} was taken");
        }
        let mut long = Vec::new();
        put_record(&mut long, "path", &vec![b'a'; NAME_BYTES_MAX + 1]);
        assert!(Overrides::default().apply(&long).is_err());
    }

    #[test]
    fn times_before_the_epoch_are_the_epoch() {
        let mut overrides = Overrides::default();
        overrides.apply(b"14 mtime=-3.5\n").unwrap();
        assert_eq!(overrides.mtime, Some(0));
    }

    proptest! {
        #[test]
        fn written_records_are_read(path in prop::collection::vec(1u8.., 1..300), size in any::<u64>()) {
            let mut records = Vec::new();
            put_record(&mut records, "path", &path);
            put_record(&mut records, "size", size.to_string().as_bytes());
            let mut overrides = Overrides::default();
            overrides.apply(&records).unwrap();
            prop_assert_eq!(overrides.path, Some(path));
            prop_assert_eq!(overrides.size, Some(size));
        }

        #[test]
        fn no_records_panic(records in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Overrides::default().apply(&records);
        }
    }
}
