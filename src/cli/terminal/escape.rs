//! Escapes text from registries and file systems for terminals and logs.
//!
//! Such text must not move the cursor, change colours or reorder the line: control characters and bidirectional marks become escapes,
//! everything else is unchanged.

use std::path::Path;

use crate::view::shown::is_dangerous;
pub use crate::view::shown::visible as terminal;

/// JSON with every dangerous character as a JSON escape; the value stays the same.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // Line breaks occur only between values; those in strings are escaped already.
        if character != '\n' && is_dangerous(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// A path, with replacement characters for invalid UTF-8.
pub fn path(path: &Path) -> String {
    terminal(&path.to_string_lossy()).into_owned()
}

/// Joins a message of several lines into one.
pub fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    terminal(&lines.fold(first, |joined, line| joined + "; " + line)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn escaped_json_keeps_its_value() {
        let value = serde_json::json!({ "a\u{9b}": "b\u{202e}\u{e0001}\n\u{7f}ü" });
        let shown = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(shown.lines().all(|line| matches!(terminal(line), Cow::Borrowed(_))), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn several_lines_become_one() {
        assert_eq!(one_line("first\n\n  second\n"), "first; second");
    }
}
