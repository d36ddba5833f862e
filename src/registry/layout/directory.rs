//! A layout in a directory. Files are written as a temporary file, fsync, rename, fsync of the directory.
//!
//! Every directory is opened below the layout's own without following links, and written to through that handle, so nothing escapes the
//! layout. Everything here blocks the thread.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::local::MARKER;
use crate::durable::{self, RangeLock, Sharing};
use crate::sys::beneath;

/// Longest wait for another writer of the index, which holds it for one small write.
const PATIENCE: Duration = Duration::from_secs(30);

/// Name prefix of temporary files, in the layout's own directory.
const TEMPORARY: &str = ".new-";

/// The directory of a layout.
pub(super) struct Directory {
    path: PathBuf,
    /// Unset while the directory does not exist: a layout that begins with its first push.
    root: OnceLock<File>,
}

/// The path of an open directory, independent of renames and links.
fn through(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

impl Directory {
    /// A directory that is opened on first use.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, root: OnceLock::new() }
    }

    /// The directory, which must exist.
    pub(super) fn root(&self) -> io::Result<&File> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = File::open(&self.path)?;
        Ok(self.root.get_or_init(|| root))
    }

    /// The directory, created if missing.
    pub(super) fn made(&self) -> io::Result<&File> {
        if self.root.get().is_none() {
            let made = std::fs::create_dir(&self.path).and_then(|()| self.path.parent().map_or(Ok(()), durable::sync_directory));
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        self.root()
    }

    /// The names in it, without temporary files.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let names = std::fs::read_dir(through(self.root()?))?.map(|entry| entry.map(|entry| entry.file_name()));
        names.filter(|name| !name.as_ref().is_ok_and(|name| name.to_string_lossy().starts_with(TEMPORARY))).collect()
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        beneath::open_linked_file(self.root()?, path)
    }

    pub(super) fn lock(&self) -> io::Result<RangeLock> {
        let lock = RangeLock::range(&through(self.root()?).join(MARKER), 0..u64::MAX, Sharing::Exclusive, PATIENCE)?;
        lock.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "another process has held its lock for too long"))
    }

    /// Hard-links a file under another name in the layout, durably, replacing a file of that name.
    pub(super) fn link(&self, from: &Path, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let root = self.root()?;
        let directory = beneath::make_directory(root, parent)?;
        let target = through(&directory).join(name);
        let inode = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        if inode(&target).ok() != Some(inode(from)?) {
            let temporary = tempfile::Builder::new().prefix(TEMPORARY).make_in(through(root), |path| std::fs::hard_link(from, path))?;
            // Renaming onto another link of the same file, made meanwhile, does nothing (rename(2)); dropping removes the name that stays.
            let temporary = temporary.into_temp_path();
            std::fs::rename(&temporary, &target)?;
        }
        directory.sync_all()
    }

    /// The names in a directory of the layout; empty if it does not exist.
    pub(super) fn names_below(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match std::fs::read_dir(through(self.root()?).join(path)) {
            Ok(names) => names.map(|entry| entry.map(|entry| entry.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Removes a file; a missing one is not an error.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        match beneath::make_directory(self.root()?, parent).and_then(|directory| beneath::remove_file(&directory, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A file being written; removed if dropped before [`Arriving::place`].
pub(super) struct Arriving {
    file: NamedTempFile,
    /// Kept open, since the file's path leads through it.
    root: File,
}

impl Arriving {
    pub(super) fn new(root: &File) -> io::Result<Self> {
        let root = root.try_clone()?;
        // Layouts are read by other users and tools: the umask decides the mode.
        let mode = Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().prefix(TEMPORARY).permissions(mode).tempfile_in(through(&root))?;
        Ok(Self { file, root })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file_mut().write_all(bytes)
    }

    /// Makes the bytes durable under their name, creating its directory if missing. An existing file is replaced if `replace`, else kept.
    pub(super) fn place(self, path: &Path, replace: bool) -> io::Result<()> {
        let Self { file, root } = self;
        file.as_file().sync_all()?;
        let directory = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => beneath::make_directory(&root, parent)?,
            None => root.try_clone()?,
        };
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let target = through(&directory).join(name);
        let placed = if replace { file.persist(target) } else { file.persist_noclobber(target) };
        match placed {
            Err(failed) if replace || failed.error.kind() != io::ErrorKind::AlreadyExists => return Err(failed.error),
            _ => {}
        }
        directory.sync_all()
    }
}
