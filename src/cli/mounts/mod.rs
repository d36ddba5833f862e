//! Mounts of this program on this machine.
//!
//! - `table`: mounts in the mount table, their daemons, and records of dead ones
//! - `health`: whether the daemon behind a mount is dead or hung
//! - `owner`: the user who made a mount
//! - `busy`: the processes and mount namespaces that use a mount

pub mod busy;
pub mod health;
mod owner;
mod table;

pub use owner::other_owner;
pub use table::{all, at, below_root, client, containing, detached, is_own, of_record, recorded, recorded_state, running};
