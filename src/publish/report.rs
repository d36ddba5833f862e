//! Reports of a publish while it runs and when it is done. Plain values with stable names: they are sent between processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::oci::Tag;

/// Bytes between two events about the same thing.
const STEP: u64 = 1 << 20;

/// An event of a running publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A tag begins.
    Begin {
        /// Its reference.
        reference: String,
        /// Nothing will be sent.
        #[serde(default)]
        dry_run: bool,
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
        /// The outcome.
        report: Report,
    },
}

/// Hears of events. Never blocks.
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
    /// Notes for people.
    pub notes: Vec<String>,
}

impl Report {
    /// What the tag held before it was published.
    pub fn before(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Published { before, .. } => before.as_deref(),
            _ => None,
        }
    }

    /// The account of a tag that was not published.
    pub fn failed(reference: String, kind: ErrorKind, message: String) -> Self {
        Self {
            reference,
            outcome: Outcome::Failed { kind: kind.name().to_owned(), message },
            sent: (0, 0),
            reused: (0, 0),
            changes: (0, 0, 0),
            ignored: 0,
            notes: Vec::new(),
        }
    }
}

/// The next step for views that show the tag.
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

/// Counts bytes of one publish and tells of them now and then.
pub(super) struct Progress {
    reference: String,
    listener: Listener,
    /// Bytes read by packers; they add to it themselves.
    pub read: Arc<AtomicU64>,
    packed: Lane,
    sent: Lane,
    /// Notes for people.
    notes: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Lane {
    done: AtomicU64,
    total: AtomicU64,
    told: AtomicU64,
}

impl Lane {
    /// Whether enough happened since the last event.
    fn is_due(&self, done: u64) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        let is_due = done.abs_diff(told) >= STEP || done != told && done >= self.total.load(Ordering::Relaxed);
        if is_due {
            self.told.store(done, Ordering::Relaxed);
        }
        is_due
    }
}

impl Progress {
    pub fn new(reference: String, listener: Listener) -> Arc<Self> {
        Arc::new(Self {
            reference,
            listener,
            read: Arc::default(),
            packed: Lane::default(),
            sent: Lane::default(),
            notes: Mutex::default(),
        })
    }

    pub fn reference(&self) -> &str {
        &self.reference
    }

    pub fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    /// Tells a person something, once.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut notes = self.notes.lock();
        if notes.contains(&text) {
            return;
        }
        notes.push(text.clone());
        drop(notes);
        self.tell(Event::Note { reference: self.reference.clone(), text });
    }

    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }

    /// So many bytes are about to be packed.
    pub fn expect_packed(&self, bytes: u64) {
        self.packed.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells how far packing is.
    pub fn packed(&self) {
        let done = self.read.load(Ordering::Relaxed);
        if self.packed.is_due(done) {
            let total = self.packed.total.load(Ordering::Relaxed).max(done);
            self.tell(Event::Packed { reference: self.reference.clone(), done, total });
        }
    }

    /// An upload of so many bytes begins.
    pub fn upload(self: &Arc<Self>, size: u64) -> Upload {
        self.sent.total.fetch_add(size, Ordering::Relaxed);
        Upload { progress: Arc::clone(self), size, reached: Arc::default() }
    }
}

/// The account of one upload.
#[derive(Clone)]
pub(super) struct Upload {
    progress: Arc<Progress>,
    size: u64,
    reached: Arc<AtomicU64>,
}

impl Upload {
    /// The other side has so many bytes; fewer than before if the upload started over.
    pub fn reached(&self, offset: u64) {
        let offset = offset.min(self.size);
        let before = self.reached.swap(offset, Ordering::Relaxed);
        let lane = &self.progress.sent;
        if offset >= before {
            lane.done.fetch_add(offset - before, Ordering::Relaxed);
        } else {
            lane.done.fetch_sub(before - offset, Ordering::Relaxed);
        }
        let done = lane.done.load(Ordering::Relaxed);
        if lane.is_due(done) {
            let total = lane.total.load(Ordering::Relaxed).max(done);
            self.progress.tell(Event::Sent { reference: self.progress.reference.clone(), done, total });
        }
    }

    pub fn done(&self) {
        self.reached(self.size);
    }
}
