//! The form of a refusal by a command: an exit code and one readable line.

use super::mounting::text;
use std::process::Output;

/// Checks that a command failed as it should, and returns its line without the name of the program.
///
/// The line is the only output, is printable, does not repeat itself, and reveals no internals.
#[track_caller]
pub fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    assert!(output.stdout.is_empty(), "{}", text(output));
    let said = std::str::from_utf8(&output.stderr).unwrap_or_else(|_| panic!("not UTF-8: {}", text(output)));
    let line = said.strip_suffix('\n').and_then(|said| said.strip_prefix("ocifs: ")).unwrap_or_else(|| panic!("not a line: {said:?}"));
    assert!(!line.contains(char::is_control), "not one clean line: {said:?}");
    assert!(!line.to_lowercase().contains("error:") && !line.contains("panicked"), "{said}");
    let parts: Vec<&str> = line.split(": ").collect();
    assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "said twice: {said}");
    assert!((20..600).contains(&line.len()), "{} characters: {said}", line.len());
    line.to_owned()
}

/// As [`refused`]; the line also contains all of these words.
#[track_caller]
pub fn refused_with(output: &Output, code: i32, words: &[&str]) {
    let line = refused(output, code);
    for word in words {
        assert!(line.contains(word), "`{word}` is missing: {line}");
    }
}
