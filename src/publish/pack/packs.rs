//! Directories for packed layers of pushes. An interrupted push leaves its directory to the next one.
//!
//! Only one process at a time uses a directory. Any later push removes abandoned ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::durable::{RangeLock, make_directory};
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::publish::disk;

/// How long the layers of a stopped push are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The lock beside a directory.
const LOCK: &str = "lock";

/// The directory of one push, locked while this exists.
#[derive(Debug)]
pub struct Packs {
    directory: PathBuf,
    lock: PathBuf,
    _held: RangeLock,
}

impl Packs {
    /// Claims the directory for `subject` below `root`. Blocks on the disk.
    ///
    /// # Errors
    /// Busy if another process is pushing the same; errors of the disk.
    pub fn claim(root: &Path, subject: &str) -> Result<Self, Error> {
        make_directory(root).map_err(|error| disk::failed("cannot create", root, error))?;
        let directory = root.join(Digest::of(subject.as_bytes()).hex());
        let lock = directory.with_extension(LOCK);
        let held = loop {
            let held = RangeLock::file(&lock, Duration::ZERO).map_err(|error| disk::failed("cannot lock", &lock, error))?;
            let Some(held) = held else {
                return Err(Error::new(ErrorKind::Busy, "another process is already pushing the same files there"));
            };
            // The previous holder may have removed it.
            if held.is_at(&lock).map_err(|error| disk::failed("cannot lock", &lock, error))? {
                break held;
            }
        };
        let packs = Self { directory, lock, _held: held };
        packs.sweep(root);
        Ok(packs)
    }

    /// The directory; it need not exist.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes it, once everything is pushed.
    pub fn finish(self) {
        if let Err(error) = fs::remove_dir_all(&self.directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove packed layers in {}: {error}", self.directory.display());
        }
    }

    /// Removes abandoned directories.
    fn sweep(&self, root: &Path) {
        let Ok(entries) = fs::read_dir(root) else { return };
        for lock in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == LOCK)) {
            let directory = lock.with_extension("");
            let changed =
                fs::symlink_metadata(&directory).or_else(|_| fs::symlink_metadata(&lock)).and_then(|metadata| metadata.modified());
            let is_old = changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > KEPT));
            if lock == self.lock || !is_old {
                continue;
            }
            if let Ok(Some(held)) = RangeLock::file(&lock, Duration::ZERO)
                && held.is_at(&lock).unwrap_or(false)
            {
                Self { directory, lock, _held: held }.finish();
            }
        }
    }
}

impl Drop for Packs {
    fn drop(&mut self) {
        // A lock without a directory is useless to the next push.
        if !self.directory.exists() {
            let _ = fs::remove_file(&self.lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_one_process_and_survives_an_interrupted_push() {
        let root = tempfile::tempdir().unwrap();
        let packs = Packs::claim(root.path(), "a").unwrap();
        assert_eq!(Packs::claim(root.path(), "a").unwrap_err().kind, ErrorKind::Busy);
        fs::create_dir(packs.directory()).unwrap();
        fs::write(packs.directory().join("layer"), b"x").unwrap();
        let other = Packs::claim(root.path(), "b").unwrap();
        drop(packs);
        let packs = Packs::claim(root.path(), "a").unwrap();
        assert!(packs.directory().join("layer").exists());
        packs.finish();
        other.finish();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn abandoned_directories_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let packs = Packs::claim(root.path(), "a").unwrap();
        let (directory, lock) = (packs.directory.clone(), packs.lock.clone());
        fs::create_dir(&directory).unwrap();
        let old = SystemTime::now() - KEPT - Duration::from_secs(60);
        fs::File::open(&directory).unwrap().set_modified(old).unwrap();
        drop(Packs::claim(root.path(), "b").unwrap());
        assert!(directory.exists(), "it is in use");
        drop(packs);
        drop(Packs::claim(root.path(), "b").unwrap());
        assert!(!directory.exists() && !lock.exists());
    }
}
