//! Single flight: one computation per key, however many callers wait for it.
//!
//! The computation runs as its own task, so a caller that gives up (an interrupted `cat`) never cancels it for the others. Results go to all
//! waiting callers and are then forgotten: remembering them is the job of a cache, and failures are never remembered.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The computation ended without a result: it panicked, or the runtime is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the computation was abandoned")]
pub struct Abandoned;

type Running<K, T> = Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>;

/// The running computations, by key.
pub struct Flight<K, T> {
    /// Locked only for map operations, never across an await.
    running: Running<K, T>,
}

impl<K, T> Default for Flight<K, T> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K, T> Flight<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Returns the result of the computation running for `key`, starting `compute` if there is none.
    ///
    /// Where results are remembered, `known` looks for one again, under the lock: the caller may have looked just before a computation ended, and
    /// would repeat it. So a computation must have stored its result when it ends, and `known` must be quick and not use this flight.
    ///
    /// # Errors
    /// [`Abandoned`] if the computation ended without a result.
    pub async fn run<F>(&self, key: K, known: impl FnOnce() -> Option<T>, compute: impl FnOnce() -> F) -> Result<T, Abandoned>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut receiver = self.join(key, known, compute);
        match receiver.wait_for(Option::is_some).await {
            Ok(value) => value.clone().ok_or(Abandoned),
            Err(_) => Err(Abandoned),
        }
    }

    fn join<F>(&self, key: K, known: impl FnOnce() -> Option<T>, compute: impl FnOnce() -> F) -> watch::Receiver<Option<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(receiver) = running.get(&key) {
            return receiver.clone();
        }
        if let Some(value) = known() {
            return watch::channel(Some(value)).1;
        }
        // Called first: if it panics, nothing is left behind.
        let future = compute();
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver.clone());
        let landing = Landing { key, running: Arc::clone(&self.running) };
        tokio::spawn(async move {
            let value = future.await;
            // Removed before the result is announced: later callers start over instead of getting an old result.
            drop(landing);
            sender.send_replace(Some(value));
        });
        receiver
    }
}

/// Removes the key from the map when the task ends in any way.
struct Landing<K: Eq + Hash, T> {
    key: K,
    running: Running<K, T>,
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_computation_and_the_next_starts_anew() {
        let flight = Flight::default();
        let runs = Arc::new(AtomicU32::new(0));
        let compute = || {
            let runs = Arc::clone(&runs);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                runs.fetch_add(1, Ordering::SeqCst)
            }
        };
        let all = futures_util::future::join_all((0..32).map(|_| flight.run("key", || None, compute))).await;
        assert!(all.iter().all(|result| *result == Ok(0)));
        assert_eq!(flight.run("key", || None, compute).await, Ok(1));
    }

    #[tokio::test]
    async fn a_result_stored_since_the_caller_looked_is_not_computed_again() {
        let flight: Flight<u8, u8> = Flight::default();
        assert_eq!(flight.run(1, || Some(7), || async { panic!("computed again") }).await, Ok(7));
        assert_eq!(flight.run(1, || None, || async { 8 }).await, Ok(8));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_stop_the_others() {
        let flight = Arc::new(Flight::default());
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            7
        };
        let impatient = tokio::time::timeout(Duration::from_millis(5), flight.run(1, || None, slow)).await;
        assert!(impatient.is_err());
        assert_eq!(flight.run(1, || None, || async { 8 }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_ends_the_wait_and_frees_the_key() {
        let flight: Flight<u8, u8> = Flight::default();
        assert_eq!(flight.run(1, || None, || async { panic!("on purpose") }).await, Err(Abandoned));
        assert_eq!(flight.run(1, || None, || async { 2 }).await, Ok(2));
    }
}
