//! Reports of a publish while it runs and when it is done. Plain values with stable names: they are sent between processes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::oci::Tag;

/// An event of a running publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The beginning of a tag.
    Begin {
        /// Its reference.
        reference: String,
        /// Nothing will be sent.
        #[serde(default)]
        dry_run: bool,
    },
    /// Bytes packed so far.
    Packed {
        /// Reference of the tag.
        reference: String,
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Bytes sent so far.
    Sent {
        /// Reference of the tag.
        reference: String,
        /// Bytes sent.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A note for the user.
    Note {
        /// Reference of the tag.
        reference: String,
        /// One sentence.
        text: String,
    },
    /// The end of a tag.
    End {
        /// The outcome.
        report: Report,
    },
}

/// Receives events. Never blocks.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// The outcome for a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Nothing differed.
    Unchanged,
    /// A new manifest is confirmed under the tag (or would be: dry run).
    Published {
        /// The digest that the tag held before.
        before: Option<String>,
        /// The digest that it holds now.
        digest: String,
        /// An artifact that was there already; nothing was packed.
        known: bool,
    },
    /// The tag was deleted upstream.
    Deleted {
        /// The digest that it held.
        before: String,
    },
    /// The edits were dropped (`--theirs`).
    Dropped,
    /// Not published: the exit code of the reason, and the reason.
    Failed {
        /// Kind of the reason, as `control` names kinds.
        kind: String,
        /// The reason, with the ways out.
        message: String,
    },
}

/// The account of one tag.
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
    /// Bytes and blobs that the registry had.
    pub reused: (u64, u64),
    /// Names added, changed, removed.
    pub changes: (u64, u64, u64),
    /// Files left out: ignored ones, and those that no archive can hold.
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

    /// The account of a tag that was not published.
    pub fn failed(reference: String, kind: ErrorKind, message: String) -> Self {
        Self::new(reference, Outcome::Failed { kind: kind.name().to_owned(), message })
    }

    /// An account of nothing but the outcome.
    pub(super) fn new(reference: String, outcome: Outcome) -> Self {
        Self { reference, outcome, sent: (0, 0), reused: (0, 0), changes: (0, 0, 0), ignored: 0, notes: Vec::new() }
    }
}

/// The next step for views that show the tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The view stays.
    Continues {
        /// Nothing is left.
        clean: bool,
    },
    /// New lookups must get a new view: the upper is gone or bound to another digest.
    NewView,
    /// The edits belong to another tag now.
    Moved(Tag),
}
