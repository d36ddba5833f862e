//! Text, sizes and times as people see them, on a terminal and on a page. Pure.
//!
//! Text of a registry cannot move the cursor, hide, or reorder a line: control characters and direction marks become escapes.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};

/// The text with every dangerous character escaped.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_dangerous(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Whether a character moves the cursor, hides or changes the order of what is shown.
pub fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A human-readable size in powers of 1024, with at most three digits before the unit.
pub fn show_size(bytes: u64) -> String {
    let mut unit = "B";
    let mut value = bytes;
    let mut tenths = 0;
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if value < 1024 {
            break;
        }
        tenths = (value % 1024) * 10 / 1024;
        value /= 1024;
        unit = next;
    }
    if unit == "B" || value >= 100 { format!("{value} {unit}") } else { format!("{value}.{tenths} {unit}") }
}

/// Seconds since 1970 as RFC 3339 writes them, in UTC; as a number outside its range of years.
pub fn show_time(seconds: i64) -> String {
    let time = DateTime::from_timestamp(seconds, 0).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
    time.unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_marks_become_visible() {
        assert_eq!(visible("a\x1b[2Jb\u{202e}c\u{9b}d\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{9b}d\\n");
    }

    #[test]
    fn ordinary_text_of_any_language_is_unchanged() {
        for text in ["Grüße", "日本語", "عربي", "🙂", "a b"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_202_615, "2024-02-29T10:30:15Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(show_time(seconds), shown);
        }
        assert!(!show_time(i64::MAX).is_empty() && !show_time(i64::MIN).is_empty());
    }

    #[test]
    fn sizes_are_short() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 10 << 30, 812 << 20, u64::MAX].iter().map(|bytes| show_size(*bytes)).collect();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 GiB", "812 MiB", "15.9 EiB"]);
    }
}
