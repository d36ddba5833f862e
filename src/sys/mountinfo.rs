//! The mount table, read from `/proc/self/mountinfo`.
//!
//! Reading it never touches a mounted file system, so it works even while one of them hangs. Paths are bytes: the kernel writes space, tab,
//! newline and backslash in octal, everything else verbatim.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One entry of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: u32,
    /// Device number of the file system; for FUSE it identifies the connection.
    pub device: (u32, u32),
    /// The mounted directory of the file system; `/` unless it is a bind mount of a part.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type with its subtype, e.g. `fuse.ocifs`.
    pub kind: String,
    /// The source of the mount.
    pub source: OsString,
    /// Options of the file system, comma separated.
    pub options: String,
}

impl Mount {
    /// The value of an option of the file system, e.g. `user_id`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// The user who mounted a FUSE file system, and whose process therefore serves it.
    pub fn user(&self) -> Option<u32> {
        self.option("user_id")?.parse().ok()
    }
}

/// All mounts visible to this process, in mount order.
///
/// # Errors
/// `/proc` is not mounted.
pub fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// All mounts visible to another process, below its root directory. Mount ids are unique across namespaces.
///
/// # Errors
/// There is no such process.
pub fn of_process(pid: u32) -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read(format!("/proc/{pid}/mountinfo"))?))
}

/// The mount at exactly this path; the topmost if several are stacked.
///
/// # Errors
/// `/proc` is not mounted.
pub fn at(mount_point: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rfind(|mount| mount.mount_point == mount_point))
}

/// Lines not in the documented form (proc(5)) are skipped.
fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let _parent = fields.next()?;
    let device = text(fields.next()?);
    let (major, minor) = device.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = path(fields.next()?);
    let mount_point = path(fields.next()?);
    // Per-mount options and optional fields end at a lone hyphen.
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = text(fields.next()?);
    let source = unescape(fields.next()?);
    let options = text(fields.next().unwrap_or_default());
    Some(Mount { id, device, root, mount_point, kind, source, options })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(unescape(field))
}

fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some((byte, after))) => {
                out.push(byte);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

/// Three leading octal digits, and the rest.
fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.split_at_checked(3)?;
    let mut value: u32 = 0;
    for digit in digits {
        value = value * 8 + char::from(*digit).to_digit(8)?;
    }
    Some((u8::try_from(value).ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountinfo_line_is_parsed_with_its_octal_escapes() {
        let line = b"36 35 0:52 / /mnt/a\\040b\\134c rw,nosuid shared:1 master:2 - fuse.ocifs reg.io/team ro,user_id=1000,group_id=7\n";
        let mounts = parse(line);
        let mount = &mounts[0];
        assert_eq!(mount.mount_point, Path::new("/mnt/a b\\c"));
        assert_eq!((mount.device, mount.kind.as_str(), mount.source.to_str()), ((0, 52), "fuse.ocifs", Some("reg.io/team")));
        assert_eq!((mount.option("user_id"), mount.user()), (Some("1000"), Some(1000)));
        assert_eq!(mount.option("user"), None);
    }

    #[test]
    fn malformed_lines_are_skipped() {
        assert_eq!(parse(b"\nnonsense\n1 2 3\n1 2 x:y / / rw - t s o\n"), Vec::new());
    }

    #[test]
    fn a_lone_backslash_stays() {
        assert_eq!(unescape(b"a\\9\\04"), OsString::from("a\\9\\04"));
    }

    #[test]
    fn the_root_file_system_is_in_the_table() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
