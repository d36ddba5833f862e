//! Text that came from a registry or a file system, on its way to a terminal or a log.
//!
//! Nothing in it may move the cursor, change colours or reorder what is read: control characters and the marks
//! that turn the direction of text are shown as escapes, everything else stays as it is.

use std::borrow::Cow;
use std::path::Path;

/// The text with every dangerous character escaped.
pub fn terminal(text: &str) -> Cow<'_, str> {
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

/// JSON with every dangerous character escaped as JSON has it, so that it still means the same.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // Line breaks stand between the values only; those inside of strings are escaped already.
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

/// A path, with bytes that are no UTF-8 as replacement characters.
pub fn path(path: &Path) -> String {
    terminal(&path.to_string_lossy()).into_owned()
}

/// A message of several lines as one line.
pub fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    terminal(&lines.fold(first, |joined, line| joined + "; " + line)).into_owned()
}

fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_marks_become_visible() {
        assert_eq!(terminal("a\x1b[2Jb\u{202e}c\u{9b}d\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{9b}d\\n");
    }

    #[test]
    fn json_with_escapes_means_the_same() {
        let value = serde_json::json!({ "a\u{9b}": "b\u{202e}\u{e0001}\n\u{7f}ü" });
        let shown = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(shown.lines().all(|line| matches!(terminal(line), Cow::Borrowed(_))), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn ordinary_text_of_any_language_stays() {
        for text in ["Grüße", "日本語", "عربي", "🙂", "a b"] {
            assert!(matches!(terminal(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn several_lines_become_one() {
        assert_eq!(one_line("first\n\n  second\n"), "first; second");
    }
}
