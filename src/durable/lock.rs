//! Locks that end with their holder.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

pub use crate::sys::lock::Sharing;
use crate::sys::lock::{is_locked, try_lock, unlock};

use super::open_private;

/// A lock on bytes of a file. It excludes other processes and all other `RangeLock`s of this process, and ends when dropped or when its
/// process ends in any way. The bytes need not exist.
#[derive(Debug)]
pub struct RangeLock {
    /// Opened for this lock alone.
    file: File,
}

/// All bytes of a file.
const WHOLE: Range<u64> = 0..u64::MAX;

impl RangeLock {
    /// Locks a range of an existing file without waiting; `None` if another process holds part of it.
    pub fn try_range(path: &Path, range: Range<u64>, sharing: Sharing) -> io::Result<Option<Self>> {
        let file = open_private(path, false)?;
        Ok(try_lock(&file, range, sharing)?.then_some(Self { file }))
    }

    /// Like [`RangeLock::try_range`], but retries with growing pauses for at most `patience`. Blocks the thread: only for briefly held locks.
    pub fn range(path: &Path, range: Range<u64>, sharing: Sharing, patience: Duration) -> io::Result<Option<Self>> {
        let file = open_private(path, false)?;
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        while !try_lock(&file, range.clone(), sharing)? {
            if start.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(Some(Self { file }))
    }

    /// Locks a whole file, creating it if missing; waits at most `patience`.
    pub fn file(path: &Path, patience: Duration) -> io::Result<Option<Self>> {
        open_private(path, true)?;
        Self::range(path, WHOLE, Sharing::Exclusive, patience)
    }

    /// Whether `path` still names the locked file: it was not removed or replaced between opening and locking.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        is_at(&self.file, path)
    }

    /// Replaces the content of the locked file, which identifies the holder to others.
    pub fn write(&self, text: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(text, 0)
    }

    /// Whether an existing file is locked. Takes no lock. NotFound if the file is removed or replaced meanwhile, as holders do before they unlock.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let file = File::open(path)?;
        let is_held = is_locked(&file, WHOLE)?;
        if is_held || is_at(&file, path)? { Ok(is_held) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks a file as used while this open file description is open or mapped anywhere. `false` if someone is about to remove it.
pub fn mark_used(file: &File) -> io::Result<bool> {
    try_lock(file, WHOLE, Sharing::Shared)
}

/// Whether anyone has marked an existing file as used.
pub fn is_used(path: &Path) -> io::Result<bool> {
    Ok(RangeLock::try_range(path, WHOLE, Sharing::Exclusive)?.is_none())
}

impl Drop for RangeLock {
    /// Unlocks explicitly: a child process between fork and exec has the descriptor too and would keep the lock.
    fn drop(&mut self) {
        if let Err(error) = unlock(&self.file, WHOLE) {
            tracing::warn!(%error, "cannot release a lock");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_use_while_anybody_has_marked_and_mapped_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "content").unwrap();
        assert!(!is_used(&path).unwrap());
        let maps = [(); 2].map(|()| {
            let file = open_private(&path, false).unwrap();
            assert!(mark_used(&file).unwrap());
            // The file is closed; only the map remains.
            crate::sys::mapped::Bytes::map(&file).unwrap()
        });
        for map in maps {
            assert!(is_used(&path).unwrap());
            drop(map);
        }
        assert!(!is_used(&path).unwrap());
    }

    #[test]
    fn a_lock_ends_when_dropped_even_if_a_child_inherited_its_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = RangeLock::file(&path, Duration::ZERO).unwrap().unwrap();
        let inherited = lock.file.try_clone().unwrap();
        assert!(RangeLock::is_held(&path).unwrap());
        drop(lock);
        assert!(!RangeLock::is_held(&path).unwrap());
        assert!(RangeLock::file(&path, Duration::ZERO).unwrap().is_some());
        drop(inherited);
    }
}
