//! Claims: the exclusive right, across threads and processes, to compute something.
//!
//! A claim is a tokio mutex among the tasks of this process and a lock on one byte of `claims.lock` among processes; the name's hash selects the
//! byte, so nothing needs cleaning up when a process dies. A waiting process watches the holder's transfer progress in the ledger: it waits for
//! a slow holder, but not for a stalled one.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::ledger::Ledger;
use crate::durable::{RangeLock, Sharing};

/// Longest pause between two attempts while another process holds the claim.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The exclusive right to compute something.
pub struct Claim {
    // Dropped in this order: the next task of this process must find the byte unlocked.
    _process: RangeLock,
    _task: OwnedMutexGuard<()>,
}

type Gate = tokio::sync::Mutex<()>;

/// The claims of an open cache.
pub struct Claims {
    path: PathBuf,
    ledger: Arc<Ledger>,
    /// Gates in use. Locked for map operations only.
    gates: Mutex<HashMap<u64, Weak<Gate>>>,
}

impl Claims {
    pub fn new(path: PathBuf, ledger: Arc<Ledger>) -> Self {
        Self { path, ledger, gates: Mutex::default() }
    }

    /// Waits until this caller alone holds `name`; `None` once the holder has made no transfer progress for `patience`. Calls `moved` on every progress.
    /// Dropping the future gives up.
    pub async fn claim(&self, name: &str, patience: Duration, moved: impl Fn()) -> io::Result<Option<Claim>> {
        // Half the range of file offsets, so that the end of the byte's range is also valid.
        let byte = xxh3_64(name.as_bytes()) >> 2;
        tokio::select! {
            biased;
            claim = self.turn(byte) => claim.map(Some),
            () = self.standstill(byte, patience, moved) => Ok(None),
        }
    }

    async fn turn(&self, byte: u64) -> io::Result<Claim> {
        let task = self.gate(byte).lock_owned().await;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(process) = RangeLock::try_range(&self.path, byte..byte + 1, Sharing::Exclusive)? {
                self.ledger.note_claim(byte);
                return Ok(Claim { _process: process, _task: task });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Returns once the holder of a claim has made no progress for this long. A new holder counts as progress.
    async fn standstill(&self, byte: u64, patience: Duration, moved: impl Fn()) {
        let (mut seen, mut since) = (self.ledger.progress_of_claim(byte), Instant::now());
        while since.elapsed() < patience {
            tokio::time::sleep(LONGEST_PAUSE.min(patience)).await;
            let now = self.ledger.progress_of_claim(byte);
            if now != seen {
                (seen, since) = (now, Instant::now());
                moved();
            }
        }
    }

    fn gate(&self, byte: u64) -> Arc<Gate> {
        let mut gates = self.gates.lock();
        if let Some(gate) = gates.get(&byte).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::new(()));
        gates.insert(byte, Arc::downgrade(&gate));
        gate
    }
}
