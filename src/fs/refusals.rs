//! Limits of names and times, and errors shared by many operations.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// How long the kernel caches what can never change.
pub const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The longest time for which the kernel caches whether a tag or repository exists, so that a move needs no notification and a refresh
/// has taken effect after this time.
pub const NAME_TTL: Duration = Duration::from_secs(1);

/// How long the kernel caches the absence of a name that no grammar or artifact has.
pub const ABSENT_TTL: Duration = Duration::from_secs(5);

/// Longest name that can be created; an artifact may have longer ones.
pub const NAME_LIMIT: usize = 255;

pub(super) fn stale() -> Error {
    Error::new(ErrorKind::Gone, "the file no longer exists")
}

pub(super) fn too_long() -> Error {
    Error::new(ErrorKind::TooLong, "a name has at most 255 bytes")
}

/// The error for every attempt to change a read-only object.
pub(super) fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "nothing can be changed here")
}
