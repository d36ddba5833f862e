//! One edited tag as its user sees it: the upper over the tree of the digest that the edits began with.
//!
//! Gives every change to one tag its POSIX meaning, in transactions of the upper, and reads the merged state. Also works
//! without a mount. Knows nothing of inodes, kernel handles, other tags or the registry's tag.
//!
//! The upper is the only source of truth: memory only records where the upper has no rows, and which files are open.
//!
//! - `open`: turns an existing upper into an overlay
//! - `names`: the merged tree, and changes of names; `attributes`: those of a node
//! - `bytes`: reading and writing files
//! - `freeze`: what a publish takes; `discard`: reverts to the upstream state
//! - `plain`: the values that callers see

mod attributes;
mod bytes;
mod discard;
mod freeze;
mod names;
mod open;
mod plain;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};

pub use bytes::content::hash_file;
pub use bytes::file_handle::FileHandle;
pub use freeze::frozen::Frozen;
pub use names::unedited::{TreeSnapshot, tree_entries};
pub use plain::{Difference, Forgotten, NewNode, PathState, Replace, SetAttributes};

use super::pins::Pins;
use super::{EntryContent, ViewNode};
use crate::error::Error;
use crate::staging::{Binding, TagKey, Upper};
use attributes::access_times::AccessTimes;
use bytes::layered::Layered;
use bytes::lower::{Blobs, Lower};
use bytes::table::Table;
use names::base::Base;
use names::merged::Merged;
use names::removed::Removed;
use names::trees::Trees;
use names::walk::Place;

/// Generations of a tag that may exist at a time: one is frozen, others are being dropped.
const GENERATIONS: u32 = 8;

/// An edited tag. Shared by its view, by open files and by a publish.
///
/// Lock order: `names`, `freeze_lock`, the turn of an open file, the upper's own, `table`. None is held while
/// anything is fetched, and none for longer than one change, one write or one small batch.
pub struct Overlay {
    upper: Arc<Upper>,
    base: Base,
    /// Those that rows refer to, and the expected one.
    trees: Trees,
    blobs: Blobs,
    table: Table<OpenFile>,
    /// Held while names change, and while a file is opened.
    names: Mutex<()>,
    /// Shared by writers of bytes, taken exclusively by a freeze or a commit.
    freeze_lock: RwLock<()>,
    /// Notified when there is something to fill in from below.
    filler: Arc<Notify>,
    /// A task is filling files in.
    is_filling: AtomicBool,
    /// Handles open for writing.
    writers: AtomicU64,
    /// Incremented by every freeze and commit; each file is counted as changed once per epoch.
    epoch: AtomicU64,
    /// Each frozen generation has one permit.
    generations: Arc<Semaphore>,
    access_times: AccessTimes,
    /// Files open through handles unknown to the table; unset if no other view shows the tag.
    pins: OnceLock<Arc<Pins>>,
    removed: Removed,
}

/// Where the bytes of an open file currently are.
#[derive(Clone)]
enum ByteSource {
    Lower(Arc<Lower>),
    Data(Arc<Layered>),
}

/// An open file. Dropped with its last handle, and with it a node without a name.
struct OpenFile {
    pub overlay: Arc<Overlay>,
    pub node: ViewNode,
    /// Held for copying only.
    source: RwLock<ByteSource>,
    /// Held while a write chooses its target and is made.
    turn: Mutex<()>,
    /// The overlay's epoch in which the file was last counted as changed.
    marked: AtomicU64,
    /// Handles open for writing.
    pub writers: AtomicU64,
}

impl Overlay {
    /// The tag.
    pub fn tag_key(&self) -> TagKey {
        self.upper.tag_key()
    }

    /// The digests that it is bound to.
    pub fn binding(&self) -> Binding {
        self.upper.binding()
    }

    /// The upper, for publishing.
    pub fn upper(&self) -> &Upper {
        &self.upper
    }

    /// Discards everything: removes the upper with all edits. Later calls fail with Gone.
    ///
    /// # Errors
    /// Busy while it is being published; errors of the disk.
    pub fn remove_all(&self) -> Result<(), Error> {
        self.upper.remove()
    }

    /// Removes the upper if nothing is left to publish; returns whether it did. Later calls fail with Gone then.
    ///
    /// # Errors
    /// Gone if it was already removed; errors of the disk.
    pub fn remove_if_clean(&self) -> Result<bool, Error> {
        Ok(!self.has_writers() && self.upper.remove_if_clean()?)
    }

    /// Removes the upper of an empty tag; returns whether it did.
    ///
    /// # Errors
    /// As [`Overlay::remove_if_clean`].
    pub fn remove_if_empty(&self) -> Result<bool, Error> {
        self.upper.remove_if(|rows| Merged { rows, base: &self.base }.is_empty(0))
    }

    /// Removes the upper if it holds nothing beyond this generation, which was published elsewhere; returns whether it did.
    ///
    /// # Errors
    /// As [`Overlay::remove_if_clean`].
    pub fn remove_if_unchanged(&self, frozen: Arc<Frozen>) -> Result<bool, Error> {
        let frozen = frozen.into_upper()?;
        let _names = self.names.lock();
        let _gate = self.freeze_lock.write();
        Ok(!self.has_writers() && self.upper.remove_if_unchanged(frozen)?)
    }

    /// Whether the upper was removed with everything in it.
    pub fn is_removed(&self) -> bool {
        self.upper.is_removed()
    }

    /// Whether anything changed since the last publish, or a writer is open.
    pub fn is_edited(&self) -> bool {
        self.upper.has_edits() || !self.binding().deleted && self.has_writers()
    }

    /// Whether a file is open for writing.
    pub fn has_writers(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    /// Binds the edits to another tag of the repository that has none.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn move_to(&self, tag_key: &TagKey, binding: Binding) -> Result<(), Error> {
        self.upper.move_to(tag_key)?;
        self.upper.change(|change| change.bind(binding))
    }

    /// Marks an empty tag as deleted; `false` if it is not empty. Nothing in it can be changed from then on.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn delete_if_empty(&self) -> Result<bool, Error> {
        self.change(|edit| {
            let is_empty = edit.merged().is_empty(0)?;
            if is_empty {
                edit.change.bind(Binding { deleted: true, ..edit.change.binding() })?;
            }
            Ok(is_empty)
        })
    }

    /// Releases the tag's lock until the next change if nothing is left to publish and no writer is open; returns whether it did. The
    /// edits are stored under the name `aside` meanwhile.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn release_tag(&self, aside: &TagKey) -> Result<bool, Error> {
        Ok(!self.has_writers() && self.upper.release(aside)?)
    }

    /// Whether the tag's lock is released.
    pub fn is_released(&self) -> bool {
        self.upper.is_released()
    }

    /// Takes the tag's lock back.
    ///
    /// # Errors
    /// Busy if another process holds it, Exists if another process left edits, Gone for a tag that moved.
    pub fn reclaim_tag(&self) -> Result<(), Error> {
        self.upper.reclaim()
    }

    /// Gives up the tag's name for that of a directory if nothing is left to publish; returns whether it did. Its content stays
    /// readable, and every change fails with Gone.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn retire(&self, tag_key: &TagKey) -> Result<bool, Error> {
        self.upper.retire(tag_key)
    }

    /// Paths of files that a power cut may have damaged: their bytes were not synced before it.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn suspects(&self) -> Result<Vec<Vec<u8>>, Error> {
        let (suspects, mut paths) = (self.upper.suspects(), Vec::new());
        if suspects.is_empty() {
            return Ok(paths);
        }
        let mut place = Place::default();
        while let Some(entry) = place.next(self.merged(), &self.trees)? {
            if matches!(&entry.content, EntryContent::Data(id) if suspects.contains(id)) {
                paths.push(entry.path);
            }
        }
        Ok(paths)
    }

    /// The node of a name.
    ///
    /// # Errors
    /// TooLong, NotDirectory, Gone.
    pub fn lookup(&self, directory: ViewNode, name: &[u8]) -> Result<Option<ViewNode>, Error> {
        if name.len() > 255 {
            return Err(Error::new(crate::error::ErrorKind::TooLong, "a name has at most 255 bytes"));
        }
        self.merged().lookup(directory, name)
    }

    /// Passes names of a directory after a cookie (0: from the start) to `take` until it returns `false`. A cookie is never reused for another entry.
    ///
    /// # Errors
    /// Gone for a directory that does not exist.
    pub fn children(&self, directory: ViewNode, after: u64, take: &mut dyn FnMut(u64, &[u8], ViewNode) -> bool) -> Result<(), Error> {
        self.merged().children(directory, after, take)
    }

    /// Whether the tag is empty.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.merged().is_empty(0)
    }

    /// The parent of a directory; 0 for the tag's own.
    ///
    /// # Errors
    /// NotDirectory, Gone.
    pub fn parent(&self, directory: ViewNode) -> Result<ViewNode, Error> {
        self.merged().parent(directory)
    }

    fn merged(&self) -> Merged<'_> {
        Merged { rows: self.upper.rows(), base: &self.base }
    }

    /// Keeps alive files that are open through handles of the view.
    pub(super) fn share_pins(&self, pins: &Arc<Pins>) {
        let _ = self.pins.set(Arc::clone(pins));
    }

    fn is_pinned(&self, node: ViewNode) -> bool {
        self.pins.get().is_some_and(|pins| pins.has(node))
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn has_frozen(&self) -> bool {
        self.generations.available_permits() < GENERATIONS as usize
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Nothing is left to publish: the tag follows upstream again.
        if Arc::strong_count(&self.upper) == 1
            && let Err(error) = self.upper.remove_if_clean()
            && error.kind != crate::error::ErrorKind::Gone
        {
            tracing::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests;
