//! Arguments and results of operations on an edited tag, as plain data.

use crate::artifact::Kind;
use crate::layer::Metadata;
use crate::view::ViewNode;

/// A node to create.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Kind.
    pub kind: Kind,
    /// Permission bits with the caller's umask applied, owner and group, device numbers. The time is ignored.
    pub metadata: Metadata,
    /// Target of a symlink.
    pub target: Vec<u8>,
}

/// Attributes to set; `None` leaves one unchanged.
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
    /// Access time. Artifacts store none: it is shown while the tag is open here, and never stored.
    pub atime: Option<(i64, u32)>,
}

impl SetAttributes {
    /// Changes a node's attributes. `default_owner` stands in for an unset owner of which only half is set.
    pub(in crate::view::overlay) fn apply(&self, metadata: &mut Metadata, default_owner: (u32, u32)) {
        metadata.mode = self.mode.map(|mode| mode & 0o7777).or(metadata.mode);
        metadata.mtime = self.mtime.or(metadata.mtime);
        if self.uid.is_some() || self.gid.is_some() {
            let (uid, gid) = metadata.owner.unwrap_or(default_owner);
            metadata.owner = Some((self.uid.unwrap_or(uid), self.gid.unwrap_or(gid)));
        }
    }
}

/// How `rename` treats an existing new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Replace it.
    Yes,
    /// Refuse (RENAME_NOREPLACE).
    No,
    /// Swap the two (RENAME_EXCHANGE).
    Exchange,
}

/// How a path differs from upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathState {
    /// As upstream.
    Clean,
    /// Missing upstream.
    Added,
    /// Content or attributes differ.
    Changed,
    /// Removed here, exists upstream.
    Removed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path in the tag.
    pub path: Vec<u8>,
    /// Added, changed or removed.
    pub state: PathState,
    /// Current kind, or the former one if removed.
    pub kind: Kind,
    /// Size upstream in bytes.
    pub before: Option<u64>,
    /// Size here in bytes.
    pub after: Option<u64>,
}

/// The names and nodes that the kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Pages and attributes of a node.
    Node(ViewNode),
    /// A name in a directory.
    Name(ViewNode, Vec<u8>),
}
