//! Sizes and times as people write and read them.

use std::time::Duration;

/// Decimal units: `12`, `1.5 kB`, `885 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit = UNITS[unit];
    if unit == "B" || value >= 99.95 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Reads `90s`, `15m`, `12h`, `30d`, `4w`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        "w" => 604_800.0,
        other => {
            return Err(format!(
                "unknown unit {other:?}; there are s, m, h, d and w"
            ));
        }
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no duration; write 90s, 15m, 12h or 30d"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

/// Seconds as people say them: `0.4 s`, `12 s`, `3 min`, `53 min`, `1 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let rounded = seconds.round() as u64;
    match rounded {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..120 => format!("{rounded} s"),
        120..7200 => format!("{} min", (rounded + 30) / 60),
        _ => format!("{} h {} min", rounded / 3600, rounded % 3600 / 60),
    }
}

/// Reads `500`, `64K`, `500M`, `2G`, in powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        other => return Err(format!("unknown unit {other:?}; there are K, M, G and T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no size; write 500M or 2G"))?;
    number
        .checked_shl(shift)
        .filter(|bytes| bytes >> shift == number)
        .ok_or_else(|| format!("{text:?} is too much"))
}

/// Reads a time, or `never`, which is 0.
pub(crate) fn parse_limit_time(text: &str) -> Result<u64, String> {
    if text == "never" {
        return Ok(0);
    }
    match parse_duration(text)?.as_secs() {
        0 => Err("less than a second keeps nothing; write `never` to keep all".to_owned()),
        seconds => Ok(seconds),
    }
}

/// Reads a size, or `none`, which is 0.
pub(crate) fn parse_limit_bytes(text: &str) -> Result<u64, String> {
    if text == "none" {
        return Ok(0);
    }
    match parse_bytes(text)? {
        0 => Err("a quota of 0 holds nothing; write `none` for no limit".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A time in seconds since 1970 as people say it: `12 s ago`, `3 d ago`.
pub(crate) fn ago(at: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let seconds = now.saturating_sub(u64::try_from(at).unwrap_or(0));
    match seconds {
        0..172_800 => format!("{} ago", duration(seconds as f64)),
        _ => format!("{} d ago", seconds / 86400),
    }
}

/// Reads `K=V`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (99_949, "99.9 kB"),
            (885_000_000, "885 MB"),
            (999_600, "1.0 MB"),
            (2_500_000_000_000, "2.5 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_and_sizes_are_said_and_read() {
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (9.9, "9.9 s"),
            (9.96, "10 s"),
            (119.0, "119 s"),
            (3180.0, "53 min"),
            (7500.0, "2 h 5 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(parse_bytes("500M"), Ok(500 << 20));
        assert_eq!(parse_bytes("2g"), Ok(2 << 30));
        for bad in ["", "M", "1X", "99999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_limit_bytes("none"), Ok(0));
        assert_eq!(parse_limit_bytes("50G"), Ok(50 << 30));
        assert_eq!(parse_limit_time("never"), Ok(0));
        assert_eq!(parse_limit_time("30d"), Ok(2_592_000));
        assert!(parse_limit_bytes("0").is_err() && parse_limit_time("0s").is_err());
        assert!(ago(0).ends_with(" d ago"));
    }

    #[test]
    fn durations_have_units() {
        let seconds = |text| parse_duration(text).map(|found| found.as_secs());
        assert_eq!(seconds("30d"), Ok(2_592_000));
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("1.5m"), Ok(90));
        for bad in ["", "d", "-1h", "3y", "1 0s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
