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

use crate::error::ErrorKind;

pub use gather::Gatherer;
pub use pack::{ArtifactSource, PackTarget, pack};
pub use pack_file::PackFile;
pub use unpack::{Unpacked, unpack};

/// Why a pack ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure, for callers to act on.
    pub kind: ErrorKind,
    /// The failure, the object it concerns, and what to do; foreign text in it is escaped.
    pub message: String,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn disk(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Other,
        };
        Self::new(kind, format!("{what} {}: {error}", shown(path)))
    }

    /// Names the item.
    fn of_item(self, number: usize) -> Self {
        Self { message: format!("item[{number}]: {}", self.message), ..self }
    }
}

impl From<crate::registry::Error> for Error {
    fn from(error: crate::registry::Error) -> Self {
        Self { kind: error.kind, message: error.message }
    }
}

impl From<crate::transfer::Error> for Error {
    fn from(error: crate::transfer::Error) -> Self {
        Self { kind: error.kind, message: error.message }
    }
}

/// A path for messages.
fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Error::new(ErrorKind::Other, format!("reading a source: {error}")))?
}
