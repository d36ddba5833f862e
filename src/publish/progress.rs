//! Progress and notes of a publish, sent to its listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Event, Listener};

/// Bytes between two events of the same kind.
const STEP: u64 = 1 << 20;

/// Counts the bytes of one publish and reports them periodically.
pub(super) struct Progress {
    reference: String,
    listener: Listener,
    /// Bytes read by packers, which add to it themselves.
    pub read: Arc<AtomicU64>,
    packed: Lane,
    sent: Lane,
    /// Notes for the user.
    notes: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Lane {
    done: AtomicU64,
    total: AtomicU64,
    told: AtomicU64,
}

impl Lane {
    /// Whether enough has happened since the last event.
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

    /// Sends a note to the user, once.
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

    /// Adds bytes to the expected total.
    pub fn expect_packed(&self, bytes: u64) {
        self.packed.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reports the progress of packing.
    pub fn packed(&self) {
        let done = self.read.load(Ordering::Relaxed);
        if self.packed.is_due(done) {
            let total = self.packed.total.load(Ordering::Relaxed).max(done);
            self.tell(Event::Packed { reference: self.reference.clone(), done, total });
        }
    }

    /// Starts an upload of `size` bytes.
    pub fn upload(self: &Arc<Self>, size: u64) -> Upload {
        self.sent.total.fetch_add(size, Ordering::Relaxed);
        Upload { progress: Arc::clone(self), size, reached: Arc::default() }
    }
}

/// The progress of one upload.
#[derive(Clone)]
pub(super) struct Upload {
    progress: Arc<Progress>,
    size: u64,
    reached: Arc<AtomicU64>,
}

impl Upload {
    /// The registry has `offset` bytes; fewer than before if the upload restarted.
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
