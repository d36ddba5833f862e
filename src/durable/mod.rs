//! Files that survive a crash: atomic replacement in the right order of fsyncs, locks, sparse files.
//!
//! Knows nothing of what the files mean. Every error is the `io::Error` of the system call that failed.

mod lock;
mod private;
mod replace;
mod sparse;

pub use lock::{RangeLock, Sharing, is_used, mark_used};
pub use private::private_directory;
pub use replace::{TEMPORARY, make_directory, remove, replace, sync_directory};
pub use sparse::{Free, free, is_full, is_unsupported, make_room, occupied, open_private, punch};

#[cfg(test)]
pub mod disk;
#[cfg(test)]
mod tests;
