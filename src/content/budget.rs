//! How much memory and how many requests are in flight, with prefetch apart from demand.
//!
//! Prefetch has a share of its own, so a reader that waits for bytes never queues behind bytes that nobody has
//! asked for yet.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Config, Error};
use crate::error::ErrorKind;

/// Memory is counted in pieces of this size.
const PIECE: u64 = 1 << 10;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// A reader waits.
    Demand,
    /// A reader will probably ask soon.
    Prefetch,
}

struct Share {
    pieces: u32,
    memory: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// Permits of one process.
pub(super) struct Budget {
    demand: Share,
    prefetch: Share,
    passes: Arc<Semaphore>,
}

impl Budget {
    pub(super) fn new(config: &Config) -> Self {
        let share = |memory: u64, requests: usize| {
            let pieces = u32::try_from(memory / PIECE).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
            Share { pieces, memory: Arc::new(Semaphore::new(pieces as usize)), requests: Arc::new(Semaphore::new(requests.max(1))) }
        };
        Self {
            demand: share(config.memory / 2, config.concurrency),
            prefetch: share(config.memory / 4, config.concurrency / 2),
            passes: Arc::new(Semaphore::new(config.passes.max(1))),
        }
    }

    /// Bytes that recently fetched spans may take.
    pub(super) fn recent(config: &Config) -> u64 {
        config.memory / 4
    }

    fn share(&self, rank: Rank) -> &Share {
        match rank {
            Rank::Demand => &self.demand,
            Rank::Prefetch => &self.prefetch,
        }
    }

    /// Waits for memory. What is larger than the whole share gets all of it.
    pub(super) async fn memory(&self, rank: Rank, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        let share = self.share(rank);
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(share.pieces).clamp(1, share.pieces);
        Arc::clone(&share.memory).acquire_many_owned(pieces).await.map_err(closed)
    }

    /// Waits for the turn of one request.
    pub(super) async fn request(&self, rank: Rank) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.share(rank).requests).acquire_owned().await.map_err(closed)
    }

    /// Waits for the turn of one first pass.
    pub(super) async fn pass(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.passes).acquire_owned().await.map_err(closed)
    }
}

fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Other, "reading has ended")
}
