//! Attributes shared by archives, indexes, trees, edits and packers. Plain data.

use super::NodeKind;

/// Extended attributes: namespaced names (`user.x`, `security.capability`) and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Copies extended attributes out of an index or a tree.
pub fn owned_xattrs(xattrs: Vec<(&[u8], &[u8])>) -> Xattrs {
    xattrs.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Attributes of an entry or node, except the extended ones. `None` means that neither the archive nor an edit set the attribute, as for a raw
/// file; entries read from an archive have all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits including setuid, setgid and sticky.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Modification time: seconds since the epoch, may be negative, and nanoseconds, 0–999,999,999.
    pub mtime: Option<(i64, u32)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Metadata {
    /// Permission bits, with the defaults of every reader: 0755 for a directory, else 0644. A symlink always has 0777: its own are never shown.
    pub fn mode_or_default(&self, kind: NodeKind) -> u32 {
        match kind {
            NodeKind::Symlink => 0o777,
            NodeKind::Directory => self.mode.unwrap_or(0o755),
            _ => self.mode.unwrap_or(0o644),
        }
    }
}
