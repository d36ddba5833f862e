//! Inode numbers: view (23 bits) · node of the view (41 bits, the uppermost tells what was made here). View 0 is the namespace above
//! tags; its node 1 is the root of the mount.

use crate::staging::STAGED;
use crate::view::{VIEW_LIMIT, ViewNode};

/// The inode by which the kernel knows the root of the mount.
pub const ROOT: u64 = 1;

const VIEW_SHIFT: u32 = 41;
const NODE_MASK: u64 = (1 << VIEW_SHIFT) - 1;

/// A decoded inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    view: u32,
    node: ViewNode,
}

impl Inode {
    /// A node of the namespace above tags.
    pub fn of_namespace(node: u64) -> Self {
        Self::of_view(0, node)
    }

    /// A node of a view.
    pub fn of_view(view: u32, node: ViewNode) -> Self {
        Self { view: view & (VIEW_LIMIT - 1), node: node & NODE_MASK }
    }

    /// The number of the view; 0 is the namespace.
    pub fn view(self) -> u32 {
        self.view
    }

    /// Whether the node was made in this mount, not by the artifact.
    pub fn is_staged(self) -> bool {
        self.node & STAGED != 0
    }

    /// The node inside the view.
    pub fn node(self) -> ViewNode {
        self.node
    }

    /// The number that the kernel sees.
    pub fn encode(self) -> u64 {
        u64::from(self.view) << VIEW_SHIFT | self.node
    }

    /// Reads a number that the kernel sent; every number decodes.
    pub fn decode(number: u64) -> Self {
        // 64 - 41 bits are left, so this always fits.
        Self { view: u32::try_from(number >> VIEW_SHIFT).unwrap_or(0), node: number & NODE_MASK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_mount_is_inode_1() {
        assert_eq!(Inode::of_namespace(1).encode(), ROOT);
    }

    #[test]
    fn every_part_survives_encoding_at_its_bounds() {
        for view in [0, 1, VIEW_LIMIT - 1] {
            for node in [0, 1, STAGED - 1, STAGED, STAGED | 1, NODE_MASK] {
                let inode = Inode { view, node };
                assert_eq!(Inode::decode(inode.encode()), inode);
                assert_eq!(inode.is_staged(), node >= STAGED);
            }
        }
        assert_eq!(Inode { view: VIEW_LIMIT - 1, node: NODE_MASK }.encode(), u64::MAX);
    }
}
