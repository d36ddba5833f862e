//! Encodes one entry as tar headers: a ustar block, and a PAX record for each value that does not fit.
//!
//! Guarantees: the same entry gives the same bytes, which read back as exactly this entry. Anything that tar cannot represent is refused by name.
//! Independent of content and other entries.

use std::io::Write as _;

use base64::Engine as _;

use super::entry::PackEntry;
use crate::error::{Error, ErrorKind};
use crate::layer::tar::path::{self, is_clean};
use crate::layer::{FileKind, Limits};

/// Length of a block.
pub(super) const BLOCK: usize = 512;

/// Largest numbers that fit into 7 and 11 octal digits.
const SHORT_NUMBER: u64 = 0o777_7777;
const LONG_NUMBER: u64 = 0o777_7777_7777;

/// Longest extended attribute name and value on Linux, and how many readers accept.
const XATTR_NAME: usize = 255;
const XATTR_VALUE: usize = 64 * 1024;
const XATTRS: usize = 1024;

/// Bytes of names and attributes whose records, escaped or encoded, are below the limit for a header.
const SURELY_FITS: usize = 256 << 10;

/// Name of every extended header; readers ignore it.
const EXTENDED_NAME: &[u8] = b"././@PaxHeader";

/// All blocks before the content of an entry.
pub(in crate::layer) fn headers(entry: &PackEntry) -> Result<Vec<u8>, Error> {
    check(entry)?;
    let mut block = Block::new();
    let mut records = Vec::new();
    name(entry, &mut block, &mut records);
    link(entry, &mut block, &mut records);
    block.number(100, 8, u64::from(entry.metadata.mode.unwrap_or_default() & 0o7777));
    let mut owner = |at, key, value: u32| {
        if u64::from(value) <= SHORT_NUMBER {
            block.number(at, 8, value.into());
        } else {
            block.number(at, 8, 0);
            record(&mut records, key, value.to_string().as_bytes());
        }
    };
    let (uid, gid) = entry.metadata.owner.unwrap_or_default();
    owner(108, b"uid", uid);
    owner(116, b"gid", gid);
    size(entry, &mut block, &mut records);
    time(entry, &mut block, &mut records);
    block.put(156, &[type_flag(entry.kind)]);
    if matches!(entry.kind, FileKind::CharDevice | FileKind::BlockDevice) {
        block.number(329, 8, entry.metadata.device.0.into());
        block.number(337, 8, entry.metadata.device.1.into());
    }
    xattrs(entry, &mut records);
    if records.is_empty() {
        return Ok(block.sealed().to_vec());
    }
    if records.len() > Limits::default().header_bytes as usize {
        return Err(refused(entry, "its name and extended attributes take more than 1 MiB"));
    }
    let mut bytes = extended(&records);
    bytes.extend_from_slice(&block.sealed());
    Ok(bytes)
}

/// Rejects anything that tar cannot represent or no reader would return unchanged.
fn check(entry: &PackEntry) -> Result<(), Error> {
    let ((uid, gid), mtime) = (entry.metadata.owner.unwrap_or_default(), entry.metadata.mtime.unwrap_or_default());
    let problem = if !is_clean(&entry.path) {
        Some("its name is not a relative path, or a part of it is longer than 255 bytes")
    } else if entry.path.is_empty() && entry.kind != FileKind::Directory {
        Some("only a directory can be the root")
    } else if entry.kind == FileKind::Socket {
        Some("a socket cannot be archived")
    } else if uid == u32::MAX || gid == u32::MAX {
        Some("its owner or group is not a valid id")
    } else if mtime.1 > 999_999_999 || mtime == (i64::MIN, 0) {
        Some("its time is out of range")
    } else if entry.size > i64::MAX as u64 / 2 {
        Some("it is too large")
    } else {
        link_problem(entry).or_else(|| device_problem(entry)).or_else(|| xattr_problem(entry))
    };
    problem.map_or(Ok(()), |problem| Err(refused(entry, problem)))
}

fn link_problem(entry: &PackEntry) -> Option<&'static str> {
    match entry.kind {
        FileKind::Symlink if entry.link.is_empty() => Some("its target is empty"),
        FileKind::Symlink if entry.link.contains(&0) => Some("its target has a NUL"),
        FileKind::Symlink if entry.link.len() > path::TARGET => Some("its target is longer than 4095 bytes"),
        FileKind::HardLink if entry.link.is_empty() || !is_clean(&entry.link) => Some("its target is not a file name"),
        _ => None,
    }
}

fn device_problem(entry: &PackEntry) -> Option<&'static str> {
    let device = matches!(entry.kind, FileKind::CharDevice | FileKind::BlockDevice);
    let large = u64::from(entry.metadata.device.0.max(entry.metadata.device.1)) > SHORT_NUMBER;
    (device && large).then_some("its device number is larger than tar can hold")
}

fn xattr_problem(entry: &PackEntry) -> Option<&'static str> {
    if entry.xattrs.len() > XATTRS {
        return Some("it has more than 1024 extended attributes");
    }
    let ascending = entry.xattrs.iter().zip(entry.xattrs.iter().skip(1)).all(|(one, next)| one.0 < next.0);
    if !ascending {
        return Some("its extended attributes are not in order");
    }
    entry.xattrs.iter().find_map(|(name, value)| {
        if name.is_empty() || name.len() > XATTR_NAME || name.contains(&0) {
            Some("the name of an extended attribute is invalid on Linux")
        } else if value.is_empty() {
            Some("it has an empty extended attribute, which tar cannot represent")
        } else if value.len() > XATTR_VALUE {
            Some("an extended attribute of it is longer than 64 KiB")
        } else {
            None
        }
    })
}

fn refused(entry: &PackEntry, problem: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{} cannot be packed: {problem}", shown(&entry.path)))
}

/// A name for messages: escaped, and truncated if long.
pub(super) fn shown(path: &[u8]) -> String {
    let cut = path.get(..200).unwrap_or(path);
    format!("`{}{}`", cut.escape_ascii(), if cut.len() < path.len() { "…" } else { "" })
}

/// The archived name, in the header if it is short and ASCII.
fn name(entry: &PackEntry, block: &mut Block, records: &mut Vec<u8>) {
    let archived = match (entry.kind, entry.path.is_empty()) {
        (_, true) => b"./".to_vec(),
        (FileKind::Directory, false) => [&entry.path[..], b"/"].concat(),
        _ => entry.path.clone(),
    };
    if archived.is_ascii() {
        if archived.len() <= 100 {
            return block.put(0, &archived);
        }
        if let Some((prefix, rest)) = split(&archived) {
            block.put(345, prefix);
            return block.put(0, rest);
        }
    }
    charset(&archived, records);
    record(records, b"path", &archived);
    block.put(0, &plain(&archived));
}

/// The archived target.
fn link(entry: &PackEntry, block: &mut Block, records: &mut Vec<u8>) {
    if !matches!(entry.kind, FileKind::Symlink | FileKind::HardLink) {
        return;
    }
    if entry.link.len() <= 100 && entry.link.is_ascii() {
        return block.put(157, &entry.link);
    }
    charset(&entry.link, records);
    record(records, b"linkpath", &entry.link);
    block.put(157, &plain(&entry.link));
}

/// Declares once that names are bytes rather than UTF-8, as POSIX requires.
fn charset(name: &[u8], records: &mut Vec<u8>) {
    let known = records.starts_with(b"21 hdrcharset=BINARY\n");
    if std::str::from_utf8(name).is_err() && !known {
        let others = std::mem::take(records);
        record(records, b"hdrcharset", b"BINARY");
        records.extend_from_slice(&others);
    }
}

/// Splits a long name at a slash into a prefix of at most 155 bytes and a rest of at most 100.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = name.len().checked_sub(101)?;
    let at = (first..name.len().min(156)).find(|at| *at > 0 && name.get(*at) == Some(&b'/'))?;
    let (prefix, rest) = (name.get(..at)?, name.get(at + 1..)?);
    (!rest.is_empty()).then_some((prefix, rest))
}

/// The name for readers without PAX: truncated, and without non-ASCII bytes.
fn plain(name: &[u8]) -> Vec<u8> {
    name.iter().take(100).map(|byte| if byte.is_ascii() { *byte } else { b'_' }).collect()
}

fn size(entry: &PackEntry, block: &mut Block, records: &mut Vec<u8>) {
    let size = if entry.kind == FileKind::File { entry.size } else { 0 };
    if size > LONG_NUMBER {
        record(records, b"size", size.to_string().as_bytes());
    }
    block.number(124, 12, if size > LONG_NUMBER { 0 } else { size });
}

fn time(entry: &PackEntry, block: &mut Block, records: &mut Vec<u8>) {
    let (seconds, nanoseconds) = entry.metadata.mtime.unwrap_or_default();
    let field = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LONG_NUMBER);
    block.number(136, 12, field.unwrap_or(0));
    if nanoseconds == 0 && field.is_some() {
        return;
    }
    // A sign, then the distance from 1970: −1.5 is second −2 plus half a second.
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, all) = (if all < 0 { "-" } else { "" }, all.unsigned_abs());
    let fraction = format!("{:09}", all % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    record(records, b"mtime", format!("{sign}{}{point}{fraction}", all / 1_000_000_000).as_bytes());
}

fn xattrs(entry: &PackEntry, records: &mut Vec<u8>) {
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            // The plain form cannot express this one.
            let key = [b"LIBARCHIVE.xattr.", percent_encoded(name).as_bytes()].concat();
            record(records, &key, base64::engine::general_purpose::STANDARD_NO_PAD.encode(value).as_bytes());
        } else {
            record(records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }
}

fn percent_encoded(name: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=');
    name.iter().map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn type_flag(kind: FileKind) -> u8 {
    match kind {
        FileKind::File | FileKind::Socket => b'0',
        FileKind::HardLink => b'1',
        FileKind::Symlink => b'2',
        FileKind::CharDevice => b'3',
        FileKind::BlockDevice => b'4',
        FileKind::Directory => b'5',
        FileKind::Fifo => b'6',
    }
}

/// Adds `length key=value\n`; the length includes its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The extended header before an entry, with payload and padding.
fn extended(records: &[u8]) -> Vec<u8> {
    let mut block = Block::new();
    block.put(0, EXTENDED_NAME);
    block.number(100, 8, 0o644);
    block.number(108, 8, 0);
    block.number(116, 8, 0);
    block.number(124, 12, records.len() as u64);
    block.number(136, 12, 0);
    block.put(156, b"x");
    let mut bytes = block.sealed().to_vec();
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// A header block under construction. All offsets are constants of this file, and all values were measured before.
struct Block([u8; BLOCK]);

impl Block {
    fn new() -> Self {
        let mut block = Self([0; BLOCK]);
        block.put(257, b"ustar\x0000");
        block
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (space, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *space = *byte;
        }
    }

    /// Octal digits filling the field, with a final NUL.
    fn number(&mut self, at: usize, length: usize, value: u64) {
        let mut text = [0; 12];
        // It fits: every caller has compared the value with the field's maximum.
        let _ = write!(&mut text[..], "{value:0width$o}", width = length - 1);
        self.put(at, text.get(..length - 1).unwrap_or_default());
    }

    fn sealed(mut self) -> [u8; BLOCK] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl PackEntry {
    /// Whether a tar can represent this entry, so that a plan can skip those it cannot, with a note, instead of failing half-way: sockets (useless in an
    /// archive), empty attributes, device numbers beyond 21 bits.
    ///
    /// # Errors
    /// Invalid, with the name and the reason.
    pub fn check(&self) -> Result<(), Error> {
        check(self)?;
        let attributes = self.xattrs.iter().map(|(name, value)| name.len() + value.len());
        let bytes = self.path.len() + self.link.len() + attributes.sum::<usize>();
        if bytes > SURELY_FITS { headers(self).map(drop) } else { Ok(()) }
    }
}
