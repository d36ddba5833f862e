//! The error of a blob that an artifact consists of.

use crate::error::Error;
use crate::oci::Descriptor;

/// The failure to read a blob that a manifest names.
pub(super) fn of_blob(what: &str, descriptor: &Descriptor, error: Error) -> Error {
    error.context(format_args!("{what} ({})", descriptor.digest))
}
