//! Reports of a publish, during and after. Plain values with stable names, sent between processes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::oci::Tag;

/// An event of a running publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A tag starts.
    Begin {
        /// The reference.
        reference: String,
        /// Nothing will be sent.
        #[serde(default)]
        dry_run: bool,
    },
    /// Progress of packing.
    Packed {
        /// Reference of the tag.
        reference: String,
        /// Bytes read.
        done: u64,
        /// Total bytes.
        total: u64,
    },
    /// Progress of sending.
    Sent {
        /// Reference of the tag.
        reference: String,
        /// Bytes sent.
        done: u64,
        /// Total bytes.
        total: u64,
    },
    /// A note for the user.
    Note {
        /// Reference of the tag.
        reference: String,
        /// One sentence.
        text: String,
    },
    /// A tag is done.
    End {
        /// The outcome.
        report: Report,
    },
}

/// Receives events. Never blocks.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// The outcome of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Nothing differed.
    Unchanged,
    /// A new manifest is confirmed under the tag (or would be, in a dry run).
    Published {
        /// The digest that the tag held before.
        before: Option<String>,
        /// The digest that it holds now.
        digest: String,
        /// The artifact already existed; nothing was packed.
        known: bool,
    },
    /// The tag was deleted upstream.
    Deleted {
        /// The digest that it held.
        before: String,
    },
    /// The edits were dropped (`--theirs`).
    Dropped,
    /// Not published.
    Failed {
        /// Kind of the error, named as in `control`.
        kind: String,
        /// The reason, and what to do.
        message: String,
    },
}

/// The report of one tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The reference that was published.
    pub reference: String,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Bytes and blobs sent.
    pub sent: (u64, u64),
    /// Bytes and blobs that the registry already had.
    pub reused: (u64, u64),
    /// Names added, changed, removed.
    pub changes: (u64, u64, u64),
    /// Files left out: ignored, or not representable in an archive.
    pub ignored: u64,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Report {
    /// The digest that the tag held before.
    pub fn before(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Published { before, .. } => before.as_deref(),
            _ => None,
        }
    }

    /// The report of a tag that was not published.
    pub fn failed(reference: String, kind: ErrorKind, message: String) -> Self {
        Self::new(reference, Outcome::Failed { kind: kind.name().to_owned(), message })
    }

    /// A report with only an outcome.
    pub(super) fn new(reference: String, outcome: Outcome) -> Self {
        Self { reference, outcome, sent: (0, 0), reused: (0, 0), changes: (0, 0, 0), ignored: 0, notes: Vec::new() }
    }
}

/// How views of the tag continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The view stays.
    Continues {
        /// Nothing is left to publish.
        clean: bool,
    },
    /// New lookups need a new view: the upper is gone or bound to another digest.
    NewView,
    /// The edits now belong to another tag.
    Moved(Tag),
}
