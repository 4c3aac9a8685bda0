//! The Range header: one range of bytes, as clients that resume send it.

/// What a Range header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranged {
    /// No range, or one of a form that may be passed over.
    Whole,
    /// First byte and length.
    Part(u64, u64),
    /// A range outside the bytes, or one that ends before it begins.
    Unsatisfiable,
}

/// Reads a Range header for a body of `length` bytes. Several ranges are answered by the whole.
pub(crate) fn parse(header: Option<&str>, length: u64) -> Ranged {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Ranged::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Ranged::Whole;
    };
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), _)
            if first >= length && (last.trim().is_empty() || number(last).is_some()) =>
        {
            Ranged::Unsatisfiable
        }
        (Some(first), Some(last)) if last >= first => {
            Ranged::Part(first, last.min(length - 1) - first + 1)
        }
        (Some(_), Some(_)) => Ranged::Unsatisfiable,
        (Some(first), None) if last.trim().is_empty() => Ranged::Part(first, length - first),
        (None, Some(0)) if first.trim().is_empty() => Ranged::Unsatisfiable,
        (None, Some(_)) if first.trim().is_empty() && length == 0 => Ranged::Unsatisfiable,
        (None, Some(suffix)) if first.trim().is_empty() => {
            let count = suffix.min(length);
            Ranged::Part(length - count, count)
        }
        _ => Ranged::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, length, expected) in [
            ("bytes=0-0", 10, Ranged::Part(0, 1)),
            ("bytes=2-", 10, Ranged::Part(2, 8)),
            ("bytes=2-99", 10, Ranged::Part(2, 8)),
            ("bytes=-3", 10, Ranged::Part(7, 3)),
            ("bytes=-30", 10, Ranged::Part(0, 10)),
            ("bytes=-0", 10, Ranged::Unsatisfiable),
            ("bytes=10-", 10, Ranged::Unsatisfiable),
            ("bytes=10-12", 10, Ranged::Unsatisfiable),
            ("bytes=0-", 0, Ranged::Unsatisfiable),
            ("bytes=5-2", 10, Ranged::Unsatisfiable),
            ("bytes=a-b", 10, Ranged::Whole),
            ("bytes=0-1,3-4", 10, Ranged::Whole),
            ("bytes=+1-2", 10, Ranged::Whole),
            ("lines=1-2", 10, Ranged::Whole),
            ("bytes=99999999999999999999-", 10, Ranged::Unsatisfiable),
        ] {
            assert_eq!(parse(Some(header), length), expected, "{header}");
        }
        assert_eq!(parse(None, 10), Ranged::Whole);
    }
}
