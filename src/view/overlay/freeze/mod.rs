//! The input of a publish from an edited tag.
//!
//! - `frozen`: an immutable generation of the upper
//! - `difference`: how the merged state differs from the tree below
//! - `renumber`: maps rows to the nodes of a new tree

pub(super) mod difference;
pub(super) mod frozen;
pub(super) mod renumber;
