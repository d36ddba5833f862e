//! The holder of an upper: a lock that ends with its process, and the pid beside it for messages.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::TagKey;
use super::error::system;
use crate::durable::RangeLock;
use crate::error::{Error, ErrorKind};
use crate::sys::process;

const NAME: &str = "lock";

/// Holds an upper for this process until dropped. Renaming the directory does not release it.
pub(super) struct Hold {
    _lock: RangeLock,
}

impl Hold {
    /// Acquires an upper. `None` if it does not exist (any more).
    pub fn take(directory: &Path, tag_key: &TagKey) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        loop {
            if !directory.is_dir() {
                return Ok(None);
            }
            let failed = |error: &io::Error| system("cannot lock", &path, error);
            let lock = match RangeLock::file(&path, Duration::ZERO) {
                Ok(Some(lock)) => lock,
                Ok(None) if is_free_after_its_end(directory) => continue,
                Ok(None) => return Err(busy(directory, tag_key)),
                // Removed by its holder between the two checks.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.is_dir() => return Ok(None),
                Err(error) => return Err(failed(&error)),
            };
            // If a holder removed or moved the upper between our opening and locking, our lock is on a stale file.
            if lock.is_at(&path).map_err(|error| failed(&error))? {
                lock.write(format!("{}\n", std::process::id()).as_bytes()).map_err(|error| failed(&error))?;
                return Ok(Some(Self { _lock: lock }));
            }
        }
    }
}

/// How long a lock may outlast the end of its holder.
const ENDING: Duration = Duration::from_secs(10);

/// Whether the lock becomes free when a holder that is ending is gone. Otherwise a daemon killed a moment ago would hide its edits from the next
/// one.
fn is_free_after_its_end(directory: &Path) -> bool {
    let (start, path) = (Instant::now(), directory.join(NAME));
    loop {
        // In this order: a holder that is gone by the second check has released the lock.
        let is_ending = written_holder(directory).is_some_and(process::is_ending);
        if !matches!(RangeLock::is_held(&path), Ok(true)) {
            return true;
        }
        if !is_ending || start.elapsed() > ENDING {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process that holds an upper, if any; 0 if its pid cannot be read. Takes no lock. NotFound if the upper is removed or replaced meanwhile.
pub(super) fn holder(directory: &Path) -> io::Result<Option<u32>> {
    let path = directory.join(NAME);
    loop {
        match RangeLock::is_held(&path) {
            Ok(false) => return Ok(None),
            // It may be removed by now.
            Ok(true) if is_free_after_its_end(directory) => {}
            Ok(true) => return Ok(Some(written_holder(directory).unwrap_or(0))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory.exists() && !path.exists() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn written_holder(directory: &Path) -> Option<u32> {
    std::fs::read_to_string(directory.join(NAME)).ok()?.trim().parse().ok()
}

fn busy(directory: &Path, tag_key: &TagKey) -> Error {
    let who = match written_holder(directory) {
        Some(pid) if pid == std::process::id() => format!("this process ({pid})"),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    Error::new(ErrorKind::Busy, format!("{} is staged by {who}; unmount there, or edit it there", tag_key.shown()))
}

/// The lock for changing names in the directory of all uppers. Held briefly.
pub(super) fn lock_names(root: &Path) -> Result<RangeLock, Error> {
    let path: PathBuf = root.join(NAME);
    match RangeLock::file(&path, Duration::from_secs(10)) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Error::new(ErrorKind::Busy, format!("another process keeps {} locked", super::error::shown(&path)))),
        Err(error) => Err(system("cannot lock", &path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_outlives_its_killed_holder_is_awaited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while !process::is_ending(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let lock = RangeLock::file(&path, Duration::ZERO).unwrap().unwrap();
        lock.write(format!("{}\n", child.id()).as_bytes()).unwrap();
        let released = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
        });
        assert_eq!(holder(directory.path()).unwrap(), None);
        released.join().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_running_holder_is_reported_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let lock = RangeLock::file(&directory.path().join(NAME), Duration::ZERO).unwrap().unwrap();
        lock.write(format!("{}\n", std::process::id()).as_bytes()).unwrap();
        assert_eq!(holder(directory.path()).unwrap(), Some(std::process::id()));
    }
}
