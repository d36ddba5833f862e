//! One edited tag as its user sees it: the upper over the tree of the digest that it began with.
//!
//! Gives the POSIX meaning of every change to one tag, in transactions of the upper, and reads the merged state. Works
//! without a mount too. Knows nothing of inodes, handles of the kernel, other tags or the registry's tag.

use std::sync::Arc;

use bytes::Bytes;

use super::{Attributes, Context, Error, Reader, ViewNode};
use crate::artifact::{Artifact, Artifacts, Kind, NodeId};
use crate::staging::{Binding, DataId, Subject, Upper};

/// A node to be made.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Kind.
    pub kind: Kind,
    /// Permission bits, the caller's umask applied.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// Target of a symlink.
    pub target: Vec<u8>,
}

/// Attributes to be set; `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file.
    pub size: Option<u64>,
    /// Modification time.
    pub mtime: Option<(i64, u32)>,
    /// Time of the last access; kept in memory only.
    pub atime: Option<(i64, u32)>,
}

/// What `rename` may do with a name that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Replace it.
    Yes,
    /// Refuse (RENAME_NOREPLACE).
    No,
    /// Swap the two (RENAME_EXCHANGE).
    Exchange,
}

/// How a path differs from what the tag holds upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As upstream.
    Clean,
    /// Not there upstream.
    Added,
    /// Content or attributes differ.
    Changed,
    /// There upstream, gone here.
    Removed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path in the tag.
    pub path: Vec<u8>,
    /// Added, changed or removed.
    pub state: State,
    /// Kind now, or before if removed.
    pub kind: Kind,
    /// Bytes upstream, for what is there.
    pub before: Option<u64>,
    /// Bytes here.
    pub after: Option<u64>,
}

/// An edited tag. Shared by its view, by open files and by a publish.
pub struct Overlay {
    _private: (),
}

/// A regular file that is open for writing (and reading). The bytes are staged from the first write on.
pub struct Writer {
    _private: (),
}

impl Overlay {
    /// Lays an upper over its tree. Fetches what it needs to know of the trees it refers to; nodes are found again by path if the
    /// tree's numbers changed.
    pub async fn open(_context: &Context, _upper: Upper) -> Result<Arc<Self>, Error> {
        todo!()
    }

    /// The tag.
    pub fn subject(&self) -> Subject {
        todo!()
    }

    /// To what it is bound.
    pub fn binding(&self) -> Binding {
        todo!()
    }

    /// The upper, for publishing.
    pub fn upper(&self) -> &Upper {
        todo!()
    }

    /// Whether anything was changed since the last publish, or a writer is open.
    pub fn is_edited(&self) -> bool {
        todo!()
    }

    /// Whether a file is open for writing.
    pub fn has_writers(&self) -> bool {
        todo!()
    }

    /// The node of a name.
    pub fn lookup(&self, _directory: ViewNode, _name: &[u8]) -> Result<Option<ViewNode>, Error> {
        todo!()
    }

    /// Attributes.
    pub fn attributes(&self, _context: &Context, _node: ViewNode) -> Result<Attributes, Error> {
        todo!()
    }

    /// Names of a directory behind a cookie (0: from the start) until `take` answers `false`. Cookies never name another entry later.
    pub fn children(&self, _directory: ViewNode, _after: u64, _take: &mut dyn FnMut(u64, &[u8], ViewNode) -> bool) -> Result<(), Error> {
        todo!()
    }

    /// The directory that holds a directory; 0 for the tag's own.
    pub fn parent(&self, _directory: ViewNode) -> Result<ViewNode, Error> {
        todo!()
    }

    /// Target of a symlink.
    pub fn target(&self, _node: ViewNode) -> Result<Vec<u8>, Error> {
        todo!()
    }

    /// An extended attribute; own names (`user.oci.*`, `user.ocifs.*`) are not answered here.
    pub fn xattr(&self, _node: ViewNode, _name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        todo!()
    }

    /// Names of extended attributes.
    pub fn xattr_names(&self, _node: ViewNode) -> Result<Vec<Vec<u8>>, Error> {
        todo!()
    }

    /// Sets an extended attribute; `create`/`replace` as XATTR_CREATE and XATTR_REPLACE. NotPermitted for own names.
    pub fn set_xattr(&self, _node: ViewNode, _name: &[u8], _value: &[u8], _create: bool, _replace: bool) -> Result<(), Error> {
        todo!()
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, _node: ViewNode, _name: &[u8]) -> Result<(), Error> {
        todo!()
    }

    /// How a node differs from upstream (`user.ocifs.state`).
    pub fn state(&self, _node: ViewNode) -> Result<State, Error> {
        todo!()
    }

    /// Makes a node. Exists where the name is taken, Invalid for names `.wh.*`.
    pub fn create(&self, _context: &Context, _directory: ViewNode, _name: &[u8], _node: &NewNode) -> Result<ViewNode, Error> {
        todo!()
    }

    /// Removes a name (`directory`: rmdir, which must be empty).
    pub fn remove(&self, _directory: ViewNode, _name: &[u8], _is_directory: bool) -> Result<(), Error> {
        todo!()
    }

    /// Renames, all in one transaction.
    pub fn rename(&self, _from: (ViewNode, &[u8]), _to: (ViewNode, &[u8]), _replace: Replace) -> Result<(), Error> {
        todo!()
    }

    /// A further name of a node that is no directory.
    pub fn link(&self, _node: ViewNode, _directory: ViewNode, _name: &[u8]) -> Result<(), Error> {
        todo!()
    }

    /// Sets attributes of a node that is not a regular file or whose size stays; else it is [`Writer::set_length`] after copy-up.
    pub async fn set_attributes(self: &Arc<Self>, _context: &Context, _node: ViewNode, _set: SetAttributes) -> Result<(), Error> {
        todo!()
    }

    /// A reader that shows the bytes of a regular file as they are written (an open file follows its node).
    pub async fn open_reader(self: &Arc<Self>, _context: &Context, _node: ViewNode) -> Result<Arc<Writer>, Error> {
        todo!()
    }

    /// Opens a regular file for writing; `truncate` copies nothing. Bytes of the tree are copied at the first write only.
    pub async fn open_writer(self: &Arc<Self>, _context: &Context, _node: ViewNode, _truncate: bool) -> Result<Arc<Writer>, Error> {
        todo!()
    }

    /// All that differs from what the tag is expected to hold, by path.
    pub async fn differences(&self, _context: &Context) -> Result<Vec<Difference>, Error> {
        todo!()
    }

    /// Takes back what was changed below a path (all if empty): names lead to fresh nodes that refer to the tree. Answers the inodes and names that the
    /// kernel must forget.
    pub fn discard(&self, _path: &[u8]) -> Result<Vec<Forgotten>, Error> {
        todo!()
    }

    /// Freezes a generation for publishing.
    pub fn freeze(self: &Arc<Self>) -> Result<Frozen, Error> {
        todo!()
    }

    /// After the confirmation: clean files refer to the tree of `artifact`, the tag is expected to hold its digest. Answers whether nothing is left to publish.
    pub fn settle(&self, _frozen: Frozen, _artifact: &Arc<Artifact>) -> Result<bool, Error> {
        todo!()
    }
}

/// What the kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Pages and attributes of a node.
    Node(ViewNode),
    /// A name in a directory.
    Name(ViewNode, Vec<u8>),
}

impl Writer {
    /// The node.
    pub fn node(&self) -> ViewNode {
        todo!()
    }

    /// Bytes of a range as they are now.
    pub async fn read(&self, _offset: u64, _length: u32) -> Result<Bytes, Error> {
        todo!()
    }

    /// Writes; completes at once unless bytes of the tree must be copied first.
    pub async fn write(&self, _offset: u64, _bytes: &[u8]) -> Result<(), Error> {
        todo!()
    }

    /// Cuts or extends.
    pub async fn set_length(&self, _length: u64) -> Result<(), Error> {
        todo!()
    }

    /// `fallocate`.
    pub async fn allocate(&self, _mode: i32, _offset: u64, _length: u64) -> Result<(), Error> {
        todo!()
    }

    /// SEEK_DATA and SEEK_HOLE.
    pub async fn seek(&self, _offset: u64, _data: bool) -> Result<Option<u64>, Error> {
        todo!()
    }

    /// Copies a range of another open file; a whole unchanged file shares its bytes.
    pub async fn copy_from(&self, _source: &Self, _from: u64, _to: u64, _length: u64) -> Result<u64, Error> {
        todo!()
    }

    /// What a close reports: an error of an earlier write, once.
    pub fn flush(&self) -> Result<(), Error> {
        todo!()
    }

    /// Bytes and names survive a power cut after this. Blocks on the disk.
    pub fn sync(&self) -> Result<(), Error> {
        todo!()
    }
}

/// A frozen generation, merged: what is published.
pub struct Frozen {
    _private: (),
}

/// One name of the frozen state.
#[derive(Clone, Debug)]
pub struct FrozenEntry {
    /// Path; empty for the tag's own directory.
    pub path: Vec<u8>,
    /// The node: further names of a hard-linked file have the same.
    pub node: ViewNode,
    /// Kind.
    pub kind: Kind,
    /// Permission bits, `None` where neither user nor archive set any.
    pub mode: Option<u32>,
    /// Owner and group, as mode.
    pub owner: Option<(u32, u32)>,
    /// Modification time, as mode.
    pub mtime: Option<(i64, u32)>,
    /// Bytes of a regular file.
    pub size: u64,
    /// Names of the node.
    pub links: u32,
    /// Major and minor.
    pub device: (u32, u32),
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Extended attributes by name, own names and `user.oci.*` left out.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of a regular file.
    pub content: FrozenContent,
}

/// Where the bytes of a frozen file are.
#[derive(Clone, Debug)]
pub enum FrozenContent {
    /// No regular file.
    None,
    /// In a tree.
    Tree {
        /// The artifact.
        artifact: ArtifactOf,
        /// The node there.
        node: NodeId,
        /// SHA-256 where known.
        sha256: Option<[u8; 32]>,
    },
    /// Staged.
    Data(DataId),
}

/// An artifact that is compared by its manifest's digest.
#[derive(Clone)]
pub struct ArtifactOf(pub Arc<Artifact>);

impl std::fmt::Debug for ArtifactOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("ArtifactOf").field(&self.0.manifest.digest).finish()
    }
}

impl Frozen {
    /// The generation.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// To what the tag was bound.
    pub fn binding(&self) -> Binding {
        todo!()
    }

    /// All names, parents before children, names of a directory in the order of their bytes, the tag's own directory first with
    /// an empty path. Memory is bounded by one directory. Local, blocking.
    pub fn walk(&self, _visit: &mut dyn FnMut(FrozenEntry) -> Result<(), Error>) -> Result<(), Error> {
        todo!()
    }

    /// SHA-256 of a file, computed (and kept) where it is not known.
    pub async fn sha256(&self, _artifacts: &Artifacts, _entry: &FrozenEntry) -> Result<[u8; 32], Error> {
        todo!()
    }

    /// A reader of a frozen file's bytes.
    pub async fn open(&self, _context: &Context, _entry: &FrozenEntry) -> Result<Reader, Error> {
        todo!()
    }
}

/// The tree of an artifact walked in the same form and order as a frozen state, so that the two can be compared.
pub fn walk_tree(_artifact: &Arc<Artifact>, _visit: &mut dyn FnMut(FrozenEntry) -> Result<(), Error>) -> Result<(), Error> {
    todo!()
}
