//! The daemon's socket: what commands ask a running mount, and what it answers.
//!
//! A client finds the socket through the mount table, by the device number of the mount, and never touches the
//! mount itself, so a hung daemon cannot hang the client. One request a connection: a line of JSON each way.
//! Only root and the daemon's own user are answered.

mod client;
mod place;
mod server;

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use client::{Client, PATIENCE};
pub use place::{Place, Record, bound_directories, directory};
pub use server::Server;

use crate::error::ErrorKind;

/// Longest line that either side accepts.
const LINE_LIMIT: u64 = 1 << 20;

/// Why a daemon did not do what was asked, or could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a caller can act on.
    pub kind: ErrorKind,
    /// What happened, and what to do.
    pub message: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// How the mount is.
    Status,
    /// Forget how fresh tags and lists are, of everything or of one path below the mount.
    Refresh {
        /// Relative to the mount, `/` between names; all of the mount if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// The daemon's version.
    Version,
    /// Unmount, then end.
    Unmount {
        /// Take the mount out of the tree even while files are open.
        #[serde(default)]
        lazy: bool,
    },
}

/// How a mount is. Keys are stable: scripts read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What is mounted.
    pub source: String,
    /// Where.
    pub mount_point: PathBuf,
    /// Process id of the daemon.
    pub pid: u32,
    /// Version of the daemon.
    pub version: String,
    /// When it was mounted, in seconds since 1970.
    pub since: u64,
    /// The registry is never asked.
    pub offline: bool,
    /// Nothing can be written.
    pub read_only: bool,
    /// The daemon's log, if it writes to a file.
    pub log: Option<PathBuf>,
    /// The cache that it uses.
    pub cache: CacheStatus,
}

/// Figures of a cache directory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// The directory.
    pub directory: PathBuf,
    /// Content.
    pub data: u64,
    /// Indexes and trees, which do not count against the budget.
    pub indexes: u64,
    /// The part of the content that belongs to pinned artifacts.
    pub pinned: u64,
    /// Number of layers and files with any content.
    pub streams: u64,
    /// The budget.
    pub size: u64,
}

/// What a daemon does when asked. Answers should come within [`PATIENCE`].
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// How the mount is.
    async fn status(&self) -> Result<Status, Error>;
    /// Forgets freshness, of everything or of one path.
    async fn refresh(&self, path: Option<&str>) -> Result<(), Error>;
    /// Unmounts. The daemon ends after its answer was sent.
    async fn unmount(&self, lazy: bool) -> Result<(), Error>;
}

/// An answer on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(serde_json::Value),
    Error { kind: String, message: String },
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self::Error { kind: error.kind.name().to_owned(), message: error.message }
    }
}

impl Answer {
    fn into_result(self) -> Result<serde_json::Value, Error> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Error { kind, message } => Err(Error::new(ErrorKind::of_name(&kind), message)),
        }
    }
}

#[cfg(test)]
mod tests;
