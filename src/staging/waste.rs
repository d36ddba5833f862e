//! Staged bytes that no node refers to any more.
//!
//! They are unlinked only after the commit that gave them up is durable: else a power cut could bring back a node whose bytes are
//! gone, for instance the old file that an editor's rename replaced. Until then they count.

use std::collections::HashSet;

use super::DataId;
use super::error::Error;
use super::store::{Store, lock};
use crate::durable;

/// So many files, or bytes, are worth a sync of their own.
const FILES: usize = 512;
const BYTES: u64 = 64 << 20;

/// What waits for a durable commit.
#[derive(Default)]
pub(super) struct Waste {
    ids: HashSet<DataId>,
    bytes: u64,
}

impl Waste {
    pub fn contains(&self, id: DataId) -> bool {
        self.ids.contains(&id)
    }
}

impl Store {
    /// Takes bytes that a commit gave up. Answers whether collecting is worth it now.
    pub fn give_up(&self, ids: impl IntoIterator<Item = DataId>) -> bool {
        for id in ids {
            let occupied = std::fs::symlink_metadata(self.path(id)).map_or(0, |metadata| durable::occupied(&metadata));
            let mut waste = lock(&self.waste);
            waste.ids.insert(id);
            waste.bytes += occupied;
        }
        let waste = lock(&self.waste);
        waste.ids.len() >= FILES || waste.bytes >= BYTES
    }

    /// The whole upper goes.
    pub fn forget_waste(&self) {
        lock(&self.waste).ids.clear();
    }

    /// Makes all commits durable and unlinks what they gave up, except what a frozen generation has. Answers how many files went.
    pub fn collect(&self) -> Result<usize, Error> {
        if self.check().is_err() {
            // Removed with everything.
            return Ok(0);
        }
        let waste = std::mem::take(&mut *lock(&self.waste));
        let (kept, gone): (HashSet<_>, HashSet<_>) =
            waste.ids.into_iter().partition(|id| self.ask_pins(|pins| pins.all.binary_search(id).is_ok()));
        // What a generation keeps is not worth another attempt before it ends.
        lock(&self.waste).ids.extend(kept);
        if gone.is_empty() {
            return Ok(0);
        }
        let result = self.log.sync(&self.place().directory).and_then(|()| gone.iter().try_for_each(|id| self.unlink(*id)));
        if let Err(error) = result {
            lock(&self.waste).ids.extend(gone);
            return Err(error);
        }
        Ok(gone.len())
    }
}
