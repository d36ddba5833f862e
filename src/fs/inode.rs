//! Inode numbers: node of the view (41 bits, the highest marks nodes created here) · view (23 bits). View 0 is the namespace above tags;
//! its node 1 is the root of the mount, which the kernel knows as number 1: no view has that number.
//!
//! The view is in the low bits because the kernel hashes inodes by them: the directories of all tags are node 0 of their views, and
//! would share a few buckets if they differed in the high bits only.

use crate::staging::STAGED;
use crate::view::{VIEW_LIMIT, ViewNode};

/// The inode number of the mount's root.
pub const ROOT: u64 = 1;

const NODE_SHIFT: u32 = VIEW_LIMIT.trailing_zeros();
const NODE_MASK: u64 = u64::MAX >> NODE_SHIFT;
const VIEW_MASK: u64 = VIEW_LIMIT as u64 - 1;
/// The namespace's own directory.
const TOP: Inode = Inode { view: 0, node: 1 };

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

    /// Whether the node was created in this mount and is not the artifact's.
    pub fn is_staged(self) -> bool {
        self.node & STAGED != 0
    }

    /// The node inside the view.
    pub fn node(self) -> ViewNode {
        self.node
    }

    /// The number that the kernel sees.
    pub fn encode(self) -> u64 {
        if self == TOP { ROOT } else { self.node << NODE_SHIFT | u64::from(self.view) }
    }

    /// Reads a number that the kernel sent; every number decodes.
    pub fn decode(number: u64) -> Self {
        if number == ROOT {
            return TOP;
        }
        // 23 bits, so this always fits.
        Self { view: u32::try_from(number & VIEW_MASK).unwrap_or(0), node: number >> NODE_SHIFT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::FIRST_VIEW;

    #[test]
    fn the_root_of_the_mount_is_inode_1_and_nothing_else_is() {
        assert_eq!(Inode::of_namespace(1).encode(), ROOT);
        assert_eq!(Inode::decode(ROOT), Inode::of_namespace(1));
        assert_ne!(Inode::of_view(FIRST_VIEW, 0).encode(), ROOT);
    }

    #[test]
    fn every_part_survives_encoding_at_its_bounds() {
        for view in [0, FIRST_VIEW, VIEW_LIMIT - 1] {
            for node in [0, 1, STAGED - 1, STAGED, STAGED | 1, NODE_MASK] {
                let inode = Inode { view, node };
                assert_eq!(Inode::decode(inode.encode()), inode);
                assert_eq!(inode.is_staged(), node >= STAGED);
            }
        }
        assert_eq!(Inode { view: VIEW_LIMIT - 1, node: NODE_MASK }.encode(), u64::MAX);
    }

    /// The hash of Linux for inodes, whose table has 2^`bits` buckets.
    fn bucket(number: u64, superblock: u64, bits: u32) -> u64 {
        const GOLDEN_RATIO: u64 = 0x61C8_8646_80B5_83EB;
        let mixed = number.wrapping_mul(superblock) ^ (GOLDEN_RATIO.wrapping_add(number) / 64);
        (mixed ^ ((mixed ^ GOLDEN_RATIO) >> bits)) & ((1 << bits) - 1)
    }

    #[test]
    fn inodes_spread_over_the_buckets_of_the_kernel() {
        let roots: Vec<u64> = (FIRST_VIEW..60_000).map(|view| Inode::of_view(view, 0).encode()).collect();
        let nodes: Vec<u64> = (0..60_000).map(|node| Inode::of_view(FIRST_VIEW, node).encode()).collect();
        let staged: Vec<u64> = (0..60_000).map(|node| Inode::of_view(FIRST_VIEW, STAGED | node).encode()).collect();
        for (numbers, bits) in [&roots, &nodes, &staged].into_iter().flat_map(|numbers| [16, 18, 21].map(|bits| (numbers, bits))) {
            for superblock in [0xffff_8881_0a3c_0800, 0xffff_8881_1234_5000] {
                let mut full = std::collections::HashMap::<u64, u32>::new();
                numbers.iter().for_each(|number| *full.entry(bucket(*number, superblock, bits)).or_default() += 1);
                assert!(full.values().all(|inodes| *inodes < 20), "{bits} bits, {:?} in one bucket", full.values().max());
            }
        }
    }
}
