//! The location of a layout's files: a directory, or an archive of one.
//!
//! Everything here blocks the thread.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use parking_lot::MutexGuard;

use super::archive::{Archive, Region};
use super::directory::{Arriving, Directory};
use super::slice::Slice;
use crate::durable::RangeLock;

/// Detects whether a file has changed since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    start: u64,
    pub(super) size: u64,
}

impl Stamp {
    pub(super) fn of(slice: &Slice) -> io::Result<Self> {
        let metadata = slice.file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            start: slice.start,
            size: slice.size,
        })
    }
}

/// The files of one layout.
pub(super) enum Place {
    Directory(Directory),
    Archive(Archive),
}

/// Excludes all other writers of the index.
pub(super) enum IndexLock<'place> {
    Directory(#[expect(dead_code, reason = "held, not read")] RangeLock),
    Archive(#[expect(dead_code, reason = "held, not read")] MutexGuard<'place, ()>),
}

/// A file being written; removed if dropped before [`Incoming::place`].
pub(super) enum Incoming {
    File(Arriving),
    Region(Region),
}

impl Place {
    /// Opens a file of the layout.
    pub(super) fn open(&self, path: &Path) -> io::Result<Slice> {
        match self {
            Self::Directory(directory) => directory.open(path).and_then(Slice::whole),
            Self::Archive(archive) => archive.open(path),
        }
    }

    /// Creates a file with this name and size.
    pub(super) fn receive(&self, path: &Path, size: u64) -> io::Result<Incoming> {
        match self {
            Self::Directory(directory) => Arriving::new(directory.made()?).map(Incoming::File),
            Self::Archive(archive) => archive.receive(path, size).map(Incoming::Region),
        }
    }

    /// Writes a small file whole. An existing one is replaced if `replace`, else kept.
    pub(super) fn put(&self, path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
        match self {
            Self::Directory(directory) => {
                let mut arriving = Arriving::new(directory.made()?)?;
                arriving.write(bytes)?;
                arriving.place(path, replace)
            }
            Self::Archive(archive) => archive.put(path, bytes, replace),
        }
    }

    /// Locks the index. Other tools do not know this lock; like us, they replace the index atomically.
    pub(super) fn lock(&self) -> io::Result<IndexLock<'_>> {
        match self {
            Self::Directory(directory) => directory.lock().map(IndexLock::Directory),
            Self::Archive(archive) => archive.lock().map(IndexLock::Archive),
        }
    }

    /// Removes a file; a missing one is not an error.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Directory(directory) => directory.remove(path),
            Self::Archive(archive) => archive.remove(),
        }
    }

    /// Makes writes visible, for a place where they become visible together.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Archive(archive) => archive.finish(),
        }
    }
}

impl Incoming {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(arriving) => arriving.write(bytes),
            Self::Region(region) => region.write(bytes),
        }
    }

    /// Gives the file its name, once all its bytes are there.
    pub(super) fn place(self, path: &Path) -> io::Result<()> {
        match self {
            Self::File(arriving) => arriving.place(path, true),
            Self::Region(region) => region.place(path),
        }
    }
}
