//! Inode numbers: view (23 bits) · staged (1 bit) · node (40 bits). View 0 is the namespace above tags; its node 1 is the root of the mount.

use crate::view::VIEW_LIMIT;

/// The inode by which the kernel knows the root of the mount.
pub const ROOT: u64 = 1;

const NODE_BITS: u32 = 40;
const STAGED: u64 = 1 << NODE_BITS;
const VIEW_SHIFT: u32 = NODE_BITS + 1;
const NODE_MASK: u64 = STAGED - 1;

/// A decoded inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    view: u32,
    staged: bool,
    node: u64,
}

impl Inode {
    /// A node of the namespace above tags.
    pub fn of_namespace(node: u64) -> Self {
        Self { view: 0, staged: false, node: node & NODE_MASK }
    }

    /// A node that a view's artifact has.
    pub fn of_view(view: u32, node: u64) -> Self {
        Self { view: view & (VIEW_LIMIT - 1), staged: false, node: node & NODE_MASK }
    }

    /// The number of the view; 0 is the namespace.
    pub fn view(self) -> u32 {
        self.view
    }

    /// Whether the node was made in this mount, not by the artifact.
    pub fn is_staged(self) -> bool {
        self.staged
    }

    /// The node inside the view.
    pub fn node(self) -> u64 {
        self.node
    }

    /// The number that the kernel sees.
    pub fn encode(self) -> u64 {
        u64::from(self.view) << VIEW_SHIFT | if self.staged { STAGED } else { 0 } | self.node
    }

    /// Reads a number that the kernel sent; every number decodes.
    pub fn decode(number: u64) -> Self {
        let view = number >> VIEW_SHIFT;
        // 64 - 41 bits are left, so this always fits.
        Self { view: u32::try_from(view).unwrap_or(0), staged: number & STAGED != 0, node: number & NODE_MASK }
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
            for node in [0, 1, NODE_MASK] {
                for staged in [false, true] {
                    let inode = Inode { view, staged, node };
                    assert_eq!(Inode::decode(inode.encode()), inode);
                }
            }
        }
        assert_eq!(Inode { view: VIEW_LIMIT - 1, staged: true, node: NODE_MASK }.encode(), u64::MAX);
    }
}
