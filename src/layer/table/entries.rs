//! Records the entries of a table, with the same judgement of names and values as for a tar.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::chunks::{Chunks, sha256};
use super::document::{self, Written};
use super::limits::unusable;
use crate::error::Error;
use crate::layer::build::{Builder, NewContent, NewEntry};
use crate::layer::tar::path;
use crate::layer::tar::{XATTR_NAME, XATTR_VALUE, XATTRS};
use crate::layer::{Extent, FileKind, Metadata, Xattrs};
use crate::oci::time;

/// Stands for bytes that are no UTF-8 in JSON, and so for an unknown name.
const UNKNOWN: char = '\u{fffd}';

/// Records all entries.
pub(super) fn record(text: &[u8], chunks: &Chunks, builder: &mut Builder) -> Result<(), Error> {
    let mut files = 0;
    let mut members_end = 0;
    document::read(text, |entry| {
        if entry.is_chunk() {
            return Ok(());
        }
        let extents = if entry.is_file() && entry.size > 0 {
            files += 1;
            chunks.extents(files - 1)
        } else {
            Vec::new()
        };
        add(entry, &extents, &mut members_end, builder)
    })
}

fn add(entry: &Written<'_>, extents: &[Extent], members_end: &mut u64, builder: &mut Builder) -> Result<(), Error> {
    let kind = kind(entry)?;
    if entry.name.contains(UNKNOWN) || entry.link_name.contains(UNKNOWN) {
        return Err(unusable("a name in it is not UTF-8 in the layer"));
    }
    let path = path::clean(entry.name.as_bytes());
    let link = match kind {
        FileKind::Symlink => entry.link_name.as_bytes().to_vec(),
        FileKind::HardLink => path::clean(entry.link_name.as_bytes()),
        _ => Vec::new(),
    };
    let refused = match kind {
        FileKind::Symlink if link.is_empty() || link.contains(&0) || link.len() > path::TARGET => Some("its target is invalid"),
        FileKind::HardLink if link.is_empty() => Some("its target is empty"),
        kind if path.is_empty() && kind != FileKind::Directory => Some("it has no name"),
        _ => None,
    };
    if let Some(reason) = refused {
        builder.warn(|| format!("skipped {}: {reason}", entry.name.escape_debug()));
        return Ok(());
    }
    if !path::all_fit(entry.name.as_bytes()) {
        builder.warn(|| format!("{}: its name is not a valid file name, so it is shown under a similar one", entry.name.escape_debug()));
    }
    let (size, sha256) = match kind {
        FileKind::File if entry.size == 0 => (0, Some(Sha256::digest([]).into())),
        FileKind::File => (entry.size, entry.digest.as_deref().map(sha256).transpose()?),
        FileKind::Symlink => (link.len() as u64, None),
        _ => (0, None),
    };
    builder.entry(&NewEntry {
        path: &path,
        kind,
        metadata: metadata(entry)?,
        size,
        link: &link,
        sha256,
        content: if kind == FileKind::File { content(extents, size, members_end) } else { NewContent::Whole(0) },
        xattrs: &attributes(entry)?,
    })
}

/// The content of a file: whole where its chunks follow each other in the stream, after those of all files before it that are whole.
fn content<'a>(extents: &'a [Extent], size: u64, members_end: &mut u64) -> NewContent<'a> {
    match extents {
        [] if size == 0 => NewContent::Whole(0),
        [only] if only.length == size && only.stream >= *members_end => {
            *members_end = only.stream + only.length;
            NewContent::Whole(only.stream)
        }
        pieces => NewContent::Pieces(pieces),
    }
}

fn kind(entry: &Written<'_>) -> Result<FileKind, Error> {
    Ok(match entry.kind.as_ref() {
        "reg" => FileKind::File,
        "dir" => FileKind::Directory,
        "symlink" => FileKind::Symlink,
        "hardlink" => FileKind::HardLink,
        "char" => FileKind::CharDevice,
        "block" => FileKind::BlockDevice,
        "fifo" => FileKind::Fifo,
        _ => return Err(unusable("an entry is of an unknown type")),
    })
}

fn metadata(entry: &Written<'_>) -> Result<Metadata, Error> {
    let mtime = match entry.modtime.as_deref() {
        None | Some("") => (0, 0),
        Some(text) => time::parse(text).ok_or_else(|| unusable("a time in it is malformed"))?,
    };
    Ok(Metadata {
        mode: Some((entry.mode & 0o7777) as u32),
        owner: Some((entry.uid, entry.gid)),
        mtime: Some(mtime),
        device: (entry.dev_major, entry.dev_minor),
    })
}

fn attributes(entry: &Written<'_>) -> Result<Xattrs, Error> {
    let written = entry.xattrs.as_ref().map(|attributes| attributes.0.as_slice()).unwrap_or_default();
    let mut attributes = Vec::new();
    for (name, value) in written {
        let value = STANDARD.decode(value).map_err(|_| unusable("an extended attribute is malformed"))?;
        let is_valid = !name.is_empty() && name.len() <= XATTR_NAME && !name.contains(['\0', UNKNOWN]) && value.len() <= XATTR_VALUE;
        if !is_valid || attributes.len() >= XATTRS {
            return Err(unusable("an extended attribute is invalid on Linux"));
        }
        if !value.is_empty() {
            attributes.push((name.as_bytes().to_vec(), value));
        }
    }
    Ok(attributes)
}
