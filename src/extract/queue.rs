//! Work that waits for threads, bounded. Who takes some takes its share of what is there, so that much small work wakes nobody often
//! and a little large work goes to everybody.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Most that is taken at once.
const SHARE: usize = 16;

/// The queue.
pub(super) struct Queue<T> {
    limit: usize,
    threads: usize,
    /// Held to add or to take.
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Nothing more comes.
    is_closed: bool,
    /// Threads asleep, and whether the one that fills is.
    takers: usize,
    is_full: bool,
}

impl<T> Queue<T> {
    /// A queue for one thread that adds and so many that take.
    pub fn new(limit: usize, threads: usize) -> Self {
        let state = State { waiting: VecDeque::with_capacity(limit), is_closed: false, takers: 0, is_full: false };
        Self { limit, threads: threads.max(1), state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() }
    }

    /// Adds something; waits while the queue is full.
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

    /// Takes some; waits while there is nothing. `None` once nothing more comes.
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
        // Woken when there is room for much, not for each.
        if state.is_full && state.waiting.len() <= self.limit / 2 {
            state.is_full = false;
            self.drained.notify_one();
        }
        Some(taken)
    }

    /// Says that nothing more comes once the answer is dropped.
    pub fn filling(&self) -> Filling<'_, T> {
        Filling(self)
    }
}

/// More may come.
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
    fn everything_is_taken_once_in_shares_and_the_end_is_told_to_all() {
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
