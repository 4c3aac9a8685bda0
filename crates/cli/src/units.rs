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
