//! Human-readable sizes, counts and durations: `64MiB`, `10G`, `90s`, `5m`.

use std::fmt::Display;
use std::time::Duration;

use crate::content::MEMORY_LEAST;
pub use crate::view::shown::{show_size, show_time};

/// Smallest cache, in bytes.
const CACHE_LEAST: u64 = 8 << 20;

/// Units of size. One letter is a power of 1024, as in `dd`, `truncate` and `fallocate`; `MB` is a power of 1000.
const SIZES: [(&str, u64); 19] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("ti", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
    ("p", 1 << 50),
];

/// Units of time, in milliseconds. A plain number means seconds.
const DURATIONS: [(&str, u64); 9] = [
    ("", 1_000),
    ("ms", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Parses a size in bytes.
///
/// # Errors
/// The text is not a number, the unit is unknown, or the size exceeds 2⁶⁴ bytes.
pub fn size(text: &str) -> Result<u64, String> {
    parse(text, &SIZES).ok_or_else(|| format!("`{}` is not a size; write it like 64MiB, 10G or 4096", text.escape_debug()))
}

/// Parses a memory limit in bytes.
///
/// # Errors
/// As [`size`]; also if the limit is too small for every feature to work.
pub fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes >= MEMORY_LEAST => Ok(bytes),
        _ => Err(format!("`{}` is too little memory; it takes at least {} MiB", text.escape_debug(), MEMORY_LEAST >> 20)),
    }
}

/// Parses the size of a cache in bytes.
///
/// # Errors
/// As [`size`]; also if the size cannot hold a span of a layer; most likely the unit was forgotten.
pub fn cache_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes >= CACHE_LEAST => Ok(bytes),
        _ => Err(format!("`{}` is too small for a cache; it takes at least {} MiB", text.escape_debug(), CACHE_LEAST >> 20)),
    }
}

/// Parses a duration, possibly of several parts (`1h30m`).
///
/// # Errors
/// The text is not a number, the unit is unknown, or the duration is too long.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{}` is not a duration; write it like 90s, 5m, 1h30m or 500ms", text.escape_debug());
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(refuse());
    }
    let mut total: u64 = 0;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let number = rest.find(|byte: char| !byte.is_ascii_digit() && byte != '.').unwrap_or(rest.len());
        let unit = rest[number..].find(|byte: char| byte.is_ascii_digit()).map_or(rest.len(), |length| number + length);
        let part = parse(&rest[..unit], &DURATIONS).ok_or_else(refuse)?;
        total = total.checked_add(part).ok_or_else(refuse)?;
        rest = &rest[unit..];
    }
    Ok(Duration::from_millis(total))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let number = text.find(|byte: char| !byte.is_ascii_digit() && byte != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(number);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u64 = whole.parse().ok()?;
    let value = whole.checked_mul(*factor)?;
    if !digits.contains('.') {
        return Some(value);
    }
    // The length limit keeps the product small.
    let numerator: u64 = fraction.parse().ok().filter(|_| fraction.len() <= 9)?;
    let part = u128::from(numerator) * u128::from(*factor) / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    value.checked_add(u64::try_from(part).ok()?)
}

/// A number of things named by a regular noun: `1 file`, `2 repositories`.
pub fn show_count(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    match (count.as_str(), noun.strip_suffix('y')) {
        ("1", _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

/// Bytes and blobs that were sent, and those that the destination had.
pub fn show_sent(sent: (u64, u64), reused: (u64, u64)) -> String {
    let show = |(bytes, blobs): (u64, u64)| format!("{} in {}", show_size(bytes), show_count(blobs, "blob"));
    match (sent, reused) {
        ((0, 0), (_, 0)) => "nothing sent".to_owned(),
        ((0, 0), (_, 1..)) => format!("nothing sent, {} already there", show(reused)),
        (sent, (_, 0)) => format!("sent {}", show(sent)),
        (sent, reused) => format!("sent {}, {} already there", show(sent), show(reused)),
    }
}

/// Formats a duration in its two largest units.
pub fn show_duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_the_plural_unless_they_are_one() {
        assert_eq!((show_count(1, "file"), show_count(0, "file")), ("1 file".to_owned(), "0 files".to_owned()));
        assert_eq!(show_count(2, "repository"), "2 repositories");
    }

    #[test]
    fn empty_parts_of_a_transfer_are_not_shown() {
        assert_eq!(show_sent((0, 0), (0, 0)), "nothing sent");
        assert_eq!(show_sent((2048, 2), (0, 0)), "sent 2.0 KiB in 2 blobs");
        assert_eq!(show_sent((10, 1), (2048, 3)), "sent 10 B in 1 blob, 2.0 KiB in 3 blobs already there");
        assert_eq!(show_sent((0, 0), (10, 1)), "nothing sent, 10 B in 1 blob already there");
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("10G", 10 << 30),
            ("10 GiB", 10 << 30),
            ("1.5k", 1536),
            ("1kB", 1000),
            ("2tb", 2_000_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "1X", "-1", "1..5G", "1.G", "99999999999999999999", "17179869184G", "1e3"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_may_have_several_parts() {
        for (text, milliseconds) in
            [("90", 90_000), ("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("0", 0), ("500ms", 500), ("1.5s", 1500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "5 parsecs", "-5s", "1m-3s", "99999999999999999999w", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        assert_eq!([59, 61, 3_700, 90_000].map(show_duration), ["59s", "1m1s", "1h1m", "1d1h"]);
    }
}
