//! Mounts of this program on this machine, found without touching them.
//!
//! - `table`: mounts in the mount table, their daemons, and records of dead ones
//! - `busy`: the processes and mount namespaces that use a mount

pub mod busy;
mod table;

pub use table::{all, at, below_root, client, containing, detached, is_own, of_record, recorded};
