//! An entry between its header and the end of its content: attributes, problems, hash.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::header::{BadNumber, Header};
use super::path;
use super::pax::{Records, Sparse};
use crate::error::Error;
use crate::layer::build::{Builder, NewContent, NewEntry};
use crate::layer::{Extent, FileKind, MEMBER_MINIMUM, Metadata, Xattrs};

/// Owner and group of an entry with unreadable ones: `nobody`, never root.
const NOBODY: u32 = 65_534;

/// Files with more bytes of holes are not hashed.
const HOLES_MOST: u64 = 64 << 20;

/// Values of extended headers for the next entry.
#[derive(Default)]
pub(super) struct ExtendedValues {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) records: Records,
    pub(super) any_records: bool,
}

impl ExtendedValues {
    /// Whether an entry must follow.
    pub(super) fn any(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.any_records
    }
}

/// An entry whose content is being read.
pub(super) struct Pending {
    path: Vec<u8>,
    kind: FileKind,
    metadata: Metadata,
    link: Vec<u8>,
    xattrs: Xattrs,
    pub(super) sparse: Sparse,
    size: u64,
    stream: u64,
    extents: Option<Vec<Extent>>,
    /// Extents already hashed, bytes of the current one, and the offset in the file.
    progress: (usize, u64, u64),
    hasher: Option<Sha256>,
    /// False if this is not an entry or was refused.
    keep: bool,
}

impl Pending {
    /// Content that belongs to no entry.
    pub(super) fn passed_over() -> Self {
        Self {
            path: Vec::new(),
            kind: FileKind::File,
            metadata: Metadata::default(),
            link: Vec::new(),
            xattrs: Vec::new(),
            sparse: Sparse::default(),
            size: 0,
            stream: 0,
            extents: None,
            progress: (0, 0, 0),
            hasher: None,
            keep: false,
        }
    }

    /// Combines the header at `offset` with the preceding extended headers.
    pub(super) fn new(header: &Header<'_>, names: &ExtendedValues, mut records: Records, offset: u64, builder: &mut Builder) -> Self {
        let sparse_name = records.sparse.name.take();
        let raw = names.path.clone().or(sparse_name).or(records.path.take()).unwrap_or_else(|| header.name());
        let mut pending = Self {
            xattrs: std::mem::take(&mut records.xattrs),
            sparse: std::mem::take(&mut records.sparse),
            keep: true,
            ..Self::passed_over()
        };
        let mut wrong = std::mem::take(&mut records.bad);
        pending.kind = kind(header.type_flag(), &raw, &mut wrong);
        pending.path = path::clean(&raw);
        if !path::all_fit(&raw) {
            wrong.push("its name is not a valid file name, so it is shown under a similar one");
        }
        if pending.keep && pending.path.is_empty() && pending.kind != FileKind::Directory {
            pending.refuse("it has no name", &raw, offset, builder);
        }
        let link = names.link.clone().or(records.link.take()).unwrap_or_else(|| header.link());
        if let Err(reason) = pending.set_link(link) {
            pending.refuse(reason, &raw, offset, builder);
        }
        pending.attributes(header, &records, &mut wrong);
        if pending.keep {
            for wrong in wrong {
                builder.warn(|| format!("{} at byte {offset} of the stream: {wrong}", shown(&raw)));
            }
        }
        if pending.kind == FileKind::File || pending.kind == FileKind::HardLink {
            pending.hasher = pending.keep.then(Sha256::new);
        }
        pending
    }

    fn refuse(&mut self, reason: &str, raw: &[u8], offset: u64, builder: &mut Builder) {
        if std::mem::replace(&mut self.keep, false) {
            builder.warn(|| format!("skipped {} at byte {offset} of the stream: {reason}", shown(raw)));
        }
    }

    fn set_link(&mut self, link: Vec<u8>) -> Result<(), &'static str> {
        match self.kind {
            FileKind::Symlink if link.is_empty() => Err("its target is empty"),
            FileKind::Symlink if link.contains(&0) => Err("its target has a NUL"),
            FileKind::Symlink if link.len() > path::TARGET => Err("its target is longer than 4095 bytes"),
            FileKind::Symlink => {
                self.size = link.len() as u64;
                self.link = link;
                Ok(())
            }
            FileKind::HardLink => {
                self.link = path::clean(&link);
                if self.link.is_empty() { Err("its target is empty") } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, header: &Header<'_>, records: &Records, wrong: &mut Vec<&'static str>) {
        let mut owner = |record: Option<u32>, field: Result<i128, BadNumber>, what| {
            record.or(field.ok().and_then(|value| u32::try_from(value).ok()).filter(|value| *value != u32::MAX)).unwrap_or_else(|| {
                wrong.push(what);
                NOBODY
            })
        };
        let uid = owner(records.uid, header.uid(), "its owner is not a valid uid");
        let gid = owner(records.gid, header.gid(), "its group is not a valid gid");
        self.metadata.owner = Some((uid, gid));
        let mode = header.mode().ok().and_then(|mode| u32::try_from(mode & 0o7777).ok());
        self.metadata.mode = Some(mode.unwrap_or_else(|| {
            wrong.push("its mode is not a number");
            if self.kind == FileKind::Directory { 0o755 } else { 0o644 }
        }));
        let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
        self.metadata.mtime = Some(records.mtime.or(seconds.map(|seconds| (seconds, 0))).unwrap_or_else(|| {
            wrong.push("its time is out of range");
            (0, 0)
        }));
        if matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice) {
            let narrow = |(major, minor)| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?));
            self.metadata.device = header.device().ok().and_then(narrow).unwrap_or_else(|| {
                wrong.push("its device number is out of range");
                (0, 0)
            });
        }
    }

    pub(super) fn is_hard_link(&self) -> bool {
        self.kind == FileKind::HardLink
    }

    /// Whether bytes may follow the header.
    pub(super) fn has_content(&self) -> bool {
        self.kind == FileKind::File
    }

    /// The content is contiguous from here. Returns its range if that is a member.
    pub(super) fn whole(&mut self, stream: u64, stored: u64) -> Option<Range<u64>> {
        self.stream = stream;
        self.size = stored;
        (self.keep && self.kind == FileKind::File && stored >= MEMBER_MINIMUM).then(|| stream..stream + stored)
    }

    /// The content is in extents.
    pub(super) fn pieces(&mut self, extents: Vec<Extent>, size: u64, hole_budget: &mut u64) {
        let stored: u64 = extents.iter().map(|extent| extent.length).sum();
        let holes = size - stored.min(size);
        if holes > HOLES_MOST || holes > *hole_budget {
            self.hasher = None;
        }
        self.size = size;
        self.extents = Some(extents);
    }

    /// The next stored bytes of the content.
    pub(super) fn content(&mut self, mut bytes: &[u8]) {
        let Some(hasher) = &mut self.hasher else { return };
        let Some(extents) = &self.extents else {
            hasher.update(bytes);
            return;
        };
        let (number, done, position) = &mut self.progress;
        while let Some(extent) = extents.get(*number).filter(|_| !bytes.is_empty()) {
            zeros(hasher, extent.file - (*position).min(extent.file));
            let length = usize::try_from(extent.length - *done).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            hasher.update(now);
            bytes = later;
            *done += length as u64;
            *position = extent.file + *done;
            if *done == extent.length {
                (*number, *done) = (*number + 1, 0);
            }
        }
    }

    /// Records the entry, now that its content is complete.
    pub(super) fn finish(&mut self, hole_budget: &mut u64, builder: &mut Builder) -> Result<(), Error> {
        if !self.keep {
            return Ok(());
        }
        if let (Some(hasher), Some(extents)) = (&mut self.hasher, &self.extents) {
            zeros(hasher, self.size - self.progress.2.min(self.size));
            let stored: u64 = extents.iter().map(|extent| extent.length).sum();
            *hole_budget = hole_budget.saturating_sub(self.size - stored.min(self.size));
        }
        let hashed = self.kind == FileKind::File || self.size > 0;
        builder.entry(&NewEntry {
            path: &self.path,
            kind: self.kind,
            metadata: self.metadata,
            size: self.size,
            link: &self.link,
            sha256: self.hasher.take().filter(|_| hashed).map(|hasher| hasher.finalize().into()),
            content: match &self.extents {
                None => NewContent::Whole(self.stream),
                Some(extents) => NewContent::Pieces(extents),
            },
            xattrs: &self.xattrs,
        })
    }
}

fn zeros(hasher: &mut Sha256, mut length: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while length > 0 {
        let now = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(ZEROS.get(..now).unwrap_or_default());
        length -= now as u64;
    }
}

/// The kind for a type flag. Unknown ones are files, as in GNU tar.
fn kind(type_flag: u8, name: &[u8], wrong: &mut Vec<&'static str>) -> FileKind {
    match type_flag {
        // v7 had no type for directories.
        0 if name.ends_with(b"/") => FileKind::Directory,
        0 | b'0' | b'7' | b'S' => FileKind::File,
        b'1' => FileKind::HardLink,
        b'2' => FileKind::Symlink,
        b'3' => FileKind::CharDevice,
        b'4' => FileKind::BlockDevice,
        b'5' | b'D' => FileKind::Directory,
        b'6' => FileKind::Fifo,
        _ => {
            wrong.push("its type is unknown; it is read as a file");
            FileKind::File
        }
    }
}

/// A name for messages: escaped, and truncated if long.
fn shown(raw: &[u8]) -> String {
    let cut = raw.get(..200).unwrap_or(raw);
    format!("`{}{}`", cut.escape_ascii(), if cut.len() < raw.len() { "…" } else { "" })
}
