//! The database's log on disk: commits are in it at once, and survive a power cut when it is synced.
//!
//! Needs no connection, so that a sync never waits for a transaction and several of them share one.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::system;
use super::schema::log_path;
use crate::durable;
use crate::error::{Error, ErrorKind};

/// The write-ahead log of an open database. SQLite keeps the same file until it closes the database.
pub(super) struct Log {
    file: File,
    /// Its name in the directory survives a power cut.
    is_named: AtomicBool,
    /// A sync failed once: the kernel drops pages it could not write, so later successes cannot be trusted.
    failed: AtomicBool,
}

impl Log {
    /// The log of a database that was opened and read from.
    pub fn open(database: &Path) -> Result<Self, Error> {
        let path = log_path(database);
        let file = File::open(&path).map_err(|error| system("cannot open", &path, &error))?;
        Ok(Self { file, is_named: AtomicBool::new(false), failed: AtomicBool::new(false) })
    }

    /// Every commit that ended before this call survives a power cut after it. A commit that SQLite copied into the database
    /// meanwhile was synced by that.
    pub fn sync(&self, directory: &Path) -> Result<(), Error> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Other,
                format!(
                    "cannot sync {}: an earlier sync failed, and it is unknown which bytes it lost; see the kernel log, then unmount and mount again",
                    super::error::shown(directory)
                ),
            ));
        }
        let failed = |error: &std::io::Error| {
            self.failed.store(true, Ordering::Release);
            system("cannot sync", &directory.join("upper.db"), error)
        };
        self.file.sync_data().map_err(|error| failed(&error))?;
        if !self.is_named.load(Ordering::Acquire) {
            durable::sync_directory(directory).map_err(|error| failed(&error))?;
            self.is_named.store(true, Ordering::Release);
        }
        Ok(())
    }
}
