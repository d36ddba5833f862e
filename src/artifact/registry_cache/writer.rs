//! The queue of changes to store.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::oci::{Descriptor, Digest, Manifest, Repository};

/// Something not stored yet.
pub(super) enum Dirty {
    Tags(Repository),
    List(Repository),
    Catalog,
    Manifest(Repository, Arc<Manifest>),
    Referrers(Repository, Digest, Arc<[Descriptor]>),
}

impl Dirty {
    /// Whether storing one of them covers both.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tags(left), Self::Tags(right)) | (Self::List(left), Self::List(right)) => left == right,
            (Self::Catalog, Self::Catalog) => true,
            _ => false,
        }
    }
}

/// The queue of changes to store.
pub(super) struct Writer {
    queue: Mutex<VecDeque<Dirty>>,
    /// Whether a task is writing.
    busy: watch::Sender<bool>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { queue: Mutex::default(), busy: watch::Sender::new(false) }
    }
}

impl Writer {
    /// Waits until the queue is empty.
    pub async fn idle(&self) {
        let mut busy = self.busy.subscribe();
        // The sender lives as long as this writer.
        let _ = busy.wait_for(|busy| !busy).await;
    }

    /// Queues a change; `true` if a task must be started.
    pub(super) fn push(&self, dirty: Dirty) -> bool {
        let mut queue = self.queue.lock();
        if !queue.iter().any(|waiting| waiting.same(&dirty)) {
            queue.push_back(dirty);
        }
        !self.busy.send_replace(true)
    }

    /// The next change to write; `None` ends the task.
    pub(super) fn pop(&self) -> Option<Dirty> {
        let mut queue = self.queue.lock();
        let next = queue.pop_front();
        if next.is_none() {
            self.busy.send_replace(false);
        }
        next
    }
}
