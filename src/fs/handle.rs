//! Open files and directories. A handle pins what it was opened on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::directory::Listed;
use super::{Error, View};
use crate::error::ErrorKind;
use crate::view::Reader;

/// The answer to opening a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// The handle.
    pub handle: u64,
    /// Whether the kernel may keep the pages that it has.
    pub keep_cache: bool,
    /// Whether the kernel must ask for every read, since the size is not fixed.
    pub direct: bool,
}

/// The answer to opening a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenDirectory {
    /// The handle.
    pub handle: u64,
    /// Whether the listing can never change.
    pub immutable: bool,
}

/// An open file.
pub(super) struct File {
    /// The inode as the kernel knows it.
    pub number: u64,
    pub reader: Reader,
    /// Kept so that the digest and its tree live as long as the handle.
    _view: Option<Arc<View>>,
}

enum Handle {
    File(Arc<File>),
    Directory(Arc<Listed>),
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Handle>,
}

/// All open handles; numbers start at 1 and are not used again.
#[derive(Default)]
pub(super) struct Handles {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Handles {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, handle: Handle) -> u64 {
        let mut inner = self.inner();
        inner.next += 1;
        let number = inner.next;
        inner.open.insert(number, handle);
        number
    }

    pub(super) fn open_file(&self, number: u64, view: Arc<View>, reader: Reader, keep_cache: bool) -> OpenFile {
        let handle = self.add(Handle::File(Arc::new(File { number, reader, _view: Some(view) })));
        OpenFile { handle, keep_cache, direct: false }
    }

    /// A file that was made for this one open.
    pub(super) fn open_made(&self, number: u64, bytes: Bytes) -> OpenFile {
        let handle = self.add(Handle::File(Arc::new(File { number, reader: Reader::of_memory(bytes), _view: None })));
        OpenFile { handle, keep_cache: false, direct: true }
    }

    pub(super) fn open_directory(&self, listed: Listed) -> u64 {
        self.add(Handle::Directory(Arc::new(listed)))
    }

    pub(super) fn file(&self, handle: u64) -> Result<Arc<File>, Error> {
        match self.inner().open.get(&handle) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            _ => Err(unknown()),
        }
    }

    pub(super) fn directory(&self, handle: u64) -> Result<Arc<Listed>, Error> {
        match self.inner().open.get(&handle) {
            Some(Handle::Directory(listed)) => Ok(Arc::clone(listed)),
            _ => Err(unknown()),
        }
    }

    pub(super) fn close(&self, handle: u64) {
        let closed = self.inner().open.remove(&handle);
        // Dropped outside the lock: a reader may close files.
        drop(closed);
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Invalid, "the handle is not open")
}
