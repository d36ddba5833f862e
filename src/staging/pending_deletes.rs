//! Staged bytes that no node refers to any more.
//!
//! They are unlinked only after the commit that released them is durable: otherwise a power cut could bring back a node whose bytes are gone, such
//! as the old file that an editor replaced by rename. Until then they count against the quota.

use std::collections::HashSet;

use super::state::{Shared, Store};
use super::{DataId, bases};
use crate::durable;
use crate::error::Error;

/// Number of files, or bytes, worth a sync of their own.
const FILES: usize = 512;
const BYTES: u64 = 64 << 20;
/// Files whose rows are dropped per transaction, so that other changes do not wait for long.
const ROWS: usize = 256;

impl Store {
    /// Adds bytes released by a commit. Returns whether collecting is worth it now.
    pub fn give_up(&self, ids: impl IntoIterator<Item = DataId>) -> bool {
        for id in ids {
            let occupied = std::fs::symlink_metadata(self.path(id)).map_or(0, |metadata| durable::occupied(&metadata));
            let mut pending_deletes = self.pending_deletes.lock();
            pending_deletes.ids.insert(id);
            pending_deletes.bytes += occupied;
        }
        let pending_deletes = self.pending_deletes.lock();
        pending_deletes.ids.len() >= FILES || pending_deletes.bytes >= BYTES
    }

    /// Forgets them because the whole upper is removed.
    pub fn forget_pending_deletes(&self) {
        self.pending_deletes.lock().ids.clear();
    }

    /// The files that may be unlinked once it is durable that nothing refers to them.
    fn take_pending_deletes(&self) -> HashSet<DataId> {
        let pending_deletes = std::mem::take(&mut *self.pending_deletes.lock());
        let (kept, gone): (HashSet<_>, HashSet<_>) = pending_deletes.ids.into_iter().partition(|id| self.is_frozen(*id));
        // Files held by a generation are not tried again before it ends.
        self.pending_deletes.lock().ids.extend(kept);
        gone
    }
}

impl Shared {
    /// Makes all commits durable and unlinks the files they released, and their bases, except those of a frozen generation. Returns the number of
    /// files unlinked.
    pub fn collect(&self) -> Result<usize, Error> {
        let (store, mut count) = (&self.store, 0);
        // The whole upper was removed.
        while store.check().is_ok() {
            let gone = store.take_pending_deletes();
            if gone.is_empty() {
                break;
            }
            let unlinked =
                store.in_directory(|directory| store.log.sync(directory)).and_then(|()| gone.iter().try_for_each(|id| store.unlink(*id)));
            match unlinked.and_then(|()| self.forget(&gone)) {
                Ok(released) => store.give_up(released),
                Err(error) => {
                    store.pending_deletes.lock().ids.extend(gone);
                    return Err(error);
                }
            };
            count += gone.len();
        }
        Ok(count)
    }

    /// Drops all rows about removed files. Returns the files that were only their bases.
    fn forget(&self, gone: &HashSet<DataId>) -> Result<Vec<DataId>, Error> {
        let mut released = Vec::new();
        let gone_of: Vec<DataId> = gone.iter().copied().collect();
        for some in gone_of.chunks(ROWS) {
            let below = self.transact("cannot forget staged bytes in", |connection| {
                some.iter().filter_map(|id| bases::forget(connection, *id).transpose()).collect::<rusqlite::Result<Vec<_>>>()
            })?;
            self.store.forget_notes(some);
            released.extend(below);
        }
        Ok(released)
    }
}
