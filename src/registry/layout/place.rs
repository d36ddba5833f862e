//! Where the files of a layout are: in a directory, or in an archive of one.
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

/// Tells whether bytes are still those that were hashed.
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

    /// Which bytes on which disk, whatever they are now.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.inode, self.start)
    }
}

/// The files of one layout.
pub(super) enum Place {
    Directory(Directory),
    Archive(Archive),
}

/// Excludes everybody else who changes the index.
pub(super) enum IndexLock<'place> {
    Directory(#[expect(dead_code, reason = "held, not read")] RangeLock),
    Archive(#[expect(dead_code, reason = "held, not read")] MutexGuard<'place, ()>),
}

/// A file on its way into a layout; gone again when it is dropped before [`Incoming::place`].
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

    /// Begins a file of this name and size.
    pub(super) fn receive(&self, path: &Path, size: u64) -> io::Result<Incoming> {
        match self {
            Self::Directory(directory) => Arriving::new(directory.made()?).map(Incoming::File),
            Self::Archive(archive) => archive.receive(path, size).map(Incoming::Region),
        }
    }

    /// Writes a small file whole. What has the name is replaced if `replace`, else left.
    pub(super) fn put(&self, path: &Path, bytes: &[u8], replace: bool) -> io::Result<Slice> {
        match self {
            Self::Directory(directory) => {
                let mut arriving = Arriving::new(directory.made()?)?;
                arriving.write(bytes)?;
                Slice::whole(arriving.place(path, replace)?)
            }
            Self::Archive(archive) => archive.put(path, bytes, replace),
        }
    }

    /// Locks the index. Other tools know no such lock; they replace it whole, as we do.
    pub(super) fn lock(&self) -> io::Result<IndexLock<'_>> {
        match self {
            Self::Directory(directory) => directory.lock().map(IndexLock::Directory),
            Self::Archive(archive) => archive.lock().map(IndexLock::Archive),
        }
    }

    /// Removes a file; one that is gone is not an error.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Directory(directory) => directory.remove(path),
            Self::Archive(archive) => archive.remove(),
        }
    }

    /// Makes what was written visible where it becomes visible as a whole.
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

    /// Gives the file its name, once all of its bytes are there.
    pub(super) fn place(self, path: &Path) -> io::Result<Slice> {
        match self {
            Self::File(arriving) => arriving.place(path, true).and_then(Slice::whole),
            Self::Region(region) => region.place(path),
        }
    }
}
