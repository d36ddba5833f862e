//! Limits of names and times, and errors that many operations have in common.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// How long the kernel keeps what can never change.
pub const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The longest that the kernel keeps whether there is a tag or repository of a name, so that a move needs no notification and a refresh
/// holds once this is over.
pub const NAME_TTL: Duration = Duration::from_secs(1);

/// How long the kernel takes a name for absent that no grammar or artifact has.
pub const ABSENT_TTL: Duration = Duration::from_secs(5);

/// Longest name that is made; an artifact may have longer ones.
pub const NAME_LIMIT: usize = 255;

pub(super) fn stale() -> Error {
    Error::new(ErrorKind::Gone, "the file is not there any more")
}

pub(super) fn too_long() -> Error {
    Error::new(ErrorKind::TooLong, "a name has at most 255 bytes")
}

/// The error for every attempt to change a read-only object.
pub(super) fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "nothing can be changed here")
}
