//! A bounded work queue for threads. A thread takes its share of what is queued, so that many small items cause few wake-ups and a few large
//! ones are spread over all threads.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Most items taken at once.
const SHARE: usize = 16;

/// The queue.
pub(super) struct Queue<T> {
    limit: usize,
    threads: usize,
    /// Locked to add or take.
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// No more items will come.
    is_closed: bool,
    /// Sleeping takers, and whether the filler sleeps.
    takers: usize,
    is_full: bool,
}

impl<T> Queue<T> {
    /// A queue for one thread that adds and several that take.
    pub fn new(limit: usize, threads: usize) -> Self {
        let state = State { waiting: VecDeque::with_capacity(limit), is_closed: false, takers: 0, is_full: false };
        Self { limit, threads: threads.max(1), state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() }
    }

    /// Adds an item; waits while the queue is full.
    pub fn add(&self, work: T) {
        let mut state = self.state.lock();
        state.is_full = state.waiting.len() >= self.limit;
        while state.is_full {
            self.drained.wait(&mut state);
        }
        state.waiting.push_back(work);
        if state.takers > 0 {
            self.filled.notify_one();
        }
    }

    /// Takes some items; waits while there are none. `None` once the queue is closed and empty.
    pub fn take(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.is_closed {
                return None;
            }
            state.takers += 1;
            self.filled.wait(&mut state);
            state.takers -= 1;
        }
        let share = (state.waiting.len() / self.threads).clamp(1, SHARE);
        let taken = state.waiting.drain(..share).collect();
        // Wake the filler once there is much room, not for every item.
        if state.is_full && state.waiting.len() <= self.limit / 2 {
            state.is_full = false;
            self.drained.notify_one();
        }
        Some(taken)
    }

    /// Closes the queue when the guard is dropped.
    pub fn filling(&self) -> Filling<'_, T> {
        Filling(self)
    }
}

/// More items may come while this exists.
pub(super) struct Filling<'a, T>(&'a Queue<T>);

impl<T> Drop for Filling<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().is_closed = true;
        self.0.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_taken_once_and_all_workers_learn_of_the_end() {
        let queue = Queue::new(8, 3);
        let sum = std::thread::scope(|scope| {
            let take = || {
                let mut sum = 0;
                while let Some(taken) = queue.take() {
                    assert!((1..=SHARE).contains(&taken.len()));
                    sum += taken.iter().sum::<u64>();
                }
                sum
            };
            let takers: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
            let filling = queue.filling();
            (1..=1000).for_each(|number| queue.add(number));
            drop(filling);
            takers.into_iter().map(|taker| taker.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 500_500);
    }

    #[test]
    fn a_little_work_is_shared_by_all() {
        let queue = Queue::new(8, 4);
        (0..4).for_each(|number| queue.add(number));
        assert_eq!(queue.take(), Some(vec![0]));
        assert_eq!(queue.take(), Some(vec![1]));
    }
}
