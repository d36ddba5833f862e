//! The commands, one file each.

pub mod cache;
pub mod diff;
pub mod discard;
pub mod inspect;
pub mod mount;
pub mod new;
pub mod status;
pub mod sync;
pub mod umount;
