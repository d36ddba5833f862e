//! Staged tags: selecting them, and working on them with or without a daemon.
//!
//! - `target`: resolves PATH or REF to tags of a running daemon or orphaned ones
//! - `peer`: carries out a command through the daemon or in this process
//! - `orphaned`: tags without a daemon, opened in this process
//! - `edits`: list, publish, compare and discard on one file system, for daemon and command alike
//! - `report`: the outcome of a sync as lines, JSON and an exit code
//! - `summary`: staged tags in words

pub mod edits;
pub mod orphaned;
pub mod peer;
pub mod report;
pub mod summary;
pub mod target;
