//! Errors of an artifact's blobs.

use crate::error::Error;
use crate::oci::Descriptor;

/// A failure to read a blob that a manifest refers to.
pub(super) fn of_blob(what: &str, descriptor: &Descriptor, error: Error) -> Error {
    error.context(format_args!("{what} ({})", descriptor.digest))
}
