//! The state of an open upper: the upper with its database, its staged files, and one open staged file.
//!
//! Data only: the behaviour is in `upper.rs`, `store.rs`, `notes.rs`, `data.rs`, `under.rs` and `pending_deletes.rs`.

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
use super::recent::Recent;
use super::reserve::{Reserve, Room};
use super::{Binding, DataId, TagKey, TreeNode};

/// State shared by an upper and its frozen generation. Fields are dropped in this order: the lock is released last.
pub(super) struct Shared {
    pub database: Mutex<Database>,
    /// The state after the last commit, for readers that must not wait for a transaction.
    pub state: Mutex<UpperState>,
    /// Must not be dropped before the connection.
    pub reserve: Reserve,
    pub store: Arc<Store>,
    pub _hold: Hold,
}

/// The connection, and facts about the database that need no query.
pub(super) struct Database {
    pub connection: Connection,
    pub recent: Recent,
    pub marks: Marks,
}

/// The next numbers, and those up to which the database has reserved them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub next_node: u64,
    pub nodes: u64,
    pub next_cookie: u64,
    pub cookies: u64,
    pub data: u64,
}

/// Frequently read state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UpperState {
    pub binding: Binding,
    pub edited: bool,
    pub generation: u64,
    /// Number of changes committed by this process.
    pub changes: u64,
}

impl UpperState {
    /// Whether something is left to publish: a change, a tag that does not exist upstream yet, a deletion.
    pub fn has_edits(&self) -> bool {
        if self.binding.deleted { self.binding.expected.is_some() } else { self.binding.expected.is_none() || self.edited }
    }
}

/// Path and tag of an upper; both change when it is moved.
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

/// Facts about staged bytes that the files themselves do not hold.
#[derive(Default)]
pub(super) struct Notes {
    /// Files with a base.
    pub partial: BTreeSet<DataId>,
    /// Times shown instead of the file's.
    pub times: HashMap<DataId, Times>,
    /// Files that a power cut may have damaged.
    pub suspects: BTreeSet<DataId>,
}

#[derive(Clone, Copy)]
pub(super) struct Times {
    pub mtime: (i64, u32),
    pub ctime: Option<(i64, u32)>,
    /// Also stored in the database, since the disk cannot represent the modification time.
    pub is_stored: bool,
}

/// The staged bytes of one upper. Locks: each is held briefly, and never while another of them is taken, except that of the location, which is
/// taken last.
pub(super) struct Store {
    pub location: RwLock<UpperLocation>,
    pub account: Account,
    pub log: Log,
    pub room: Room,
    /// The number of the next file.
    pub next: AtomicU64,
    pub open: Mutex<HashMap<DataId, Weak<Staged>>>,
    /// Subdirectories of `data` with names not yet synced; 256 stands for `data` itself.
    pub fresh: Mutex<BTreeSet<u64>>,
    /// Held while `fresh` is processed, so that an empty set in mid-work is not taken for success.
    pub naming: Mutex<()>,
    pub pending_deletes: Mutex<PendingDeletes>,
    /// A frozen generation may hold files with smaller numbers; 0 if none is frozen.
    pub frozen: AtomicU64,
    pub notes: Mutex<Notes>,
    /// The owner, with its database.
    pub shared: OnceLock<Weak<Shared>>,
    /// The upper was removed: open files remain usable, nothing else.
    pub removed: AtomicBool,
    /// A database operation failed for another reason than lack of space.
    pub disk_failed: AtomicBool,
    /// Changed only under the database lock.
    pub standing: Mutex<Standing>,
}

/// The relation of an upper to its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds the name and the lock.
    Current,
    /// It holds neither until the next change. This is the tag.
    Released(TagKey),
    /// It no longer belongs to any tag, and never changes again.
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

/// One staged file, shared by all its openers.
pub(super) struct Staged {
    pub store: Arc<Store>,
    pub id: DataId,
    pub file: File,
    pub extent: Mutex<Extent>,
    /// It has no base, permanently: read without the lock.
    pub whole: AtomicBool,
    /// It is the base of another file: never written again.
    pub sealed: AtomicBool,
    /// No commit refers to it: unlinked when dropped.
    pub loose: AtomicBool,
    pub removed: AtomicBool,
    /// Its bytes in the account. Changed under the extent lock.
    pub occupied: AtomicU64,
    /// Its name may be lost in a power cut.
    pub fresh: AtomicBool,
    /// A sync failed: see [`super::log::Log`].
    pub failed: AtomicBool,
}

/// The file's disk usage and its base. Locked during a change, so that the account is exact.
pub(super) struct Extent {
    pub length: u64,
    pub under: Under,
    /// Number of changes.
    pub writes: u64,
    /// Whether the database lists the file as unsynced. `None`: not looked up yet.
    pub unsynced: Option<bool>,
    /// Number of failed changes, which may have written bytes that are not recorded as the file's own.
    pub spoiled: u64,
}

/// The base of an open file, as far as loaded.
pub(super) enum Under {
    /// Not looked up yet.
    Unknown,
    Nothing,
    Over(Layer),
}

/// A file with a base.
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
