//! The parts of an open upper, which refer to each other: the upper with its database, its staged files, and one of them that is open.
//!
//! Only data: the behaviour is in `upper.rs`, `store.rs`, `data.rs`, `under.rs` and `pending_deletes.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;

use super::budget::Account;
use super::hold::Hold;
use super::log::Log;
use super::ranges::Ranges;
use super::reserve::{Reserve, Room};
use super::{Binding, DataId, TagKey, TreeNode};

/// State shared by an upper and its frozen generation. Fields are dropped in this order: the lock ends last.
pub(super) struct Shared {
    pub database: Mutex<Database>,
    /// The state after the last commit, for readers that must not wait for a transaction.
    pub state: Mutex<UpperState>,
    /// Not dropped before the connection.
    pub reserve: Reserve,
    pub store: Arc<Store>,
    pub _hold: Hold,
}

/// The connection, and facts about the database that need no reading.
pub(super) struct Database {
    pub connection: Connection,
    pub marks: Marks,
}

/// Numbers that are given out, and those below which the database knows them to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub next_node: u64,
    pub nodes: u64,
    pub next_cookie: u64,
    pub cookies: u64,
    pub data: u64,
}

/// State that is read often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpperState {
    pub binding: Binding,
    pub edited: bool,
    pub generation: u64,
    /// Counts the committed changes of this process.
    pub changes: u64,
}

impl UpperState {
    /// Whether something is left to publish: a change, a tag that is not upstream yet, a deletion.
    pub fn has_edits(&self) -> bool {
        if self.binding.deleted { self.binding.expected.is_some() } else { self.binding.expected.is_none() || self.edited }
    }
}

/// Where an upper is and whose it is; both change when it is moved.
#[derive(Clone)]
pub(super) struct UpperLocation {
    pub tag_key: TagKey,
    pub directory: PathBuf,
}

impl UpperLocation {
    pub fn database(&self) -> PathBuf {
        self.directory.join("upper.db")
    }
}

/// Notes on staged bytes beside the files themselves.
#[derive(Default)]
pub(super) struct Notes {
    /// Files that lie over something.
    pub partial: BTreeSet<DataId>,
    /// Times that are shown instead of those of the file.
    pub times: HashMap<DataId, Times>,
    /// Files that a power cut may have damaged.
    pub suspects: BTreeSet<DataId>,
}

#[derive(Clone, Copy)]
pub(super) struct Times {
    pub mtime: (i64, u32),
    pub ctime: Option<(i64, u32)>,
    /// The database has the modification time too, since the disk cannot hold it.
    pub is_stored: bool,
}

/// The staged bytes of one upper. Locks: each is held for a moment, none while another of them is taken, except that of the place, which
/// is taken last.
pub(super) struct Store {
    pub location: RwLock<UpperLocation>,
    pub account: Account,
    pub log: Log,
    pub room: Room,
    /// The number of the next file.
    pub next: AtomicU64,
    pub open: Mutex<HashMap<DataId, Weak<Staged>>>,
    /// Directories of `data` with names that a power cut would lose; 256 stands for `data` itself.
    pub fresh: Mutex<BTreeSet<u64>>,
    /// Held while `fresh` is worked off, so that an empty set of unfinished work is not taken for success.
    pub naming: Mutex<()>,
    pub pending_deletes: Mutex<PendingDeletes>,
    /// A frozen generation may have files of smaller numbers; 0: none is frozen.
    pub frozen: AtomicU64,
    pub notes: Mutex<Notes>,
    /// Where the database is.
    pub shared: OnceLock<Weak<Shared>>,
    /// The upper was removed: open files stay usable, nothing else.
    pub removed: AtomicBool,
    /// A read or write of the database failed, and not for want of room.
    pub disk_failed: AtomicBool,
    /// Changed only under the lock of the database.
    pub standing: Mutex<Standing>,
}

/// The relation of an upper to its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has the name and the lock.
    Current,
    /// It has neither until the next change. This is the tag.
    Released(TagKey),
    /// It is that of no tag any more, and is not changed again.
    Retired,
}

/// Staged bytes to delete after a durable commit.
#[derive(Default)]
pub(super) struct PendingDeletes {
    pub ids: HashSet<DataId>,
    pub bytes: u64,
}

impl PendingDeletes {
    pub fn contains(&self, id: DataId) -> bool {
        self.ids.contains(&id)
    }
}

/// One file with staged bytes, shared by all who have it open.
pub(super) struct Staged {
    pub store: Arc<Store>,
    pub id: DataId,
    pub file: File,
    pub extent: Mutex<Extent>,
    /// Lies over nothing, for good: read without the lock.
    pub whole: AtomicBool,
    /// Lies below another file: never written again.
    pub sealed: AtomicBool,
    /// No commit refers to it: unlinked when it is dropped.
    pub loose: AtomicBool,
    pub removed: AtomicBool,
    /// Bytes that the account has of it. Changed under the lock of the extent.
    pub occupied: AtomicU64,
    /// Its name may be lost in a power cut.
    pub fresh: AtomicBool,
    /// A sync failed: see [`super::log::Log`].
    pub failed: AtomicBool,
}

/// The space that the file occupies, and its base. Held during a change, so that the account is exact.
pub(super) struct Extent {
    pub length: u64,
    pub under: Under,
    /// Counts the changes.
    pub writes: u64,
    /// Whether the database lists the file as unsynced. `None`: not looked up yet.
    pub unsynced: Option<bool>,
    /// Counts failed changes, which may have written bytes that are not recorded as the file's own.
    pub spoiled: u64,
}

/// The base of an open file, as far as it was read.
pub(super) enum Under {
    /// Not looked up yet.
    Unknown,
    Nothing,
    Over(Layer),
}

/// A file over its base.
pub(super) struct Layer {
    pub base: Base,
    pub kept: u64,
    pub own: Ranges,
}

#[derive(Clone)]
pub(super) enum Base {
    Data(Arc<Staged>),
    Tree(Arc<TreeNode>),
}
