//! Facts about staged bytes that the files themselves do not hold: which have a base, which a power cut may have damaged, times shown instead
//! of the file's.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use super::bases::{self, Stored};
use super::state::{Notes, Store, Times};
use super::{DataAttributes, DataId};
use crate::error::Error;

impl Store {
    /// Loads the rows about staged bytes.
    pub fn set_stored(&self, stored: Stored) {
        let times = stored.times.into_iter().map(|(id, mtime)| (id, Times { mtime, ctime: None, is_stored: true })).collect();
        *self.notes.lock() = Notes { partial: stored.partial.into_keys().collect(), times, suspects: stored.suspects };
    }

    pub fn is_partial(&self, id: DataId) -> bool {
        self.notes.lock().partial.contains(&id)
    }

    /// Files with a base, by number.
    pub fn partial(&self) -> Vec<DataId> {
        self.notes.lock().partial.iter().copied().collect()
    }

    /// Records whether a file has a base.
    pub fn set_partial(&self, id: DataId, is_partial: bool) {
        let mut notes = self.notes.lock();
        if is_partial {
            notes.partial.insert(id)
        } else {
            notes.partial.remove(&id)
        };
    }

    /// Files that a power cut may have damaged.
    pub fn suspects(&self) -> BTreeSet<DataId> {
        self.notes.lock().suspects.clone()
    }

    /// Clears a suspect, when no possibly damaged bytes are left.
    pub fn clear_suspect(&self, id: DataId) -> Result<(), Error> {
        if self.notes.lock().suspects.contains(&id) {
            self.note("cannot write", |connection| bases::clear_suspect(connection, id))?;
            self.notes.lock().suspects.remove(&id);
        }
        Ok(())
    }

    /// Drops all facts about removed files.
    pub fn forget_notes<'a>(&self, ids: impl IntoIterator<Item = &'a DataId>) {
        let mut notes = self.notes.lock();
        for id in ids {
            notes.partial.remove(id);
            notes.times.remove(id);
            notes.suspects.remove(id);
        }
    }

    /// Visible attributes of a file.
    pub fn shown(&self, id: DataId, metadata: &Metadata) -> DataAttributes {
        let (size, blocks) = (metadata.len(), metadata.blocks());
        let (mtime, ctime) = times(metadata);
        let notes = self.notes.lock();
        let kept = notes.times.get(&id);
        DataAttributes {
            size,
            blocks: if notes.partial.contains(&id) { blocks.max(size.div_ceil(512)) } else { blocks },
            mtime: kept.map_or(mtime, |kept| kept.mtime),
            ctime: kept.and_then(|kept| kept.ctime).unwrap_or(ctime),
        }
    }

    /// Records that the file changed: its own times count again.
    pub fn forget_time(&self, id: DataId) -> Result<(), Error> {
        let kept = self.notes.lock().times.get(&id).copied();
        if kept.is_some_and(|kept| kept.is_stored) {
            self.note("cannot write", |connection| bases::set_time(connection, id, None))?;
        }
        if kept.is_some() {
            self.notes.lock().times.remove(&id);
        }
        Ok(())
    }

    /// Remembers a time that was set, if the disk stores a different one.
    pub fn set_time(&self, id: DataId, mtime: (i64, u32), metadata: &Metadata) -> Result<(), Error> {
        if times(metadata).0 != mtime {
            self.note("cannot set the time of", |connection| bases::set_time(connection, id, Some(mtime)))?;
            self.notes.lock().times.insert(id, Times { mtime, ctime: None, is_stored: true });
        }
        Ok(())
    }

    /// Keeps showing a file's current times until it changes, whatever happens to those on disk.
    pub fn keep_times(&self, id: DataId, metadata: &Metadata) {
        let (mtime, ctime) = times(metadata);
        let mut notes = self.notes.lock();
        let kept = notes.times.entry(id).or_insert(Times { mtime, ctime: None, is_stored: false });
        kept.ctime.get_or_insert(ctime);
    }

    /// The modification time shown instead of the file's.
    pub fn kept_mtime(&self, id: DataId) -> Option<(i64, u32)> {
        self.notes.lock().times.get(&id).map(|kept| kept.mtime)
    }
}

/// Modification and change time of a file.
fn times(metadata: &Metadata) -> ((i64, u32), (i64, u32)) {
    let nanoseconds = |value: i64| u32::try_from(value).unwrap_or(0);
    ((metadata.mtime(), nanoseconds(metadata.mtime_nsec())), (metadata.ctime(), nanoseconds(metadata.ctime_nsec())))
}
