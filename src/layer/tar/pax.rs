//! PAX extended headers: records of `length key=value\n`, and their values for the next entry.

use base64::Engine as _;

use super::sparse::{self, Piece};
use crate::layer::Xattrs;

/// Longest extended attribute name and value on Linux.
pub(in crate::layer) const XATTR_NAME: usize = 255;
pub(in crate::layer) const XATTR_VALUE: usize = 64 * 1024;
/// Most extended attributes of one entry.
pub(in crate::layer) const XATTRS: usize = 1024;

/// Values of extended headers. An unreadable value is skipped, with a note in `bad`.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: Sparse,
    /// Problems with single values.
    pub(super) bad: Vec<&'static str>,
}

/// Values of extended headers about a sparse file.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Alternating offsets and lengths, of formats 0.0 and 0.1.
    numbers: Vec<u64>,
    has_map: bool,
}

impl Sparse {
    /// The map of formats 0.0 and 0.1, if the entry has one. `Err` if it is malformed.
    pub(super) fn map(&self) -> Result<Option<Vec<Piece>>, ()> {
        if self.has_map { sparse::pairs(&self.numbers).map(Some).ok_or(()) } else { Ok(None) }
    }

    /// Whether the map precedes the content.
    pub(super) fn has_leading_map(&self) -> bool {
        self.major == Some(1) && self.minor == Some(0)
    }
}

/// The records are malformed, or one that determines the frame is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Records {
    /// Adds the records of one extended header; later ones win.
    pub(super) fn add(&mut self, mut text: &[u8]) -> Result<(), Malformed> {
        while !text.is_empty() {
            let (key, value, rest) = record(text).ok_or(Malformed("a record of an extended header is malformed"))?;
            self.set(key, value)?;
            text = rest;
        }
        Ok(())
    }

    /// Adds the records of a global header. Attributes and sparse maps of single files are ignored there.
    pub(super) fn add_global(&mut self, text: &[u8]) -> Result<(), Malformed> {
        self.add(text)?;
        self.xattrs.clear();
        self.sparse = Sparse::default();
        self.bad.clear();
        Ok(())
    }

    /// These records, completed by the global ones.
    pub(super) fn apply_over(self, global: &Self) -> Self {
        Self {
            path: self.path.or_else(|| global.path.clone()),
            link: self.link.or_else(|| global.link.clone()),
            size: self.size.or(global.size),
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            mtime: self.mtime.or(global.mtime),
            xattrs: self.xattrs,
            sparse: self.sparse,
            bad: self.bad,
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match key {
            // An empty value reverts an earlier record.
            b"path" => self.path = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"linkpath" => self.link = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"size" if value.is_empty() => self.size = None,
            b"size" => self.size = Some(sparse::decimal(value).ok_or(Malformed("the size in an extended header is not a number"))?),
            b"uid" => self.uid = self.value(owner(value), value, "its owner is not a valid uid"),
            b"gid" => self.gid = self.value(owner(value), value, "its group is not a valid gid"),
            b"mtime" => self.mtime = self.value(time(value), value, "its time is out of range"),
            _ => {
                if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    return self.set_sparse(name, value);
                }
                self.set_attribute(key, value);
            }
        }
        Ok(())
    }

    fn value<T>(&mut self, parsed: Option<T>, text: &[u8], wrong: &'static str) -> Option<T> {
        if parsed.is_none() && !text.is_empty() {
            self.bad.push(wrong);
        }
        parsed
    }

    fn set_sparse(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let number = || sparse::decimal(value).ok_or(Malformed("the map of a sparse file is malformed"));
        let sparse = &mut self.sparse;
        match name {
            b"major" => sparse.major = Some(number()?),
            b"minor" => sparse.minor = Some(number()?),
            b"name" => sparse.name = Some(value.to_vec()),
            b"size" | b"realsize" => sparse.size = Some(number()?),
            b"numblocks" => sparse.has_map = true,
            b"offset" | b"numbytes" => {
                let is_length = name == b"numbytes";
                if (sparse.numbers.len() % 2 == 1) != is_length {
                    return Err(Malformed("the map of a sparse file is malformed"));
                }
                sparse.has_map = true;
                sparse.numbers.push(number()?);
            }
            b"map" => {
                sparse.has_map = true;
                sparse.numbers.clear();
                for text in value.split(|byte| *byte == b',').filter(|_| !value.is_empty()) {
                    sparse.numbers.push(sparse::decimal(text).ok_or(Malformed("the map of a sparse file is malformed"))?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn set_attribute(&mut self, key: &[u8], value: &[u8]) {
        let (name, value) = if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            (name.to_vec(), Some(value.to_vec()))
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decoded(name);
            // If both are present, the plain form of the attribute, which needs no decoding, wins.
            if self.xattrs.iter().any(|(known, _)| *known == name) {
                return;
            }
            (name, base64_decoded(value))
        } else {
            return;
        };
        match value {
            // As in any record, an empty value means none.
            Some(value) if value.is_empty() => self.xattrs.retain(|(known, _)| *known != name),
            Some(value) if !name.is_empty() && name.len() <= XATTR_NAME && !name.contains(&0) && value.len() <= XATTR_VALUE => {
                self.set_xattr(name, value)
            }
            _ => self.bad.push("one of its extended attributes is invalid on Linux"),
        }
    }

    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let known = self.xattrs.len();
        match self.xattrs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None if known >= XATTRS => self.bad.push("it has too many extended attributes"),
            None => self.xattrs.push((name, value)),
        }
    }
}

/// Splits off the first record: its key, its value, and the rest.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(sparse::decimal(text.get(..space)?)?).ok()?;
    let (body, rest) = (text.get(space + 1..length)?, text.get(length..)?);
    let body = body.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, rest))
}

fn owner(text: &[u8]) -> Option<u32> {
    // The largest number means "no owner".
    sparse::decimal(text).and_then(|value| u32::try_from(value).ok()).filter(|value| *value != u32::MAX)
}

/// Seconds with a sign and a fraction; digits beyond nanoseconds are truncated downwards.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &[][..]),
    };
    let seconds = i64::try_from(sparse::decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u32::from(fraction.get(at).map_or(0, |byte| byte - b'0'));
    let nanoseconds = (0..9).fold(0, |value, at| value * 10 + digit(at));
    if !negative {
        return Some((seconds, nanoseconds));
    }
    let beyond = fraction.iter().skip(9).any(|byte| *byte != b'0');
    let nanoseconds = nanoseconds + u32::from(beyond);
    Some(if nanoseconds == 0 { (-seconds, 0) } else { (-seconds - 1, 1_000_000_000 - nanoseconds) })
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        match (byte, hex(after.first()), hex(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    decoded
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let trimmed: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'=' | b'\n' | b' ')).collect();
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(trimmed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &[u8]) -> Result<Records, Malformed> {
        let mut records = Records::default();
        records.add(text).map(|()| records)
    }

    #[test]
    fn values_are_read_and_an_empty_one_resets() {
        let read = records(b"9 path=a\n12 uid=1000\n20 mtime=-1.5\n").err();
        assert_eq!(read, Some(Malformed("a record of an extended header is malformed")));
        let read = records(b"10 path=a\n12 uid=1000\n15 mtime=-1.50\n8 path=\n").unwrap();
        assert_eq!((read.path, read.uid, read.mtime), (None, Some(1000), Some((-2, 500_000_000))));
    }

    #[test]
    fn times_have_signs_and_fractions() {
        for (text, expected) in [
            (&b"0"[..], Some((0, 0))),
            (b"1.000000001", Some((1, 1))),
            (b"1.0000000019", Some((1, 1))),
            (b"-0.1", Some((-1, 900_000_000))),
            (b"-1", Some((-1, 0))),
            (b"1.", Some((1, 0))),
            (b"1.x", None),
            (b"99999999999999999999", None),
            (b"", None),
            (b"nan", None),
        ] {
            assert_eq!(time(text), expected, "{text:?}");
        }
    }

    #[test]
    fn attributes_come_plain_and_encoded() {
        let read =
            records(b"30 SCHILY.xattr.user.a=x\0=\ny\xff\n40 LIBARCHIVE.xattr.user.caf%C3%A9=aGVq\n32 LIBARCHIVE.xattr.user.a=aGVq\n")
                .unwrap();
        assert_eq!(read.xattrs, [(b"user.a".to_vec(), b"x\0=\ny\xff".to_vec()), ("user.café".into(), b"hej".to_vec())]);
    }

    #[test]
    fn an_attribute_without_a_value_is_ignored() {
        let read =
            records(b"24 SCHILY.xattr.user.a=\n25 SCHILY.xattr.user.b=x\n24 SCHILY.xattr.user.b=\n28 LIBARCHIVE.xattr.user.c=\n").unwrap();
        assert_eq!((read.xattrs, read.bad), (vec![], vec![]));
    }

    #[test]
    fn leading_zeros_of_a_size_are_ignored() {
        assert_eq!(records(b"33 size=000000000000000000000999\n").unwrap().size, Some(999));
    }

    #[test]
    fn broken_records_are_refused() {
        for text in [
            &b"5 a=b"[..],
            b"x a=b\n",
            b"3 \n",
            b"999 path=a\n",
            b"6 =ab\n",
            b"-6 a=b\n",
            b"00000000000000000000000006 a=b\n",
            b"15 size=99999999999999999999\n",
        ] {
            assert!(records(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
