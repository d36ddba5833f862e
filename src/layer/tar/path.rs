//! Names of an archive become relative paths that cannot leave the tree, or are refused.

/// Longest name of one path component, as Linux has it.
const COMPONENT: usize = 255;
/// Longest target of a symbolic link that can be read back.
pub(in crate::layer) const TARGET: usize = 4095;

/// Drops a leading `/`, empty components and `.`; `..` goes up but never above the root. The root is empty.
/// A name that no file can have is refused with the reason.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.contains(&0) {
        return Err("its name has a NUL");
    }
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            component if component.len() > COMPONENT => return Err("a part of its name is longer than 255 bytes"),
            component => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(path)
}

/// Whether a path is as [`clean`] makes it.
pub(in crate::layer) fn is_clean(path: &[u8]) -> bool {
    let sound = |component: &[u8]| !matches!(component, b"" | b"." | b"..") && component.len() <= COMPONENT;
    path.is_empty() || (!path.contains(&0) && path.split(|byte| *byte == b'/').all(sound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_tree() {
        for (name, path) in [
            (&b"a/b"[..], Ok(&b"a/b"[..])),
            (b"/a//b/", Ok(b"a/b")),
            (b"./a/./b", Ok(b"a/b")),
            (b"../../etc/passwd", Ok(b"etc/passwd")),
            (b"a/../../b", Ok(b"b")),
            (b"a/b/../c", Ok(b"a/c")),
            (b"./", Ok(b"")),
            (b"..", Ok(b"")),
            (b"", Ok(b"")),
            (b"\xff\xfe", Ok(b"\xff\xfe")),
            (b"a\0b", Err("its name has a NUL")),
        ] {
            assert_eq!(clean(name).as_deref(), path.as_ref().map(|path| *path), "{name:?}");
            assert!(clean(name).is_err() || clean(name).is_ok_and(|path| is_clean(&path)));
        }
        for path in [&b"/a"[..], b"a/", b"a//b", b"./a", b"a/..", b"..", b"a\0", b"/"] {
            assert!(!is_clean(path), "{path:?}");
        }
        assert!(clean(&[b'a'; 255]).is_ok());
        assert!(clean(&[b'a'; 256]).is_err());
    }
}
