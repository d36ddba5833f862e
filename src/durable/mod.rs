//! Crash-safe files: atomic replacement with correctly ordered fsyncs, locks, sparse files.
//!
//! Independent of the files' content. Every error is the `io::Error` of the failed system call.

mod lock;
mod private;
mod replace;
mod sparse;

pub use lock::{RangeLock, Sharing, is_used, mark_used};
pub use private::private_directory;
pub use replace::{TEMPORARY, directory_of, make_directory, remove, replace, sync_directory};
pub use sparse::{Free, free, is_full, is_unsupported, make_room, occupied, open_private, punch};

#[cfg(test)]
pub mod disk;
#[cfg(test)]
mod tests;
