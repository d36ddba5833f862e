//! The durable upper of one tag: names, attributes and bytes that were changed in a mount and are not published yet.
//!
//! One directory an upper: a SQLite database for names, attributes, extended attributes, whiteouts and opaque marks, one plain
//! file per staged file's bytes, a lock. Every prefix of its commits is a valid state. It knows nodes and names by number and
//! never looks into a tree: who reads it lays it over one.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::layer::NodeKind;
use crate::oci::Digest;

/// Number of a node: below [`STAGED`] that of a node in the tree of the digest `under`, else one that was made here.
pub type NodeKey = u64;
/// The bit that tells nodes made here.
pub const STAGED: NodeKey = 1 << 40;
/// Number of a file with staged bytes. Never used again.
pub type DataId = u64;

/// Why an upper cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Busy where another process holds it, NoSpace, Integrity for a damaged database, Unsupported for a newer version, Other.
    pub kind: ErrorKind,
    /// What happened to which upper, and what to do.
    pub message: String,
}

/// Which tag an upper belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Where it is published, as `Pull::origin` names it.
    pub origin: String,
    /// The place as users write it in references, `reg.io` or `oci:/srv/layout`.
    pub authority: String,
    /// The repository, as text.
    pub repository: String,
    /// The tag, as text.
    pub tag: String,
}

/// To what an upper is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The digest whose tree lies below, fixed for the upper's life; `None` for a tag that began empty.
    pub under: Option<Digest>,
    /// What the tag must hold upstream when it is published; `None`: it must not exist.
    pub expected: Option<Digest>,
    /// The tag was deleted here.
    pub deleted: bool,
}

/// A node of the tree of some manifest, kept so that it can be found again if the tree's numbers change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeNode {
    /// The manifest.
    pub manifest: Digest,
    /// The node's number in its tree.
    pub node: u32,
    /// A path of the node.
    pub path: Vec<u8>,
    /// SHA-256 of its content, where known.
    pub sha256: Option<[u8; 32]>,
    /// Bytes.
    pub size: u64,
}

/// Where the bytes of a regular file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Not a regular file.
    None,
    /// Those of a node of a tree.
    Tree(TreeNode),
    /// A staged file. Its size and modification time are those of that file.
    Data(DataId),
}

/// A node of which anything was changed: all its attributes. `None` means as in a tree: the archive says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Kind.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Modification time; for staged bytes that of the data file counts.
    pub mtime: Option<(i64, u32)>,
    /// Last change, as `stat` shows it.
    pub ctime: (i64, u32),
    /// Names of a file; 2 + subdirectories of a directory; 0 for a node that is only open.
    pub links: u32,
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Bytes.
    pub content: Content,
    /// Nothing of the directory below shows through.
    pub opaque: bool,
    /// The directory that holds this directory (directories only).
    pub parent: NodeKey,
}

/// What the upper says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It leads to a node, perhaps one of the tree below.
    Node(NodeKey),
    /// It was removed.
    Whiteout,
}

/// One name of a directory. `cookie` grows with every name that is made and is never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRow {
    /// Where to go on behind this name.
    pub cookie: u64,
    /// The name.
    pub name: Vec<u8>,
    /// What it leads to.
    pub named: Named,
}

/// What the journal holds while a publish is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The generation that was frozen.
    pub generation: u64,
    /// What the tag held.
    pub expected: Option<String>,
    /// What it shall hold.
    pub digest: String,
}

/// An upper as the directory of all uppers shows it, without opening its database.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The tag.
    pub subject: Subject,
    /// The process that holds it, if any does.
    pub holder: Option<u32>,
    /// Its directory.
    pub directory: PathBuf,
}

/// All uppers of a state directory, and the budget of bytes that those opened here share.
pub struct Uppers {
    _private: (),
}

impl Uppers {
    /// The uppers of a state directory, which is made (0700) if it is missing. `quota` bounds the bytes staged.
    pub fn open(_state: &Path, _quota: Option<u64>) -> Result<Self, Error> {
        todo!()
    }

    /// All uppers there are. One that cannot be read is reported beside the others.
    pub fn list(&self) -> Result<Vec<Result<Listed, Error>>, Error> {
        todo!()
    }

    /// Opens the upper of a tag if there is one. Busy (with the pid) where another process holds it.
    pub fn find(&self, _subject: &Subject) -> Result<Option<Upper>, Error> {
        todo!()
    }

    /// Makes the upper of a tag that has none. Busy as [`Uppers::find`].
    pub fn create(&self, _subject: &Subject, _binding: Binding) -> Result<Upper, Error> {
        todo!()
    }

    /// Bytes staged by the uppers that are open here, and the quota.
    pub fn usage(&self) -> (u64, Option<u64>) {
        todo!()
    }
}

/// One upper, held by this process. All methods are short local operations; a lock inside serialises them.
pub struct Upper {
    _private: (),
}

/// Reading rows: of an upper as it is, or of a frozen generation of it.
pub trait Rows: Send + Sync {
    /// A node of which anything was changed.
    fn node(&self, key: NodeKey) -> Result<Option<Node>, Error>;
    /// All nodes of which anything was changed, by number, behind one; at most `limit`.
    fn nodes(&self, after: Option<NodeKey>, limit: usize) -> Result<Vec<(NodeKey, Node)>, Error>;
    /// What is said of a name.
    fn name(&self, directory: NodeKey, name: &[u8]) -> Result<Option<Named>, Error>;
    /// Names of a directory behind a cookie, by cookie, whiteouts included; at most `limit`.
    fn names(&self, directory: NodeKey, after: u64, limit: usize) -> Result<Vec<NameRow>, Error>;
    /// All extended attributes of a node that has a row, by name.
    fn xattrs(&self, key: NodeKey) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error>;
    /// Opens staged bytes for reading.
    fn open_data(&self, id: DataId) -> Result<File, Error>;
}

/// One transaction, open while [`Upper::change`] runs its work.
pub struct Change<'upper> {
    _private: std::marker::PhantomData<&'upper ()>,
}

impl Change<'_> {
    /// Reads inside the transaction.
    pub fn rows(&self) -> &dyn Rows {
        todo!()
    }

    /// Stores a new node under a number of its own.
    pub fn add_node(&mut self, _node: &Node) -> Result<NodeKey, Error> {
        todo!()
    }

    /// Stores a node, new or changed, and counts it as changed now.
    pub fn put_node(&mut self, _key: NodeKey, _node: &Node) -> Result<(), Error> {
        todo!()
    }

    /// Removes a node with its attributes; its staged bytes are unlinked after the commit unless a frozen generation has them.
    pub fn drop_node(&mut self, _key: NodeKey) -> Result<(), Error> {
        todo!()
    }

    /// Sets a name, replacing what was said of it.
    pub fn put_name(&mut self, _directory: NodeKey, _name: &[u8], _named: Named) -> Result<(), Error> {
        todo!()
    }

    /// Says nothing of a name any more: what lies below shows.
    pub fn drop_name(&mut self, _directory: NodeKey, _name: &[u8]) -> Result<(), Error> {
        todo!()
    }

    /// Sets all extended attributes of a node at once (copy-up of attributes).
    pub fn put_xattrs(&mut self, _key: NodeKey, _xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
        todo!()
    }

    /// Sets or (`None`) removes one extended attribute.
    pub fn put_xattr(&mut self, _key: NodeKey, _name: &[u8], _value: Option<&[u8]>) -> Result<(), Error> {
        todo!()
    }

    /// Binds the upper otherwise.
    pub fn bind(&mut self, _binding: Binding) -> Result<(), Error> {
        todo!()
    }
}

/// Staged bytes that are open. Counts what it adds against the quota and answers NoSpace before the disk does. Positional
/// reads and writes; shared freely.
pub struct DataFile {
    _private: (),
}

impl DataFile {
    /// Its number.
    pub fn id(&self) -> DataId {
        todo!()
    }

    /// Bytes at an offset, fewer only at the end.
    pub fn read_at(&self, _offset: u64, _length: u32) -> Result<bytes::Bytes, Error> {
        todo!()
    }

    /// Writes all of it at an offset.
    pub fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<(), Error> {
        todo!()
    }

    /// Cuts or extends.
    pub fn set_length(&self, _length: u64) -> Result<(), Error> {
        todo!()
    }

    /// `fallocate(2)` with these mode bits (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE …); Unsupported for others.
    pub fn allocate(&self, _mode: i32, _offset: u64, _length: u64) -> Result<(), Error> {
        todo!()
    }

    /// `lseek(2)` with SEEK_DATA (`data`) or SEEK_HOLE; `None` beyond the end.
    pub fn seek(&self, _offset: u64, _data: bool) -> Result<Option<u64>, Error> {
        todo!()
    }

    /// Size and modification time.
    pub fn attributes(&self) -> Result<(u64, (i64, u32)), Error> {
        todo!()
    }

    /// Sets the modification time.
    pub fn set_mtime(&self, _mtime: (i64, u32)) -> Result<(), Error> {
        todo!()
    }

    /// Makes its bytes survive a power cut.
    pub fn sync(&self) -> Result<(), Error> {
        todo!()
    }
}

/// A generation of an upper that does not change any more: its rows are a copy of the database, its data files are not
/// written again while it lives. Dropped unpublished, it leaves the upper as it is.
pub struct FrozenUpper {
    _private: (),
}

impl FrozenUpper {
    /// Its number.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// To what the upper was bound.
    pub fn binding(&self) -> Binding {
        todo!()
    }

    /// Its rows.
    pub fn rows(&self) -> &dyn Rows {
        todo!()
    }

    /// The SHA-256 of staged bytes, if it was computed before for this very content.
    pub fn sha256(&self, _id: DataId) -> Result<Option<[u8; 32]>, Error> {
        todo!()
    }

    /// Keeps a SHA-256 that was computed over frozen bytes.
    pub fn keep_sha256(&self, _id: DataId, _sha256: [u8; 32]) -> Result<(), Error> {
        todo!()
    }
}

impl Upper {
    /// The tag.
    pub fn subject(&self) -> Subject {
        todo!()
    }

    /// Moves the upper to another tag of the repository that has none (`mv v1 v2`, `--as`): the lock goes with it.
    pub fn move_to(&self, _subject: &Subject) -> Result<(), Error> {
        todo!()
    }

    /// To what it is bound now.
    pub fn binding(&self) -> Binding {
        todo!()
    }

    /// Its rows as they are now.
    pub fn rows(&self) -> &dyn Rows {
        todo!()
    }

    /// Whether anything was changed since the last publish (or since it was made).
    pub fn is_edited(&self) -> bool {
        todo!()
    }

    /// Runs a transaction. It is committed if `work` succeeds, and then survives the death of the process; a power cut only after
    /// the next [`Upper::sync`]. `work` runs once.
    pub fn change<T>(&self, _work: impl FnOnce(&mut Change<'_>) -> Result<T, Error>) -> Result<T, Error> {
        todo!()
    }

    /// Makes everything committed so far survive a power cut.
    pub fn sync(&self) -> Result<(), Error> {
        todo!()
    }

    /// A new empty file for staged bytes. It is unlinked at the next opening of the upper if no node came to refer to it.
    pub fn new_data(&self) -> Result<DataFile, Error> {
        todo!()
    }

    /// A new file with the bytes of another (reflink where the file system can, else a copy that keeps holes).
    pub fn clone_data(&self, _id: DataId) -> Result<DataFile, Error> {
        todo!()
    }

    /// Opens staged bytes. A file that a crash lost is an empty one, with one warning.
    pub fn data(&self, _id: DataId) -> Result<DataFile, Error> {
        todo!()
    }

    /// Whether a frozen generation has these bytes, so that a writer must take a clone.
    pub fn is_frozen(&self, _id: DataId) -> bool {
        todo!()
    }

    /// Freezes what there is now. Data files that `is_open` names are copied (reflink or copy), since their writers go on.
    pub fn freeze(&self, _is_open: &dyn Fn(DataId) -> bool) -> Result<FrozenUpper, Error> {
        todo!()
    }

    /// After the confirmation of a publish: the tag is expected to hold `digest` from now on, and each of these nodes that still has the
    /// frozen content and is not open refers to the tree instead; its bytes are freed after the (durable) commit. Answers whether
    /// nothing was changed since the freeze, so that nothing is left to publish.
    pub fn settle(
        &self,
        _frozen: FrozenUpper,
        _digest: Digest,
        _references: &mut dyn Iterator<Item = (NodeKey, TreeNode)>,
        _is_open: &dyn Fn(DataId) -> bool,
    ) -> Result<bool, Error> {
        todo!()
    }

    /// What a publish under way wrote down, durably.
    pub fn journal(&self) -> Result<Option<Journal>, Error> {
        todo!()
    }

    /// Writes down (durably) or clears what a publish is about to do.
    pub fn set_journal(&self, _journal: Option<&Journal>) -> Result<(), Error> {
        todo!()
    }

    /// A directory of this upper for layers that are packed and not yet pushed; never counted in the quota, emptied by `settle`.
    pub fn packs(&self) -> PathBuf {
        todo!()
    }

    /// Removes the upper with everything in it, at once: the tag may be staged anew. Every later call answers Gone, nothing is edited any more.
    pub fn remove(&self) -> Result<(), Error> {
        todo!()
    }
}
