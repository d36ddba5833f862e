//! Directories on disk: opened relative to their parents, created if missing, never reached through a symlink.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::of_disk;
use crate::error::{Error, ErrorKind};
use crate::path::components;
use crate::sys::{beneath, entry, process};

/// The directory to extract to.
pub struct Target {
    pub(super) directory: Arc<Directory>,
}

impl Target {
    /// Opens the directory, creating it and its parents if missing. A symlink at its path is followed: the caller named it.
    ///
    /// # Errors
    /// Something else is there, or it cannot be created.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let made = match std::fs::DirBuilder::new().mode(0o777).create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().recursive(true).mode(0o777).create(path).map(|()| true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotADirectory => {
                Error::new(ErrorKind::NotDirectory, format!("{} is not a directory; name a directory to pull into", path.display()))
            }
            _ => of_disk(format_args!("use the directory {}", path.display()), error),
        };
        let file = made.and_then(|made| Ok((beneath::open_directory(path)?, made)));
        let (file, made) = file.map_err(failed)?;
        Ok(Self { directory: Arc::new(Directory { file, path: path.to_owned(), made }) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }
}

/// An open directory.
pub(super) struct Directory {
    /// Its handle.
    pub file: File,
    /// Its path, for messages.
    pub path: PathBuf,
    /// Created by this extraction, so all names in it are ours.
    pub made: bool,
}

impl Directory {
    /// The path of a name in it, for messages.
    pub fn join(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a directory in it, creating it with at least these permission bits if missing. Anything else there is replaced, including a symlink,
    /// unless it must be kept.
    pub fn enter(&self, name: &[u8], mode: u32, keep: bool) -> Result<Self, Error> {
        let name = OsStr::from_bytes(name);
        let entered = self.make_and_open(name, mode).or_else(|error| match error.kind() {
            io::ErrorKind::NotADirectory if !keep => {
                entry::remove(&self.file, name)?;
                self.make_and_open(name, mode)
            }
            _ => Err(error),
        });
        let path = self.join(name);
        match entered {
            Ok((file, made)) => Ok(Self { file, path, made }),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let message = format!("{} is in the way: the artifact has a directory there, and --keep-old-files is set", path.display());
                Err(Error::new(ErrorKind::Exists, message))
            }
            Err(error) => Err(of_disk(format_args!("make the directory {}", path.display()), error)),
        }
    }

    fn make_and_open(&self, name: &OsStr, mode: u32) -> io::Result<(File, bool)> {
        match entry::make_directory(&self.file, name, mode | 0o700) {
            Ok(()) => return Ok((entry::open_directory(&self.file, name)?, true)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        let file = match entry::open_directory(&self.file, name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => entry::open_up_directory(&self.file, name)?,
            opened => opened?,
        };
        // A directory that an archive made read-only must not block the next version. Its mode is set at the end.
        let metadata = file.metadata()?;
        if metadata.mode() & 0o300 != 0o300 && metadata.uid() == process::effective_uid() && metadata.uid() != 0 {
            entry::set_mode(&file, metadata.mode() | 0o700)?;
        }
        Ok((file, false))
    }

    /// Reopens the same directory.
    pub fn again(&self) -> Result<Self, Error> {
        let file = self.file.try_clone().map_err(|error| of_disk(format_args!("open {} again", self.path.display()), error))?;
        Ok(Self { file, path: self.path.clone(), made: false })
    }

    /// Reopens a directory in it that was entered before.
    pub fn reenter(&self, name: &[u8]) -> Result<Self, Error> {
        let name = OsStr::from_bytes(name);
        let path = self.join(name);
        match entry::open_directory(&self.file, name) {
            Ok(file) => Ok(Self { file, path, made: false }),
            Err(error) => Err(of_disk(format_args!("open {} again", path.display()), error)),
        }
    }
}

/// Opens a directory by its path from the root.
pub(super) fn descend(root: &Directory, path: &[u8]) -> Result<Directory, Error> {
    let mut names = components(path);
    let mut directory = match names.next() {
        Some(name) => root.reenter(name)?,
        None => root.again()?,
    };
    for name in names {
        directory = directory.reenter(name)?;
    }
    Ok(directory)
}
