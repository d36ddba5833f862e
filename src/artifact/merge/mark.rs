//! The special names in a layer.
//!
//! Paths are already cleaned (no leading `/`, no `.` or `..`); others are rejected by [`is_component`].

use crate::path::{components, is_component, split};

/// The effect of a name on the layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::artifact) enum Mark<'a> {
    /// An ordinary name.
    None,
    /// `.wh.NAME`: removes NAME.
    Whiteout { directory: &'a [u8], name: &'a [u8] },
    /// `.wh..wh..opq`: removes everything in the directory.
    Opaque { directory: &'a [u8] },
    /// Another name reserved by aufs, or something below one.
    Hidden,
}

/// Interprets a path in a layer.
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

/// Whether this is a file that eStargz adds to a layer's root.
pub(super) fn is_estargz(path: &[u8]) -> bool {
    matches!(path, b"stargz.index.json" | b".prefetch.landmark" | b".no.prefetch.landmark")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteout_marks_are_distinguished_from_ordinary_names() {
        assert_eq!(mark(b"a/.wh.b"), Mark::Whiteout { directory: b"a", name: b"b" });
        assert_eq!(mark(b".wh..wh..opq"), Mark::Opaque { directory: b"" });
        for hidden in [&b".wh..wh.plnk"[..], b".wh..wh.aufs/x", b".wh.a/b", b".wh.", b"d/.wh...", b".wh..wh..opq/x"] {
            assert_eq!(mark(hidden), Mark::Hidden, "{}", hidden.escape_ascii());
        }
        for plain in [&b"a"[..], b"a/b.wh.c", b".whx", b""] {
            assert_eq!(mark(plain), Mark::None);
        }
    }
}
