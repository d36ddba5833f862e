//! The daemon's socket: what commands ask a running mount, and what it answers.
//!
//! A client finds the socket by the records beside such sockets, one of which names the device number that the mount table shows, and
//! never touches the mount itself, so a hung daemon cannot hang the client. Who mounted stands in the mount table too: records, sockets
//! and processes of others are passed over, also by root. One request a connection: a line of JSON there, lines of JSON back:
//! events and parts of a long answer, a sign of life where it takes long, the answer at last. Closing the connection stops what
//! was asked for. Only root and the daemon's own user are answered.

mod client;
mod outbox;
mod place;
mod server;

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use client::{Client, PATIENCE, SILENCE};
pub use place::{Found, Place, Record, bound_directories, records};
pub use server::Server;

use crate::error::ErrorKind;
use crate::fs::{Selection, StagedTag};
use crate::publish::{Event, Listener, Options, Report};
use crate::seal::Passphrase;

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
    /// The staged tags.
    Staged {
        /// Which of them.
        #[serde(default)]
        selection: Selection,
    },
    /// Publish what is selected. Answered with events first.
    Sync {
        /// Which tags.
        selection: Selection,
        /// What may be done.
        #[serde(default)]
        options: Options,
        /// Tried before the mount's own, for this once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        passphrases: Vec<Passphrase>,
    },
    /// What differs from upstream.
    Differences {
        /// Which tags.
        selection: Selection,
    },
    /// Take edits back.
    Discard {
        /// Which tags, or what below a path.
        selection: Selection,
    },
    /// Stage an empty tag.
    New {
        /// Its reference.
        reference: String,
    },
    /// Say what the daemon does with staged edits when its mount is gone.
    Farewell {
        /// Publish them; else they stay staged.
        push: bool,
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
    /// Where edits are staged.
    pub state_directory: Option<PathBuf>,
    /// Bytes staged.
    pub staged: u64,
    /// Most bytes that may be staged; as much as the disk holds if absent.
    pub staging_size: Option<u64>,
    /// The kernel still sends requests. Otherwise the mount is gone and the daemon publishes what is staged on its way out.
    pub serving: bool,
    /// How long it publishes after its mount is gone, in seconds.
    pub exit_timeout: u64,
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

/// How one path of a staged tag differs from upstream. Keys are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Reference of the tag.
    pub reference: String,
    /// Path in the tag; what is no UTF-8 in it is replaced.
    pub path: String,
    /// The path's bytes, where `path` is not the whole truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// `added`, `changed` or `removed`.
    pub state: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `block-device` or `char-device`.
    pub kind: String,
    /// Bytes upstream.
    pub before: Option<u64>,
    /// Bytes here.
    pub after: Option<u64>,
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
    /// The staged tags that are selected.
    async fn staged(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error>;
    /// Publishes. Dropped when the client leaves.
    async fn sync(
        &self,
        selection: &Selection,
        options: &Options,
        passphrases: Vec<Passphrase>,
        listener: &Listener,
    ) -> Result<Vec<Report>, Error>;
    /// What differs from upstream.
    async fn differences(&self, selection: &Selection) -> Result<Vec<Difference>, Error>;
    /// Takes edits back; answers the references of the tags concerned.
    async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error>;
    /// Stages an empty tag; answers its path below the mount.
    async fn new_tag(&self, reference: &str) -> Result<String, Error>;
    /// Whether what is staged is published when the mount is gone.
    async fn farewell(&self, push: bool) -> Result<(), Error>;
}

/// A line that the daemon sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Something happened on the way.
    Event(Event),
    /// Some members of a long answer.
    Part(Vec<serde_json::Value>),
    /// It takes longer.
    Alive,
    /// The answer; the list that came in parts where there were some.
    Ok(serde_json::Value),
    /// There is none.
    Error { kind: String, message: String },
}

impl From<Error> for Line {
    fn from(error: Error) -> Self {
        Self::Error { kind: error.kind.name().to_owned(), message: error.message }
    }
}

#[cfg(test)]
mod tests;
