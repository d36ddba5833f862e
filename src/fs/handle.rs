//! Open files and directories. A handle pins what it was opened on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::listed::Listed;
use crate::error::{Error, ErrorKind};
use crate::view::{Attributes, FileHandle, Pin, Reader, View};

/// The result of opening a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// The handle.
    pub handle: u64,
    /// Whether the kernel may keep its cached pages.
    pub keep_cache: bool,
    /// Whether the kernel must forward every read, since the size is not fixed.
    pub direct: bool,
}

/// The result of opening a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenDirectory {
    /// The handle.
    pub handle: u64,
    /// Whether the listing can never change.
    pub immutable: bool,
}

/// An open file.
pub(super) struct File {
    /// The inode number known to the kernel.
    pub number: u64,
    pub body: Body,
    /// Its attributes when opened; shown if its node is gone.
    pub attributes: Option<Attributes>,
    /// Kept so that the digest and its tree live as long as the handle.
    pub view: Option<Arc<View>>,
}

/// The source of an open file's bytes.
pub(super) enum Body {
    /// Generated for this open.
    Made(Reader),
    /// Opened before the tag had edits: the artifact's bytes, until there are edits.
    Pinned {
        reader: Reader,
        /// The same file with the edits. A page is shared by all handles of the file, so this handle
        /// must also return what was written meanwhile.
        now: OnceCell<Arc<FileHandle>>,
        /// Keeps the file's staged bytes, should it lose its last name. Dropped last.
        _pin: Pin,
    },
    /// Sees all writes.
    Edited {
        file: Arc<FileHandle>,
        writable: bool,
        /// Whether anything was written through this handle.
        wrote: AtomicBool,
    },
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

/// All open handles; numbers start at 1 and are never reused.
#[derive(Default)]
pub(super) struct Handles {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Handles {
    fn add(&self, handle: Handle) -> u64 {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let number = inner.next;
        inner.open.insert(number, handle);
        number
    }

    pub(super) fn open_file(&self, file: File, keep_cache: bool) -> OpenFile {
        let direct = matches!(file.body, Body::Made(_));
        OpenFile { handle: self.add(Handle::File(Arc::new(file))), keep_cache, direct }
    }

    /// Any open file of an inode.
    pub(super) fn of_inode(&self, number: u64) -> Option<Arc<File>> {
        let inner = self.inner.lock();
        inner.open.values().find_map(|handle| match handle {
            Handle::File(file) if file.number == number => Some(Arc::clone(file)),
            _ => None,
        })
    }

    /// Whether any handle of an inode is open for writing.
    pub(super) fn has_writer(&self, number: u64) -> bool {
        let inner = self.inner.lock();
        inner.open.values().any(|handle| match handle {
            Handle::File(file) => file.number == number && matches!(file.body, Body::Edited { writable: true, .. }),
            Handle::Directory(_) => false,
        })
    }

    pub(super) fn open_directory(&self, listed: Listed) -> u64 {
        self.add(Handle::Directory(Arc::new(listed)))
    }

    pub(super) fn file(&self, handle: u64) -> Result<Arc<File>, Error> {
        match self.inner.lock().open.get(&handle) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            _ => Err(unknown()),
        }
    }

    pub(super) fn directory(&self, handle: u64) -> Result<Arc<Listed>, Error> {
        match self.inner.lock().open.get(&handle) {
            Some(Handle::Directory(listed)) => Ok(Arc::clone(listed)),
            _ => Err(unknown()),
        }
    }

    pub(super) fn close_all(&self) {
        let closed = std::mem::take(&mut self.inner.lock().open);
        drop(closed);
    }

    pub(super) fn close(&self, handle: u64) {
        let closed = self.inner.lock().open.remove(&handle);
        // Dropped without the lock: a reader may close files.
        drop(closed);
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Invalid, "the handle is not open")
}
