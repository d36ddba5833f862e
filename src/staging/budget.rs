//! The budget for staged bytes: one for all open uppers, with an account for each.
//!
//! Counts disk usage, not file lengths. Never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Semaphore;

/// The disk usage of all open uppers, and their quota.
pub(super) struct Budget {
    used: AtomicU64,
    pub quota: Option<u64>,
    /// Permits one file at a time to be filled from its base.
    pub filling: Arc<Semaphore>,
}

impl Budget {
    pub fn new(quota: Option<u64>) -> Self {
        Self { used: AtomicU64::new(0), quota, filling: Arc::new(Semaphore::new(1)) }
    }

    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

/// The share of one upper, released when it is closed.
pub(super) struct Account {
    budget: Arc<Budget>,
    used: AtomicU64,
}

impl Account {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, used: AtomicU64::new(0) }
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Counts existing bytes.
    pub fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
        self.budget.used.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes about to be written, unless they exceed the quota.
    pub fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|after| self.budget.quota.is_none_or(|quota| *after <= quota));
        let reserved = self.budget.used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if reserved {
            self.used.fetch_add(bytes, Relaxed);
        }
        reserved
    }

    /// Releases bytes, at most those of this account: a file's disk usage may shrink behind our back.
    pub fn remove(&self, bytes: u64) {
        let mut taken = 0;
        let take = |used: u64| {
            taken = bytes.min(used);
            Some(used - taken)
        };
        // The closure always returns a value.
        let _ = self.used.fetch_update(Relaxed, Relaxed, take);
        self.budget.used.fetch_sub(taken, Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.remove(u64::MAX);
    }
}
