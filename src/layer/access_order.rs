//! The access order of an artifact: the paths of its files in the order in which they were first opened. Pure.
//!
//! A hint about what to fetch first, which may come from anybody: bounded, and nothing follows from it about names or bytes.

use crate::error::Error;
use crate::path::is_component;

/// The first bytes, with the version.
const MAGIC: &[u8] = b"ocifs access order 1\n";
/// Ends each path.
const END: u8 = 0;
/// Most files.
pub const ACCESS_ORDER_FILES: usize = 4096;
/// Most bytes.
pub const ACCESS_ORDER_MOST: u64 = 1 << 20;

/// Encodes the order of these files; those that do not fit are left out.
pub fn encode_access_order<'path>(paths: impl IntoIterator<Item = &'path [u8]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for path in paths.into_iter().take(ACCESS_ORDER_FILES) {
        if (bytes.len() + path.len()) as u64 >= ACCESS_ORDER_MOST {
            break;
        }
        bytes.extend_from_slice(path);
        bytes.push(END);
    }
    bytes
}

/// The paths of an encoded order.
///
/// # Errors
/// Integrity if it is not an order of this version, too large, or names what cannot be a path.
pub fn parse_access_order(bytes: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let unusable = |why: &str| Error::integrity(format!("not an access order: {why}"));
    if bytes.len() as u64 > ACCESS_ORDER_MOST {
        return Err(unusable("it is too large"));
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| unusable("it begins differently"))?;
    let Some(paths) = rest.strip_suffix(&[END]) else {
        return if rest.is_empty() { Ok(Vec::new()) } else { Err(unusable("it is cut")) };
    };
    let paths: Vec<&[u8]> = paths.split(|byte| *byte == END).take(ACCESS_ORDER_FILES + 1).collect();
    if paths.len() > ACCESS_ORDER_FILES {
        return Err(unusable("it names too many files"));
    }
    let is_path = |path: &&[u8]| path.split(|byte| *byte == b'/').all(is_component);
    if paths.iter().all(is_path) { Ok(paths) } else { Err(unusable("a path is malformed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_parsed_as_it_was_encoded() {
        let paths: [&[u8]; 3] = [b"usr/bin/app", b"etc/app.conf", b"\xff"];
        for paths in [&paths[..], &[]] {
            assert_eq!(parse_access_order(&encode_access_order(paths.iter().copied())).unwrap(), paths);
        }
        assert_eq!(encode_access_order([&b"a"[..], b"b/c"]), b"ocifs access order 1\na\0b/c\0");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let many: Vec<Vec<u8>> = (0..ACCESS_ORDER_FILES + 9).map(|number| format!("f{number}").into_bytes()).collect();
        assert_eq!(parse_access_order(&encode_access_order(many.iter().map(Vec::as_slice))).unwrap().len(), ACCESS_ORDER_FILES);
        let long: Vec<Vec<u8>> =
            (0..4000).map(|number| [format!("{number}/").into_bytes(), vec![b'x'; 255], b"/y".repeat(200)].concat()).collect();
        let bytes = encode_access_order(long.iter().map(Vec::as_slice));
        assert!(bytes.len() as u64 <= ACCESS_ORDER_MOST);
        assert!((1000..4000).contains(&parse_access_order(&bytes).unwrap().len()));
    }

    #[test]
    fn anything_else_is_refused() {
        let with = |rest: &[u8]| [MAGIC, rest].concat();
        for bytes in [
            b"".to_vec(),
            b"ocifs access order 2\na\0".to_vec(),
            with(b"a"),
            with(b"\0"),
            with(b"a\0\0"),
            with(b"/a\0"),
            with(b"a//b\0"),
            with(b"a/\0"),
            with(b"../a\0"),
            with(&b"a\0".repeat(ACCESS_ORDER_FILES + 1)),
            with(&[b"a".repeat(ACCESS_ORDER_MOST as usize), vec![0]].concat()),
        ] {
            let error = parse_access_order(&bytes).unwrap_err();
            assert_eq!(error.kind, crate::error::ErrorKind::Integrity, "{:?}", bytes.get(..40));
        }
    }
}
