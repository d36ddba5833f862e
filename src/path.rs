//! Paths inside a tree: bytes, components separated by `/`, empty for the root. Paths from archives and titles are sanitised first.

use std::cmp::Ordering;

/// Longest file name on Linux, in bytes.
const NAME_LIMIT: usize = 255;

/// The order of a walk: a directory before what is below it, names in byte order. The separator sorts before every other byte.
pub fn order(one: &[u8], other: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(other.iter().map(key))
}

/// Whether a name is a valid path component.
pub fn is_component(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_LIMIT && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// The components of a path; empty for the root.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// A path as users type it, without empty components and `.`.
pub fn typed(path: &str) -> Vec<u8> {
    components(path.as_bytes()).filter(|component| *component != b".").collect::<Vec<_>>().join(&b'/')
}

/// The directory that holds a path; `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default())
}

/// The last component of a path.
pub fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(at + 1..)).unwrap_or(path)
}

/// Directory and last component; both empty for the root.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    (parent(path).unwrap_or_default(), name(path))
}

/// Joins two paths.
pub fn join(directory: &[u8], below: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    push(&mut path, below);
    path
}

/// Appends a relative path.
pub fn push(path: &mut Vec<u8>, below: &[u8]) {
    if !path.is_empty() && !below.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(below);
}

/// The rest of a path below `above`; `None` if it is elsewhere.
pub fn below<'path>(path: &'path [u8], above: &[u8]) -> Option<&'path [u8]> {
    if above.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(above)? {
        b"" => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

/// Whether a path equals `above` or is below it.
pub fn is_within(path: &[u8], above: &[u8]) -> bool {
    below(path, above).is_some()
}

/// A path for messages: escaped, and truncated if very long.
pub fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_a_directory_follows_it_immediately() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a", b"a/x", b"", b"a/x/y", b"a.txt", b"b"];
        paths.sort_by(|one, other| order(one, other));
        assert_eq!(paths, [&b""[..], b"a", b"a/x", b"a/x/y", b"a-b", b"a.txt", b"b"]);
    }

    #[test]
    fn a_path_is_split_and_joined_again() {
        assert_eq!((parent(b""), parent(b"a"), parent(b"a/b")), (None, Some(&b""[..]), Some(&b"a"[..])));
        assert_eq!((name(b"a"), name(b"a/b")), (&b"a"[..], &b"b"[..]));
        assert_eq!((split(b""), split(b"x"), split(b"x/y/z")), ((&b""[..], &b""[..]), (&b""[..], &b"x"[..]), (&b"x/y"[..], &b"z"[..])));
        assert_eq!((join(b"", b"y/z"), join(b"a", b"b"), join(b"x", b"")), (b"y/z".to_vec(), b"a/b".to_vec(), b"x".to_vec()));
        assert_eq!(
            (below(b"docs/a", b"docs"), below(b"docs", b"docs"), below(b"docs2/a", b"docs")),
            (Some(&b"a"[..]), Some(&b""[..]), None)
        );
        assert_eq!((typed("./a//b/."), typed("/"), typed("../a")), (b"a/b".to_vec(), b"".to_vec(), b"../a".to_vec()));
        assert_eq!(components(b"a//b").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(is_component(b"a") && [&b""[..], b".", b"..", b"a/b", b"a\0"].iter().all(|name| !is_component(name)));
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"a", b"") && !is_within(b"ab", b"a"));
    }
}
