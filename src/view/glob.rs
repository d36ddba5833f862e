//! Globs over paths: `*` and `?` match within a name, `**` across names, `\\` escapes the next character; `[...]` is not special.

/// Whether a glob matches a whole text. Takes time at most proportional to the product of the two lengths: it backtracks to the
/// last star of each sort only.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    // Where to backtrack to on a mismatch: the position after the star in the pattern, and the byte of the text.
    let mut single: Option<(usize, usize)> = None;
    // Also whether it stands for whole names only.
    let mut double: Option<(usize, usize, bool)> = None;
    loop {
        let fits = match (pattern.get(at), text.get(place)) {
            (None, None) => return true,
            (Some(b'*'), _) if pattern.get(at + 1) == Some(&b'*') => {
                // `a/**/b` matches `a/b` too.
                let names = pattern.get(at + 2) == Some(&b'/') && (at == 0 || pattern.get(at - 1) == Some(&b'/'));
                at += if names { 3 } else { 2 };
                (double, single) = (Some((at, place, names)), None);
                continue;
            }
            (Some(b'*'), _) => {
                at += 1;
                single = Some((at, place));
                continue;
            }
            (Some(b'?'), Some(byte)) if *byte != b'/' => Some(1),
            (Some(b'\\'), Some(byte)) if pattern.get(at + 1) == Some(byte) => Some(2),
            (Some(expected), Some(byte)) if expected == byte && *expected != b'?' => Some(1),
            _ => None,
        };
        if let Some(step) = fits {
            (at, place) = (at + step, place + 1);
            continue;
        }
        match (single, double) {
            (Some((star, from)), _) if text.get(from).is_some_and(|byte| *byte != b'/') => {
                (at, place, single) = (star, from + 1, Some((star, from + 1)));
            }
            (_, Some((star, from, names))) => {
                let rest = text.get(from..).unwrap_or_default();
                let step = if names { rest.iter().position(|byte| *byte == b'/') } else { (!rest.is_empty()).then_some(0) };
                let Some(step) = step else { return false };
                let from = from + step + 1;
                (at, place, single, double) = (star, from, None, Some((star, from, names)));
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_star_stops_at_slashes_and_a_double_one_does_not() {
        for (pattern, path) in
            [("*.txt", "a.txt"), ("a/*/c", "a/b/c"), ("**/c", "c"), ("**/c", "a/b/c"), ("a/**", "a/b/c"), ("?", "a"), (r"\*", "*")]
        {
            assert!(glob(pattern.as_bytes(), path.as_bytes()), "{pattern} {path}");
        }
        for (pattern, path) in [("*.txt", "a/b.txt"), ("a/*", "a/b/c"), ("?", "/"), (r"\*", "a"), ("a", "ab"), ("", "a")] {
            assert!(!glob(pattern.as_bytes(), path.as_bytes()), "{pattern} {path}");
        }
    }
}
