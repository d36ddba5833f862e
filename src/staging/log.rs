//! The database's write-ahead log on disk: it has every commit at once, and syncing it makes them survive a power cut.
//!
//! Needs no connection, so that a sync never waits for a transaction and several can share one.

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
    /// Whether its directory entry survives a power cut.
    is_named: AtomicBool,
    /// Whether a sync ever failed: the kernel drops pages that it could not write, so later successes cannot be trusted.
    failed: AtomicBool,
}

impl Log {
    /// Opens the log of a database that was opened and read.
    pub fn open(database: &Path) -> Result<Self, Error> {
        let path = log_path(database);
        let file = File::open(&path).map_err(|error| system("cannot open", &path, &error))?;
        Ok(Self { file, is_named: AtomicBool::new(false), failed: AtomicBool::new(false) })
    }

    /// After this returns, every commit that completed before the call survives a power cut. Commits that SQLite checkpointed into the database
    /// meanwhile were synced by that.
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
