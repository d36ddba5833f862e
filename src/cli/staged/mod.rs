//! Staged tags: finding the ones that a command means, and working on them with or without a daemon.

pub mod edits;
pub mod orphaned;
pub mod peer;
pub mod report;
pub mod summary;
pub mod target;
