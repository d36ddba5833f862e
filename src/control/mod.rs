//! The control socket of a daemon: requests from commands, and their answers.
//!
//! Beside each socket is a record with the mount's device number from the mount table. A client finds the socket through it and never touches
//! the mount, so a hung daemon cannot hang the client. The mount table also names the mount's owner: records, sockets and processes of other
//! users are ignored, even by root. One request per connection: a line of JSON, answered by lines of JSON with events, parts of a long answer,
//! keep-alives, and finally the answer. Closing the connection cancels the request. Only root and the daemon's own user are served.

mod client;
mod endpoint;
mod event_queue;
mod server;

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use client::{Client, PATIENCE, SILENCE};
pub use endpoint::{Endpoint, Found, Record, bound_directories, records};
pub use server::Server;

use crate::error::Error;
use crate::fs::{Selection, StagedTag};
use crate::publish::{Event, Listener, Options, Report};
use crate::seal::Passphrase;

/// Longest line that either side accepts, in bytes.
const LINE_LIMIT: u64 = 1 << 20;

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// The status of the mount.
    Status,
    /// Revalidate tags and lists, all or those at a path.
    Refresh {
        /// Relative to the mount, `/` between names; the whole mount if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Release files that were removed from the cache.
    LetGo,
    /// The daemon's version.
    Version,
    /// Unmount, then end.
    Unmount {
        /// Detach the mount even while files are open.
        #[serde(default)]
        lazy: bool,
    },
    /// The staged tags.
    Staged {
        /// The selected tags.
        #[serde(default)]
        selection: Selection,
    },
    /// Publish staged tags. Events precede the answer.
    Sync {
        /// The selected tags.
        selection: Selection,
        /// The options.
        #[serde(default)]
        options: Options,
        /// Tried before the mount's own, for this request only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        passphrases: Vec<Passphrase>,
    },
    /// The differences from upstream.
    Differences {
        /// The selected tags.
        selection: Selection,
    },
    /// Discard edits.
    Discard {
        /// The selected tags or path.
        selection: Selection,
    },
    /// Stage an empty tag.
    New {
        /// The reference of the tag.
        reference: String,
    },
    /// Set whether the daemon publishes staged edits when its mount is gone.
    #[serde(rename = "farewell")]
    PublishAtEnd {
        /// Publish them; if false, they stay staged.
        push: bool,
    },
}

/// The status of a mount. Keys are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The source.
    pub source: String,
    /// The mount point.
    pub mount_point: PathBuf,
    /// Process id of the daemon.
    pub pid: u32,
    /// Version of the daemon.
    pub version: String,
    /// Time of mounting, in seconds since 1970.
    pub since: u64,
    /// No request is sent to the registry.
    pub offline: bool,
    /// The mount is read-only.
    pub read_only: bool,
    /// Why `ls` does not list all repositories, if the registry has no catalog.
    pub unlisted: Option<String>,
    /// Directory of staged edits.
    pub state_directory: Option<PathBuf>,
    /// Bytes staged.
    pub staged: u64,
    /// Number of staged tags. An older daemon does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_tags: Option<usize>,
    /// Limit of staged bytes, if any.
    pub staging_size: Option<u64>,
    /// The kernel still sends requests. If false, the mount is gone and the daemon publishes staged edits before it exits.
    pub serving: bool,
    /// Time limit for publishing after the mount is gone, in seconds.
    pub exit_timeout: u64,
    /// The daemon's log, if it writes to a file.
    pub log: Option<PathBuf>,
    /// The cache.
    pub cache: CacheStatus,
}

/// Usage of a cache directory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// The directory.
    pub directory: PathBuf,
    /// Cached content.
    pub data: u64,
    /// Indexes, trees and manifests, which also count against the budget.
    pub indexes: u64,
    /// The part of the content that belongs to pinned artifacts.
    pub pinned: u64,
    /// Number of layers and files with cached content.
    pub streams: u64,
    /// The budget.
    pub size: u64,
}

/// The difference between one path of a staged tag and upstream. Keys are stable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Reference of the tag.
    pub reference: String,
    /// Path in the tag, with replacement characters for invalid UTF-8.
    pub path: String,
    /// The raw path, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// `added`, `changed` or `removed`.
    pub state: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `block-device` or `char-device`.
    pub kind: String,
    /// Size upstream.
    pub before: Option<u64>,
    /// Size here.
    pub after: Option<u64>,
}

/// Handles requests. Answers should arrive within [`PATIENCE`].
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The status of the mount.
    async fn status(&self) -> Result<Status, Error>;
    /// Revalidates tags and lists, all or those at a path.
    async fn refresh(&self, path: Option<&str>) -> Result<(), Error>;
    /// Releases files that were removed from the cache.
    async fn let_go(&self) -> Result<(), Error>;
    /// Unmounts. The daemon exits after it has sent its answer.
    async fn unmount(&self, lazy: bool) -> Result<(), Error>;
    /// The selected staged tags.
    async fn staged(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error>;
    /// Publishes the selected tags. Dropped when the client disconnects.
    async fn sync(
        &self,
        selection: &Selection,
        options: &Options,
        passphrases: Vec<Passphrase>,
        listener: &Listener,
    ) -> Result<Vec<Report>, Error>;
    /// The differences between the selected tags and upstream.
    async fn differences(&self, selection: &Selection) -> Result<Vec<Difference>, Error>;
    /// Discards edits and returns the references of their tags.
    async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error>;
    /// Stages an empty tag and returns its path below the mount.
    async fn new_tag(&self, reference: &str) -> Result<String, Error>;
    /// Sets whether staged edits are published when the mount is gone.
    async fn publish_at_end(&self, push: bool) -> Result<(), Error>;
}

/// A line sent by the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// Progress.
    Event(Event),
    /// Some elements of a long list.
    Part(Vec<serde_json::Value>),
    /// Keep-alive.
    Alive,
    /// The answer, or the end of a list sent in parts.
    Ok(serde_json::Value),
    /// The request failed.
    Error { kind: String, message: String },
}

impl From<Error> for Line {
    fn from(error: Error) -> Self {
        Self::Error { kind: error.kind.name().to_owned(), message: error.message.into_owned() }
    }
}

#[cfg(test)]
mod tests;
