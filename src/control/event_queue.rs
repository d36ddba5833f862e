//! A bounded queue of events for a possibly slow client. Keeps the latest progress of each tag and never blocks.

use std::collections::VecDeque;
use std::mem::discriminant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::publish::Event;

/// Most events in the queue. The answer includes every tag's outcome anyway.
const LIMIT: usize = 1 << 14;

/// The queue.
#[derive(Default)]
pub(super) struct EventQueue {
    events: Mutex<VecDeque<Event>>,
    filled: Notify,
}

impl EventQueue {
    /// Adds an event. Progress replaces queued progress of the same tag.
    pub(super) fn push(&self, event: Event) {
        let mut events = self.events.lock();
        let same = |known: &Event| discriminant(known) == discriminant(&event) && progress_of(known) == progress_of(&event);
        let earlier = progress_of(&event).and_then(|_| events.iter().rposition(same));
        if let Some(earlier) = earlier.and_then(|endpoint| events.get_mut(endpoint)) {
            *earlier = event;
        } else if events.len() < LIMIT {
            events.push_back(event);
        }
        drop(events);
        self.filled.notify_one();
    }

    /// Takes all events.
    pub(super) fn take(&self) -> VecDeque<Event> {
        std::mem::take(&mut *self.events.lock())
    }

    /// Waits until an event has been added since the last call.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

fn progress_of(event: &Event) -> Option<&str> {
    match event {
        Event::Packed { reference, .. } | Event::Sent { reference, .. } => Some(reference),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(reference: &str, done: u64) -> Event {
        Event::Sent { reference: reference.into(), done, total: 10 }
    }

    #[test]
    fn only_the_latest_progress_of_a_tag_waits() {
        let queue = EventQueue::default();
        let begin = Event::Begin { reference: "a".into(), dry_run: false };
        let packed = Event::Packed { reference: "a".into(), done: 1, total: 10 };
        for event in [begin.clone(), sent("a", 1), packed.clone(), sent("b", 2), sent("a", 3)] {
            queue.push(event);
        }
        assert_eq!(queue.take(), [begin, sent("a", 3), packed, sent("b", 2)]);
        assert!(queue.take().is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_costs_bounded_memory() {
        let queue = EventQueue::default();
        for number in 0..2 * LIMIT {
            queue.push(Event::Note { reference: String::new(), text: number.to_string() });
        }
        assert_eq!(queue.take().len(), LIMIT);
    }
}
