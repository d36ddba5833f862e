//! Pack files: artifacts and indexes described in YAML, built from files, directories, web servers, S3 and other artifacts, and the way back.
//!
//! The format is oci-packer's. The same Pack file and content give the same digest: no clock, no system tables of media types. Blobs, manifests
//! and members are sent as in every push and copy; this module only decides which, and in which order. Never reads the environment and never
//! writes to a terminal.
//!
//! - `pack_file`: the file format
//! - `manifest`: builds the manifests, pure
//! - `gather`: turns sources into local blobs
//! - `pack`: sends blobs, then manifests, then tags
//! - `unpack`: turns an artifact into a directory with a Pack file

mod gather;
mod manifest;
mod pack;
mod pack_file;
#[cfg(test)]
mod tests;
mod unpack;

use std::path::Path;

use crate::error::{Error, ErrorKind};

pub use gather::Gatherer;
pub use pack::{ArtifactSource, PackTarget, pack};
pub use pack_file::PackFile;
pub use unpack::{Unpacked, unpack};

/// A failed system call on a user's path; a missing one is NotFound.
fn on_disk(what: &str, path: &Path, error: std::io::Error) -> Error {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let error = Error::io(format_args!("{what} {}", shown(path)), error);
    if is_missing { error.with_kind(ErrorKind::NotFound) } else { error }
}

/// A path for messages.
fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}
