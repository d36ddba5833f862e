//! Spans in flight: one fetch per span, however many readers wait.
//!
//! Unlike single flight by key, one computation here answers many keys, each as soon as its part is there.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};

type Outcome = Result<Bytes, Error>;
type Running = Arc<Mutex<HashMap<u32, watch::Receiver<Option<Outcome>>>>>;

/// The spans of one stream in flight.
#[derive(Default)]
pub(super) struct InFlight {
    /// Locked only for map operations, never across an await.
    running: Running,
}

/// The duty to answer for one span. Dropping it unanswered reports that the fetch was abandoned.
pub(super) struct PendingSpan {
    pub(super) span: u32,
    sender: watch::Sender<Option<Outcome>>,
    running: Running,
}

/// A waiter for one span.
pub(super) struct Waiting {
    receiver: watch::Receiver<Option<Outcome>>,
}

impl InFlight {
    /// Joins the fetch of a span, or takes the duty to fetch it.
    pub(super) fn join(&self, span: u32) -> (Waiting, Option<PendingSpan>) {
        let mut running = self.running.lock();
        if let Some(receiver) = running.get(&span) {
            return (Waiting { receiver: receiver.clone() }, None);
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(span, receiver.clone());
        (Waiting { receiver }, Some(PendingSpan { span, sender, running: Arc::clone(&self.running) }))
    }

    /// Whether a span is being fetched.
    pub(super) fn has(&self, span: u32) -> bool {
        self.running.lock().contains_key(&span)
    }
}

impl PendingSpan {
    /// Gives the outcome to all waiters.
    pub(super) fn complete(self, outcome: Outcome) {
        // Removed before it is announced: later readers look in the cache first.
        self.running.lock().remove(&self.span);
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for PendingSpan {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.running.lock().remove(&self.span);
        }
    }
}

impl Waiting {
    /// The span's bytes.
    pub(super) async fn outcome(mut self) -> Outcome {
        let abandoned = || Error::new(ErrorKind::Other, "fetching was abandoned; see the log");
        match self.receiver.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(abandoned())),
            Err(_) => Err(abandoned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_readers_share_one_fetch_and_the_next_one_starts_another() {
        let in_flight = InFlight::default();
        let (first, pending_span) = in_flight.join(7);
        let (second, none) = in_flight.join(7);
        assert!(none.is_none() && in_flight.has(7));
        pending_span.unwrap().complete(Ok(Bytes::from_static(b"seven")));
        assert_eq!(first.outcome().await.unwrap(), second.outcome().await.unwrap());
        assert!(in_flight.join(7).1.is_some());
    }

    #[tokio::test]
    async fn an_abandoned_fetch_ends_the_wait_and_frees_the_span() {
        let in_flight = InFlight::default();
        let (waiting, pending_span) = in_flight.join(7);
        drop(pending_span);
        assert_eq!(waiting.outcome().await.unwrap_err().kind, ErrorKind::Other);
        assert!(!in_flight.has(7));
    }
}
