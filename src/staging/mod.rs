//! The durable upper of one tag: names, attributes and bytes changed in a mount and not yet published.
//!
//! One directory per upper: a SQLite database for names, attributes, xattrs, whiteouts and opaque marks, one plain file per staged file's bytes,
//! a lock (`FORMAT.md`). Every prefix of its commits is a valid state. It identifies nodes and names by number and never looks into a tree: its
//! reader overlays it on one.
//!
//! # Files
//!
//! - `uppers` finds, creates, moves and removes uppers; `about` names one, `hold` locks it, `open` opens it
//! - `upper` is an open one over its `state`; `change` is a transaction, `freeze` a generation, `commit` applies a publish
//! - The database: `schema`, `rows` and those `recent`ly used, `upper_row`, `bases`, `columns`, `log`, `reserve`
//! - Staged bytes: `store` and `data` are the files, `under` their bases, `ranges` their own parts, `pending_deletes` what can be unlinked, `budget`
//!   the quota
//! - `counts` and `suspects` for `status`; `error` for messages

mod about;
mod bases;
mod budget;
mod change;
mod columns;
mod commit;
mod counts;
mod data;
mod error;
mod freeze;
mod hold;
mod log;
mod notes;
mod open;
mod pending_deletes;
mod ranges;
mod recent;
mod reserve;
mod rows;
mod schema;
mod state;
mod store;
mod suspects;
mod under;
mod upper;
mod upper_row;
mod uppers;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::layer::{Metadata, NodeKind, Xattrs};
use crate::oci::Digest;

pub use change::Change;
pub use commit::Alike;
pub use counts::Counts;
pub use data::DataFile;
pub use freeze::{Freeze, FrozenUpper, Marked};
pub use under::{Below, Held, Segment};
pub use upper::Upper;
pub use uppers::Uppers;

/// Number of a node: below [`STAGED`], a node in the tree of the digest `under`; otherwise one created here.
pub type NodeKey = u64;
/// The bit that marks nodes created here.
pub const STAGED: NodeKey = 1 << 40;
/// The xattr on a tree node with staged bytes: its path in the tree, by which it is found again.
pub const ORIGIN: &[u8] = b"user.ocifs.origin";
/// Number of a file with staged bytes. Never reused.
pub type DataId = u64;

/// Identifies the tag of an upper.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TagKey {
    /// Where it is published, as in `Pull::origin`.
    pub origin: String,
    /// The registry or layout as users write it, `reg.io` or `oci:/srv/layout`.
    pub authority: String,
    /// The repository, as text.
    pub repository: String,
    /// The tag, as text.
    pub tag: String,
}

/// The digests that an upper is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The digest of the tree below, fixed for the upper's life; `None` for a tag that started empty.
    pub under: Option<Digest>,
    /// The digest that the tag must hold upstream when published; `None` if it must not exist.
    pub expected: Option<Digest>,
    /// The tag was deleted here.
    pub deleted: bool,
}

/// A node of a manifest's tree, stored so that it can be found again if the tree's numbering changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeNode {
    /// The manifest.
    pub manifest: Digest,
    /// The node's number in its tree.
    pub node: u32,
    /// A path of the node.
    pub path: Vec<u8>,
    /// SHA-256 of its content, if known.
    pub sha256: Option<[u8; 32]>,
    /// Size in bytes.
    pub size: u64,
}

/// Where a regular file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Not a regular file.
    None,
    /// In a node of a tree.
    Tree(TreeNode),
    /// In a staged file, which also determines size and modification time.
    Data(DataId),
}

/// A changed node with all its attributes. As in a tree, `None` means that the archive lacks the attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Kind.
    pub kind: NodeKind,
    /// Attributes. For staged bytes, the data file's modification time counts instead.
    pub metadata: Metadata,
    /// Change time, as shown by `stat`.
    pub ctime: (i64, u32),
    /// Hard links of a file; 2 + subdirectories of a directory; 0 for a node that is only open.
    pub links: u32,
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Its bytes.
    pub content: Content,
    /// Hides everything in the directory below.
    pub opaque: bool,
    /// The parent directory (directories only).
    pub parent: NodeKey,
}

/// Visible attributes of staged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAttributes {
    /// Length.
    pub size: u64,
    /// Blocks of 512 bytes; as many as the length needs while not all bytes are local.
    pub blocks: u64,
    /// Modification time.
    pub mtime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
}

/// The target of a name in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A node, possibly of the tree below.
    Node(NodeKey),
    /// The name was removed.
    Whiteout,
}

/// A name in a directory. `cookie` grows with every name created and is never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRow {
    /// Where a listing continues after this name.
    pub cookie: u64,
    /// The name.
    pub name: Vec<u8>,
    /// Its target.
    pub named: Named,
}

/// A name in a directory with its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The name.
    pub name: Vec<u8>,
    /// Its target.
    pub named: Named,
    /// The target's row, if it has one.
    pub node: Option<Node>,
    /// Whether the target has extended attributes.
    pub has_xattrs: bool,
}

/// The journal of a publish in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The generation that was frozen.
    pub generation: u64,
    /// The digest that the tag held.
    pub expected: Option<String>,
    /// The digest that it is moving to.
    pub digest: String,
}

/// An upper as seen in the directory of all uppers, without opening its database.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The tag.
    pub tag_key: TagKey,
    /// The process that holds it, if any does.
    pub holder: Option<u32>,
    /// Its directory.
    pub directory: PathBuf,
}

/// Rows read at a time.
const BATCH: usize = 256;

/// Reads rows, of a live upper or a frozen generation.
pub trait Rows: Send + Sync {
    /// A changed node.
    fn node(&self, key: NodeKey) -> Result<Option<Node>, Error>;
    /// All changed nodes by number, after the given one; at most `limit`.
    fn nodes(&self, after: Option<NodeKey>, limit: usize) -> Result<Vec<(NodeKey, Node)>, Error>;
    /// Passes all changed nodes to `visit`, by number.
    fn each_node(&self, visit: &mut dyn FnMut(NodeKey, Node) -> Result<(), Error>) -> Result<(), Error> {
        let mut after = None;
        loop {
            let batch = self.nodes(after, BATCH)?;
            let is_last = batch.len() < BATCH;
            after = batch.last().map(|(key, _)| *key);
            batch.into_iter().try_for_each(|(key, node)| visit(key, node))?;
            if is_last {
                return Ok(());
            }
        }
    }
    /// The target of the name.
    fn name(&self, directory: NodeKey, name: &[u8]) -> Result<Option<Named>, Error>;
    /// Names of a directory after a cookie, in cookie order, including whiteouts; at most `limit`.
    fn names(&self, directory: NodeKey, after: u64, limit: usize) -> Result<Vec<NameRow>, Error>;
    /// Passes the names of a directory after a cookie to `take`, in the same order, until it returns `false`.
    fn each_name(&self, directory: NodeKey, mut after: u64, take: &mut dyn FnMut(NameRow) -> Result<bool, Error>) -> Result<(), Error> {
        loop {
            let batch = self.names(directory, after, BATCH)?;
            let is_last = batch.len() < BATCH;
            for row in batch {
                after = row.cookie;
                if !take(row)? {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
    /// Names of a directory behind a name (empty: from the start), sorted by bytes, including whiteouts, with their nodes, whose paths in trees
    /// are left empty; at most `limit`.
    fn entries(&self, directory: NodeKey, after: &[u8], limit: usize) -> Result<Vec<EntryRow>, Error>;
    /// All xattrs of a node that has a row, by name.
    fn xattrs(&self, key: NodeKey) -> Result<Xattrs, Error>;
    /// Opens staged bytes. Those of a frozen generation refuse every change.
    fn open_data(&self, id: DataId) -> Result<DataFile, Error>;
    /// Size and times of staged bytes, which need not be open.
    fn data_attributes(&self, id: DataId) -> Result<DataAttributes, Error>;
}

#[cfg(test)]
mod tests;
