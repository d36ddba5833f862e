//! Paths inside a tree: bytes, names separated by `/`, empty for the root.

use std::cmp::Ordering;

/// The order of a walk: a directory, then what is below it, names by their bytes. A separator comes before every other byte.
pub fn order(one: &[u8], other: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(other.iter().map(key))
}

/// The directory that holds a path; `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default())
}

/// The last name of a path.
pub fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(at + 1..)).unwrap_or(path)
}

/// The path of a name in a directory.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Whether a path is `above` or lies below it.
pub fn is_within(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A path for messages: escaped, and cut where it is very long.
pub fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_a_directory_follows_it_at_once() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a", b"a/x", b"", b"a/x/y", b"a.txt", b"b"];
        paths.sort_by(|one, other| order(one, other));
        assert_eq!(paths, [&b""[..], b"a", b"a/x", b"a/x/y", b"a-b", b"a.txt", b"b"]);
    }

    #[test]
    fn a_path_is_taken_apart_and_put_together() {
        assert_eq!((parent(b""), parent(b"a"), parent(b"a/b")), (None, Some(&b""[..]), Some(&b"a"[..])));
        assert_eq!((name(b"a"), name(b"a/b")), (&b"a"[..], &b"b"[..]));
        assert_eq!((join(b"", b"a"), join(b"a", b"b")), (b"a".to_vec(), b"a/b".to_vec()));
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"a", b"") && !is_within(b"ab", b"a"));
    }
}
