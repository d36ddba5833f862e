//! Turns names in an archive into relative paths that cannot leave the tree and consist of valid file names.

use crate::path::push;
use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

/// Longest path component on Linux, in bytes.
const COMPONENT: usize = 255;
/// The prefix of a whiteout; the removed name follows.
const WHITEOUT: &[u8] = b".wh.";
/// Bytes kept of an invalid file name.
const KEPT: usize = 200;
/// Longest target of a symlink that can be read back, in bytes.
pub(in crate::layer) const TARGET: usize = 4095;

/// Drops a leading `/`, empty components and `.`; `..` goes up but never above the root. The root is empty. Invalid file names become safe ones.
pub(in crate::layer) fn clean(name: &[u8]) -> Vec<u8> {
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            component => {
                push(&mut path, &safe(component));
            }
        }
    }
    path
}

/// Whether every component of a path is a valid file name, so that [`clean`] keeps it.
pub(in crate::layer) fn all_fit(name: &[u8]) -> bool {
    name.split(|byte| *byte == b'/').all(fits)
}

/// Whether an archive's component is valid: a file name, or a whiteout, which may be longer.
fn fits(component: &[u8]) -> bool {
    let name = component.strip_prefix(WHITEOUT).unwrap_or(component);
    name.len() <= COMPONENT && !component.contains(&0)
}

fn safe(component: &[u8]) -> Cow<'_, [u8]> {
    if fits(component) { Cow::Borrowed(component) } else { Cow::Owned(safe_name(component)) }
}

/// A valid file name in place of an invalid one: its beginning plus a digest of all of it.
pub fn safe_name(name: &[u8]) -> Vec<u8> {
    let start = name.get(..KEPT).unwrap_or(name);
    // Do not split a character.
    let end = match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => start.len(),
    };
    let mut safe: Vec<u8> = start.iter().take(end).map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { *byte }).collect();
    safe.push(b'~');
    safe.extend(Sha256::digest(name).iter().take(6).flat_map(|byte| format!("{byte:02x}").into_bytes()));
    safe
}

/// Whether a path is in the form produced by [`clean`].
pub(in crate::layer) fn is_clean(path: &[u8]) -> bool {
    let sound = |component: &[u8]| !matches!(component, b"" | b"." | b"..") && fits(component);
    path.is_empty() || path.split(|byte| *byte == b'/').all(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_tree() {
        for (name, path) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"/a//b/", b"a/b"),
            (b"./a/./b", b"a/b"),
            (b"../../etc/passwd", b"etc/passwd"),
            (b"a/../../b", b"b"),
            (b"a/b/../c", b"a/c"),
            (b"./", b""),
            (b"..", b""),
            (b"", b""),
            (b"\xff\xfe", b"\xff\xfe"),
        ] {
            assert_eq!(clean(name), path, "{name:?}");
            assert!(is_clean(&clean(name)) && all_fit(name));
        }
        for path in [&b"/a"[..], b"a/", b"a//b", b"./a", b"a/..", b"..", b"a\0", b"/"] {
            assert!(!is_clean(path), "{path:?}");
        }
    }

    #[test]
    fn an_invalid_name_gets_a_unique_safe_one() {
        let long = |end: &str| format!("d/{}{end}", "\u{e9}".repeat(200)).into_bytes();
        let names = [long("1"), long("2"), b"d/a\0b".to_vec(), b"d/a\0c".to_vec(), vec![b'a'; 256], [&b".wh."[..], &[b'a'; 256]].concat()];
        let mut safe: Vec<Vec<u8>> = names.iter().map(|name| clean(name)).collect();
        for (name, safe) in names.iter().zip(&safe) {
            assert!(!all_fit(name) && !is_clean(name) && is_clean(safe) && all_fit(safe), "{}", name.escape_ascii());
            assert_eq!(clean(safe), *safe);
        }
        assert!(std::str::from_utf8(&safe[0]).is_ok() && safe[2].starts_with(b"d/a_b~"));
        safe.sort();
        safe.dedup();
        assert_eq!(safe.len(), names.len());
        for name in [[b'a'; 255].to_vec(), [&b".wh."[..], &[b'a'; 255]].concat()] {
            assert!(clean(&name) == name && is_clean(&name));
        }
    }
}
