//! Staged tags: finding the ones that a command means, and working on them with or without a daemon.
//!
//! - `target`: resolves PATH or REF to tags of a running daemon or to orphaned ones
//! - `peer`: does the work of a command, through the daemon or in this process
//! - `orphaned`: tags without a daemon, opened in this process
//! - `edits`: list, publish, compare and discard on one file system, for daemon and command alike
//! - `report`: the outcome of a sync in lines, JSON and an exit code
//! - `summary`: staged tags in words

pub mod edits;
pub mod orphaned;
pub mod peer;
pub mod report;
pub mod summary;
pub mod target;
