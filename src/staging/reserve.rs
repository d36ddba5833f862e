//! Disk space reserved for the database: on a full disk it must still be possible to delete something.
//!
//! The database files have blocks allocated beyond their ends, and staged bytes leave some space for everything else.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::error::system;
use super::schema::log_path;
use crate::durable;
use crate::error::Error;
use crate::sys::space::{KEEP_SIZE, allocate_as, is_too_large};

/// Bytes that staging leaves free on the disk.
const ROOM: u64 = 256 << 10;
/// Bytes written after which free disk space is checked again.
const ASK_AFTER: u64 = 64 << 10;
/// Allocation beyond a file's content before a transaction starts: many times the need of one change,
const LEAST: u64 = 256 << 10;
/// and the step in which it grows.
const STEP: u64 = 512 << 10;

/// The space reserved for one upper's database.
pub(super) struct Reserve {
    log: Kept,
    database: Kept,
}

/// Checks the disk's room for staged bytes: counts how many were written since the last check.
pub(super) struct Room(AtomicU64);

/// A file of SQLite, kept open as long as SQLite has it: closing it would release SQLite's locks.
struct Kept {
    file: File,
    /// This file system does not support reservations.
    is_hopeless: AtomicBool,
}

impl Kept {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = durable::open_private(path, false).map_err(|error| system("cannot open", path, &error))?;
        Ok(Self { file, is_hopeless: AtomicBool::new(false) })
    }

    fn keep(&self) -> bool {
        let Ok(metadata) = self.file.metadata() else { return true };
        let length = metadata.len();
        // Checked each time, since SQLite frees blocks beyond the end of a database.
        if self.is_hopeless.load(Ordering::Relaxed) || durable::occupied(&metadata) >= length.saturating_add(LEAST) {
            return true;
        }
        for step in [STEP, LEAST] {
            match allocate_as(&self.file, KEEP_SIZE, length, step) {
                Ok(()) => return true,
                Err(error) if durable::is_full(&error) && !is_too_large(&error) => {}
                Err(_) => {
                    self.is_hopeless.store(true, Ordering::Relaxed);
                    return true;
                }
            }
        }
        false
    }
}

impl Reserve {
    /// For a database that was opened and read.
    pub fn open(database: &Path) -> Result<Self, Error> {
        Ok(Self { log: Kept::open(&log_path(database))?, database: Kept::open(database)? })
    }

    /// Allocates the blocks that the next changes need. `false` if the disk is full: they must do without. The database comes first: while it can
    /// grow, the log can be restarted.
    pub fn keep(&self) -> bool {
        let (database, log) = (self.database.keep(), self.log.keep());
        database && log
    }
}

impl Default for Room {
    /// The first write checks.
    fn default() -> Self {
        Self(AtomicU64::new(ASK_AFTER))
    }
}

impl Room {
    /// Whether the disk has room for more staged bytes. If that cannot be checked, assumes it has.
    pub fn has(&self, directory: &Path, bytes: u64) -> bool {
        if self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < ASK_AFTER {
            return true;
        }
        let has_room = durable::free(directory).map_or(u64::MAX, |free| available(&free)) >= bytes;
        // A full disk is checked each time.
        self.0.store(if has_room { 0 } else { ASK_AFTER }, Ordering::Relaxed);
        has_room
    }
}

/// Bytes that can still be staged on a disk.
pub(super) fn available(disk: &durable::Free) -> u64 {
    disk.available.saturating_sub(ROOM)
}
