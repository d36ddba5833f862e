//! Files for large arrays under construction; those in the cache count against its budget until dropped.
//!
//! Each of these is in its own work directory, so that a recount sees it, and the next evictor removes that of a killed process.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::ledger::Reservation;
use super::shared::Shared;
use crate::durable;
use crate::sys::array::{ScratchFile, ScratchPlace};

/// A file up to this many bytes is created even if the budget is full: otherwise the artifact could not even be listed.
const SMALL: u64 = 64 << 20;

/// Creates scratch files in a cache.
pub struct ScratchFiles(pub Arc<Shared>);

/// Creates scratch files without a name in a directory, which the system frees however the process ends; in the cache if that fails.
pub struct UnnamedFiles {
    pub directory: PathBuf,
    pub otherwise: ScratchFiles,
}

struct Unnamed {
    file: File,
    length: u64,
}

impl ScratchPlace for UnnamedFiles {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        match tempfile::tempfile_in(&self.directory) {
            Ok(file) => Ok(Box::new(Unnamed { file, length: 0 })),
            Err(error) => {
                tracing::debug!(%error, directory = %self.directory.display(), "scratch files are in the cache instead");
                self.otherwise.create()
            }
        }
    }
}

impl ScratchFile for Unnamed {
    fn file(&self) -> &File {
        &self.file
    }

    fn grow(&mut self, length: u64) -> io::Result<()> {
        durable::make_room(&self.file, self.length..length)?;
        self.length = length;
        Ok(())
    }
}

struct Work {
    shared: Arc<Shared>,
    directory: PathBuf,
    file: File,
    length: u64,
    /// Bytes reserved for it.
    counted: u64,
}

impl ScratchPlace for ScratchFiles {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        let directory = self.0.work_directory()?;
        let file = durable::open_private(&directory.join("scratch"), true)?;
        Ok(Box::new(Work { shared: Arc::clone(&self.0), directory, file, length: 0, counted: 0 }))
    }
}

impl ScratchFile for Work {
    fn file(&self) -> &File {
        &self.file
    }

    fn grow(&mut self, length: u64) -> io::Result<()> {
        let more = length.saturating_sub(self.length);
        let reservation = self.shared.reserve(more).map_err(io::Error::other)?;
        if reservation.is_none() && (length > SMALL || self.shared.disk_shortage(more).map_err(io::Error::other)? > 0) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the cache has no room for it (--cache-size, --cache-min-free)"));
        }
        let reserved = reservation.as_ref().map_or(0, Reservation::bytes);
        if let Err(error) = durable::make_room(&self.file, self.length..length) {
            self.shared.give_back(reserved);
            return Err(error);
        }
        self.length = length;
        self.counted += reserved;
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.directory) {
            Ok(()) => self.shared.give_back(self.counted),
            Err(error) => tracing::warn!(%error, directory = %self.directory.display(), "cannot remove a scratch file"),
        }
    }
}
