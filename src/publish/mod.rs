//! From an edited tag to a new digest under that tag: plan, pack, push, journal.
//!
//! The order is the promise: blobs, then the manifest by digest, then the tag compared with what it was expected to hold, then
//! the tag, then its confirmation; only then are staged bytes given up. It never overwrites what it did not expect and never
//! deletes a sibling. It knows no mount: `fs` and the command line hand it edited tags.

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::oci::{Digest, Tag};
use crate::registry::Push;
use crate::view::{Context, Overlay};

/// Why a tag was not published. Everything staged is still there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Conflict where the tag moved, Skipped where safety said no, else what the registry or the disk said.
    pub kind: ErrorKind,
    /// What happened to which tag, and the ways out.
    pub message: String,
}

/// What kind of artifact a new tag becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// Titled layers, as ORAS reads them.
    #[default]
    Files,
    /// A container image.
    Image,
    /// One archive as oci-sync writes it, sealed where a passphrase is given.
    OciSync,
}

/// What a publish may do. Stable keys: it travels to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Say what would happen, change nothing.
    pub dry_run: bool,
    /// Publish under this tag instead.
    pub as_tag: Option<String>,
    /// Overwrite a tag that moved; allow what safety would skip.
    pub force: bool,
    /// Drop the edits of tags that moved and show what is upstream.
    pub theirs: bool,
    /// Lay the edits of tags that moved over what is upstream now.
    pub rebase: bool,
    /// Deleting tags upstream is allowed.
    pub allow_delete: bool,
    /// Kind of artifact for what has none yet.
    pub as_kind: Option<ArtifactKind>,
    /// Blobs sent at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// Publish droppings and what `.ocifsignore` names too.
    pub no_ignore: bool,
}

/// What a publish tells on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A tag begins.
    Begin {
        /// Its reference.
        reference: String,
    },
    /// Bytes packed so far, of about so many.
    Packed {
        /// Reference of the tag.
        reference: String,
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Bytes sent so far, of about so many.
    Sent {
        /// Reference of the tag.
        reference: String,
        /// Bytes sent.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something a person should know.
    Note {
        /// Reference of the tag.
        reference: String,
        /// One sentence.
        text: String,
    },
    /// A tag is done with.
    End {
        /// What became of it.
        report: Report,
    },
}

/// Hears of events. Never blocks.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// What became of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Nothing differed.
    Unchanged,
    /// A new manifest is confirmed under the tag (or would be: dry run).
    Published {
        /// What the tag held before.
        before: Option<String>,
        /// What it holds now.
        digest: String,
        /// An artifact that was there already; nothing was packed.
        known: bool,
    },
    /// The tag was deleted upstream.
    Deleted {
        /// What it held.
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
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Bytes and blobs sent.
    pub sent: (u64, u64),
    /// Bytes and blobs that the registry had.
    pub reused: (u64, u64),
    /// Names added, changed, removed.
    pub changes: (u64, u64, u64),
    /// Droppings left out.
    pub ignored: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Publishes edited tags of one place.
pub struct Publisher {
    /// What views share: artifacts, keys, platform.
    pub context: Arc<Context>,
    /// Where to.
    pub push: Arc<dyn Push>,
    /// Kind of new artifacts where neither options nor the base say.
    pub kind: ArtifactKind,
    /// Blobs sent at a time where the options do not say.
    pub concurrency: NonZeroUsize,
}

/// What has to follow a publish in whoever shows the tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The view goes on; whether nothing is left to publish.
    Continues {
        /// Nothing is left.
        clean: bool,
    },
    /// New lookups must get a new view: the upper is gone or bound to another digest.
    NewView,
    /// The edits belong to another tag now.
    Moved(Tag),
}

impl Publisher {
    /// Publishes one tag. Dropping the future stops it; what was packed and sent is taken up by the next one.
    ///
    /// # Errors
    /// Why it was not published; the upper is whole.
    pub async fn publish(&self, _overlay: &Arc<Overlay>, _options: &Options, _listener: &Listener) -> Result<(Report, Next), Error> {
        todo!()
    }

    /// What the tag would become, for comparing; nothing is sent.
    pub async fn preview(&self, _overlay: &Arc<Overlay>, _options: &Options) -> Result<Option<Digest>, Error> {
        todo!()
    }
}
