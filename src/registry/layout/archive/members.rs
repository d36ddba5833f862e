//! The files in an archive, found without unpacking it. Changes nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::layer::{ArchiveMember, archive_members};
use crate::registry::layout::slice::Slice;

/// Most links followed in a chain.
const LINKS: usize = 8;
/// Magic numbers of compressed files, and the compressor.
const COMPRESSED: [(&[u8], &str); 4] = [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

pub(super) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

pub(super) fn of_layer(error: Error) -> io::Error {
    match error.kind {
        ErrorKind::Integrity => invalid(error.message),
        _ => io::Error::other(error.message),
    }
}

/// The files of an archive, a regular file; if two have one name, the last counts. Links are resolved.
pub(super) fn members(file: File) -> io::Result<HashMap<PathBuf, Slice>> {
    let length = file.metadata()?.len();
    let file = Arc::new(file);
    let mut found: HashMap<Vec<u8>, ArchiveMember> = HashMap::new();
    let add = |member: ArchiveMember| drop(found.insert(member.path.clone(), member));
    let walked = archive_members(length, |at, buffer| file.read_exact_at(buffer, at), add);
    if let Err(error) = walked {
        return Err(
            compression(&file).map_or_else(|| of_layer(error), |name| invalid(format!("it is compressed; unpack it with {name} first")))
        );
    }
    let slice = |member: &ArchiveMember| Slice { file: Arc::clone(&file), start: member.offset, size: member.size };
    let path = |path: &[u8]| PathBuf::from(OsStr::from_bytes(path));
    Ok(found.values().filter_map(|member| Some((path(&member.path), slice(followed(member, &found)?)))).collect())
}

/// The member that a link points to.
fn followed<'found>(mut member: &'found ArchiveMember, all: &'found HashMap<Vec<u8>, ArchiveMember>) -> Option<&'found ArchiveMember> {
    for _ in 0..LINKS {
        match &member.link {
            None => return Some(member),
            Some(target) => member = all.get(target)?,
        }
    }
    None
}

fn compression(file: &File) -> Option<&'static str> {
    let mut start = [0; 6];
    file.read_exact_at(&mut start, 0).ok()?;
    COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}
