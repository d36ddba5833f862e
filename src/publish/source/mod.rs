//! Trees to publish, besides frozen tags and artifacts (`view/snapshot.rs`): a local directory, a tree without some of its paths, edits rebased
//! onto a tree that moved.

pub(in crate::publish) mod directory;
pub(in crate::publish) mod rebased;
pub(in crate::publish) mod without;
