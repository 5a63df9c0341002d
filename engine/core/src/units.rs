//! Durations and sizes as people write them.

use std::time::Duration;

use crate::{Error, Result};

const DURATIONS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let number = text[..end].replace('_', "").parse().ok()?;
    Some((number, text[end..].trim()))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text.trim())?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let value = number * *factor as f64;
    (value.is_finite() && value < u64::MAX as f64).then_some(value as u64)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units.iter().find(|(_, factor)| value >= *factor).unwrap_or(&units[units.len() - 1]);
    if value.is_multiple_of(*factor) {
        format!("{}{name}", value / factor)
    } else {
        format!("{:.1}{name}", value as f64 / *factor as f64)
    }
}

/// Reads `"20ms"`, `"5s"`, `"7d"`.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(thalweg_core::parse_duration("20ms").unwrap(), Duration::from_millis(20));
/// assert!(thalweg_core::parse_duration("20").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<Duration> {
    parse(text, &DURATIONS).map(Duration::from_nanos).ok_or_else(|| {
        Error::user(
            "duration",
            format!("{text:?} is no duration; write a number and one of ns, us, ms, s, m, h, d, as in \"20ms\""),
        )
    })
}

/// Reads `"64KiB"`, `"1GiB"`, `"500MB"`.
pub fn parse_bytes(text: &str) -> Result<u64> {
    parse(text, &SIZES).ok_or_else(|| {
        Error::user(
            "size",
            format!("{text:?} is no size; write a number and one of B, kB, MB, GB, KiB, MiB, GiB, as in \"64KiB\""),
        )
    })
}

/// The shortest form of a duration, to one digit after the point.
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), &DURATIONS)
}

/// The shortest form of a size, to one digit after the point.
pub fn format_bytes(bytes: u64) -> String {
    if bytes < 1 << 10 { format!("{bytes}B") } else { format(bytes, &SIZES[..3]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_round_trip() {
        for text in ["20ms", "5s", "7d", "1h", "1.5s"] {
            assert_eq!(format_duration(parse_duration(text).expect(text)), text);
        }
        for text in ["64KiB", "1GiB", "12B", "1.5MiB"] {
            assert_eq!(format_bytes(parse_bytes(text).expect(text)), text);
        }
        assert!(parse_duration("x").is_err() && parse_bytes("1 parsec").is_err());
    }
}
