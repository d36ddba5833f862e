//! What a publish takes from an edited tag.
//!
//! - `frozen`: a generation of the upper that does not change any more
//! - `difference`: how the merged state differs from the tree below
//! - `renumber`: rows get the nodes of a new tree

pub(super) mod difference;
pub(super) mod frozen;
pub(super) mod renumber;
