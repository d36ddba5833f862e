//! Trees that are published, beside frozen tags and artifacts (`view/snapshot.rs`): a directory of this machine, a tree without some of
//! its paths, edits laid over a tree that moved.

pub(in crate::publish) mod directory;
pub(in crate::publish) mod rebased;
pub(in crate::publish) mod without;
