//! Pack files: an artifact or index described in YAML, made from files, directories, web servers, S3 and other artifacts, and the way
//! back.
//!
//! The format is that of oci-packer. The same Pack file over the same content gives the same digest: no clock, no machine's table of
//! types. Blobs, manifests and members go the way of every push and copy; here is only which, and in which order. Never reads the
//! environment and never writes to a terminal.
//!
//! - `pack_file`: the file
//! - `manifest`: the manifests that follow from it, pure
//! - `gather`: its sources become blobs on this machine
//! - `pack`: blobs, then manifests, then tags
//! - `unpack`: an artifact becomes a directory with a Pack file

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

/// A failed system call on a path of the user; a missing one is NotFound.
fn on_disk(what: &str, path: &Path, error: std::io::Error) -> Error {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let error = Error::io(format_args!("{what} {}", shown(path)), error);
    if is_missing { error.with_kind(ErrorKind::NotFound) } else { error }
}

/// A path for messages.
fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}
