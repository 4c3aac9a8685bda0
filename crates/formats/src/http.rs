//! What is read of HTTP's headers: one range of bytes, as clients that resume send it; the place of a piece
//! of an upload; credentials.

use base64::Engine as _;

/// What a Range header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranged {
    /// No range, or one of a form that may be passed over.
    Whole,
    /// First byte and length.
    Part(u64, u64),
    /// A range outside the bytes, or one that ends before it begins.
    Unsatisfiable,
}

/// Reads a Range header for a body of `length` bytes. Several ranges are answered by the whole.
pub fn range(header: Option<&str>, length: u64) -> Ranged {
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

/// First and last byte of a piece that is uploaded: `Content-Range: <first>-<last>`, with or without a unit
/// and a whole length.
pub fn content_range(header: &str) -> Option<(u64, u64)> {
    let spec = header.trim();
    let spec = spec.strip_prefix("bytes").unwrap_or(spec);
    let spec = spec.trim_start_matches([' ', '=']);
    let spec = spec.split('/').next().unwrap_or(spec);
    let (first, last) = spec.split_once('-')?;
    // Not all that `parse` reads is a number here: `+1` is none.
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    Some((number(first)?, number(last)?))
}

/// The token in an Authorization header: Bearer, `token` as `gh` writes it, or Basic whose password is the token
/// (netrc, docker login).
/// Anything else is an empty token, which nobody has.
pub fn token(authorization: &str) -> String {
    let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return rest.to_owned();
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return String::new();
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(rest)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let password = decoded.split_once(':').map_or("", |(_, password)| password);
    password.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials() {
        for (header, expected) in [
            ("Bearer abc", "abc"),
            ("bearer  abc ", "abc"),
            ("token abc", "abc"),
            ("Basic dXNlcjpzZTpjcmV0", "se:cret"),
            ("Basic !!!", ""),
            ("Digest x", ""),
            ("", ""),
        ] {
            assert_eq!(token(header), expected, "{header}");
        }
    }

    #[test]
    fn pieces() {
        for (header, expected) in [
            ("0-9", Some((0, 9))),
            ("bytes 5-9/20", Some((5, 9))),
            ("bytes=5-9", Some((5, 9))),
            ("5-", None),
            ("-9", None),
            ("a-b", None),
            ("", None),
            ("0-99999999999999999999", None),
        ] {
            assert_eq!(content_range(header), expected, "{header}");
        }
    }

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
            assert_eq!(range(Some(header), length), expected, "{header}");
        }
        assert_eq!(range(None, 10), Ranged::Whole);
    }
}
