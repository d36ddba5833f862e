//! The limits of a table, and how one is refused.

use crate::error::Error;

/// Largest table, compressed or not, in bytes.
pub const TABLE_MOST: u64 = 64 << 20;

/// The error for a table that a reader cannot go by.
pub(super) fn unusable(reason: &str) -> Error {
    Error::unsupported(format!("the table of contents cannot be used: {reason}"))
}
