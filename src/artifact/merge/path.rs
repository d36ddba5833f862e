//! Relative paths as bytes: components, prefixes, and the names that mean something in a layer.
//!
//! Paths are cleaned already (no leading `/`, no `.` or `..`); what is not is refused by [`is_component`].

/// Longest name that Linux accepts.
const NAME_LIMIT: usize = 255;

/// The meaning of a name for the layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::artifact) enum Mark<'a> {
    /// An ordinary name.
    None,
    /// `.wh.NAME`: NAME is removed.
    Whiteout { directory: &'a [u8], name: &'a [u8] },
    /// `.wh..wh..opq`: everything in the directory is removed.
    Opaque { directory: &'a [u8] },
    /// Another name that aufs kept for itself, or something below such a name.
    Hidden,
}

/// Reads the meaning of a path in a layer.
pub(in crate::artifact) fn mark(path: &[u8]) -> Mark<'_> {
    let (directory, name) = split(path);
    if components(directory).any(|component| component.starts_with(b".wh.")) {
        return Mark::Hidden;
    }
    match name.strip_prefix(b".wh.") {
        None => Mark::None,
        Some(b".wh..opq") => Mark::Opaque { directory },
        Some(rest) if rest.starts_with(b".wh.") || !is_component(rest) => Mark::Hidden,
        Some(name) => Mark::Whiteout { directory, name },
    }
}

/// Whether a name can be one of a directory.
pub(in crate::artifact) fn is_component(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_LIMIT && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// The files that eStargz adds to the root of a layer.
pub(super) fn is_estargz(path: &[u8]) -> bool {
    matches!(path, b"stargz.index.json" | b".prefetch.landmark" | b".no.prefetch.landmark")
}

/// The components of a path; none for the empty path.
pub(in crate::artifact) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// Directory and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// A path without the leading components `prefix`; a path that begins otherwise stays as it is.
pub(super) fn strip<'a>(path: &'a [u8], prefix: &[u8]) -> &'a [u8] {
    if prefix.is_empty() {
        return path;
    }
    match path.strip_prefix(prefix) {
        Some(b"") => b"",
        Some(rest) => rest.strip_prefix(b"/").unwrap_or(path),
        None => path,
    }
}

/// Both paths one below the other.
pub(in crate::artifact) fn join(at: &[u8], rest: &[u8]) -> Vec<u8> {
    match (at, rest) {
        (b"", rest) => rest.to_vec(),
        (at, b"") => at.to_vec(),
        (at, rest) => [at, b"/", rest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_names() {
        assert_eq!(mark(b"a/.wh.b"), Mark::Whiteout { directory: b"a", name: b"b" });
        assert_eq!(mark(b".wh..wh..opq"), Mark::Opaque { directory: b"" });
        for hidden in [&b".wh..wh.plnk"[..], b".wh..wh.aufs/x", b".wh.a/b", b".wh.", b"d/.wh...", b".wh..wh..opq/x"] {
            assert_eq!(mark(hidden), Mark::Hidden, "{}", hidden.escape_ascii());
        }
        for plain in [&b"a"[..], b"a/b.wh.c", b".whx", b""] {
            assert_eq!(mark(plain), Mark::None);
        }
    }

    #[test]
    fn a_prefix_is_stripped_by_whole_components_only() {
        assert_eq!(strip(b"docs/a", b"docs"), b"a");
        assert_eq!(strip(b"docs", b"docs"), b"");
        assert_eq!(strip(b"docs2/a", b"docs"), b"docs2/a");
        assert_eq!(join(b"x", b""), b"x");
        assert_eq!(join(b"", b"y/z"), b"y/z");
        assert_eq!(split(b"x/y/z"), (&b"x/y"[..], &b"z"[..]));
    }
}
