//! The memory budget of a process (`--memory-limit`), and its limit on requests in flight.
//!
//! The budget is divided into shares by use. Within a share a request is granted or waits as a whole, and its holder requests no more of the same
//! share before releasing it; a holder of one share waits for another only in this order: packing, spans, windows. So there are no cyclic waits.
//! Prefetch has its own share, so a reader that waits for bytes never queues behind bytes that no reader has asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::decode::DecoderPool;
use crate::error::{Error, ErrorKind};
use crate::layer::Windows;

/// Granularity of memory accounting, in bytes.
const PIECE: u64 = 1 << 10;
/// Shares are multiples of this fraction (1/n) of the limit.
const PARTS: u64 = 32;

/// Parts for recent spans if none are stored.
const UNFILLED: u64 = 4;

/// The default budget, in bytes.
pub const MEMORY_LIMIT: u64 = 256 << 20;
/// The smallest budget with which everything works, in bytes.
pub const MEMORY_LEAST: u64 = 32 << 20;

/// A use of memory, with a share of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Spans that a reader is waiting for.
    Demand,
    /// Spans that a reader will probably request soon.
    Prefetch,
    /// Decoder windows; indexes and trees of encrypted artifacts, which must not reach the disk under construction.
    Large,
    /// Packing and sending layers.
    Packing,
}

impl Use {
    const ALL: [Self; 4] = [Self::Demand, Self::Prefetch, Self::Large, Self::Packing];

    /// Its share, in parts. The remaining parts are for spans that the cache did not store.
    fn parts(self) -> u64 {
        match self {
            Self::Demand => 3,
            Self::Prefetch => 2,
            // 136 MiB by default: `zstd --long=27` and `--ultra -22` need 128.5.
            Self::Large => 17,
            Self::Packing => 9,
        }
    }
}

struct Inner {
    limit: u64,
    /// In the order of [`Use::ALL`].
    shares: [Arc<Semaphore>; 4],
    decoder_pool: DecoderPool,
    /// Decoders waiting for their window.
    waiting: AtomicUsize,
    readers: AtomicU64,
}

/// The memory that a process may use for reading and publishing. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

/// Granted memory, released on drop.
#[derive(Debug)]
pub struct Granted {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of this many bytes, at least [`MEMORY_LEAST`].
    pub fn new(limit: u64) -> Self {
        let limit = limit.max(MEMORY_LEAST);
        let share = |purpose| Arc::new(Semaphore::new(pieces(share_of(limit, purpose)) as usize));
        let (shares, decoder_pool) = (Use::ALL.map(share), DecoderPool::default());
        Self { inner: Arc::new(Inner { limit, shares, decoder_pool, waiting: AtomicUsize::new(0), readers: AtomicU64::new(0) }) }
    }

    /// Bytes available to one use in total.
    pub fn share(&self, purpose: Use) -> u64 {
        share_of(self.inner.limit, purpose)
    }

    /// Bytes of indexes of encrypted layers, or trees of encrypted artifacts, that may be kept for later.
    pub fn kept(&self) -> u64 {
        self.share(Use::Large) / 4
    }

    /// Bytes of recently fetched spans that may be kept. A process that does not fill the cache packs nothing either, so it keeps more.
    pub(super) fn recent(&self, fills_cache: bool) -> u64 {
        self.inner.limit / PARTS * if fills_cache { 1 } else { UNFILLED }
    }

    /// Waits for memory, first come, first served; a request for zero bytes does not wait. A request larger than the whole share is granted alone.
    ///
    /// # Errors
    /// None while the process lives.
    pub async fn take(&self, purpose: Use, bytes: u64) -> Result<Granted, Error> {
        let count = pieces(bytes.min(self.share(purpose)));
        let share = Use::ALL.iter().zip(&self.inner.shares).find(|(known, _)| **known == purpose).map(|(_, share)| Arc::clone(share));
        let share = share.ok_or_else(ended)?;
        let permit = share.acquire_many_owned(count).await.map_err(|_| ended())?;
        Ok(Granted { _permit: permit })
    }

    /// Waits for the memory of a decoder's window. Pooled decoders are dropped to make room.
    async fn take_window(&self, bytes: u64) -> Result<Granted, Error> {
        let mut taking = std::pin::pin!(self.take(Use::Large, bytes));
        if let Some(granted) = futures_util::FutureExt::now_or_never(&mut taking) {
            return granted;
        }
        // Set before the pool is cleared: nothing enters it from now on.
        let _waiting = Waiting::new(&self.inner.waiting);
        self.inner.decoder_pool.clear();
        taking.await
    }

    /// Decoders kept for the next sequential reader.
    pub(super) fn decoder_pool(&self) -> &DecoderPool {
        &self.inner.decoder_pool
    }

    /// Whether a decoder waits for memory, so that none may enter the pool.
    pub(super) fn is_short(&self) -> bool {
        self.inner.waiting.load(Ordering::SeqCst) > 0
    }

    /// A number unique to a reader.
    pub(super) fn next_reader(&self) -> u64 {
        self.inner.readers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Windows for Budget {
    fn grant(&self, bytes: u64) -> Result<Box<dyn Send>, Error> {
        let share = self.share(Use::Large);
        if bytes > share {
            let message = format!(
                "a zstd frame needs a window of {bytes} bytes, more than the {share} that --memory-limit leaves for it; {} MiB would do",
                (bytes * PARTS / Use::Large.parts()).div_ceil(1 << 20)
            );
            return Err(Error::unsupported(message));
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| Error::other(error.to_string()))?;
        let granted = runtime.block_on(self.take_window(bytes))?;
        Ok(Box::new(granted))
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn share_of(limit: u64, purpose: Use) -> u64 {
    limit / PARTS * purpose.parts()
}

fn pieces(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX).min(u32::MAX >> 4)
}

/// Trims a list of unused items, most recent last, to a count and a number of bytes; the most recent one always stays. Items without memory are removed
/// only by count.
pub fn trim<T>(kept: &mut VecDeque<T>, count: usize, memory: u64, bytes: impl Fn(&T) -> u64) {
    let mut total: u64 = kept.iter().map(&bytes).sum();
    let mut at = 0;
    while total > memory && at + 1 < kept.len() {
        match kept.get(at).map_or(0, &bytes) {
            0 => at += 1,
            size => {
                total -= size;
                kept.remove(at);
            }
        }
    }
    while kept.len() > count {
        kept.pop_front();
    }
}

/// Limits one mount's concurrent requests and first passes.
pub(super) struct Turns {
    demand: Arc<Semaphore>,
    prefetch: Arc<Semaphore>,
    passes: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new(requests: usize, passes: usize) -> Self {
        let turns = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        Self { demand: turns(requests), prefetch: turns(requests / 2), passes: turns(passes) }
    }

    /// Waits for a request slot.
    pub(super) async fn request(&self, purpose: Use) -> Result<OwnedSemaphorePermit, Error> {
        let turns = if purpose == Use::Prefetch { &self.prefetch } else { &self.demand };
        Arc::clone(turns).acquire_owned().await.map_err(|_| ended())
    }

    /// Waits for a first-pass slot.
    pub(super) async fn pass(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.passes).acquire_owned().await.map_err(|_| ended())
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Other, "reading has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_the_limit_and_each_holds_the_largest_window() {
        for limit in [0, MEMORY_LEAST, MEMORY_LIMIT, 1 << 40] {
            let budget = Budget::new(limit);
            let total: u64 = Use::ALL.iter().map(|purpose| budget.share(*purpose)).sum();
            assert!(budget.recent(false) - budget.recent(true) <= budget.share(Use::Packing));
            assert!(total + budget.recent(true) <= limit.max(MEMORY_LEAST), "{limit}");
        }
        assert!(Budget::new(MEMORY_LIMIT).share(Use::Large) > crate::layer::WINDOW_MOST + (1 << 20));
    }

    #[tokio::test]
    async fn requests_larger_than_a_share_run_alone_and_uses_do_not_block_each_other() {
        let budget = Budget::new(MEMORY_LEAST);
        let all = budget.take(Use::Demand, u64::MAX).await.unwrap();
        for purpose in [Use::Prefetch, Use::Large, Use::Packing] {
            budget.take(purpose, u64::MAX).await.unwrap();
        }
        let again = budget.clone();
        let waiting = tokio::spawn(async move { again.take(Use::Demand, 1).await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(all);
        waiting.await.unwrap().unwrap();
    }

    #[test]
    fn kept_decoders_are_bounded_in_number_and_memory() {
        let trimmed = |sizes: &[u64], count, memory| {
            let mut kept: VecDeque<u64> = sizes.iter().copied().collect();
            trim(&mut kept, count, memory, |size| *size);
            Vec::from(kept)
        };
        assert_eq!(trimmed(&[1, 0, 2, 3, 0, 4], 9, 7), [0, 3, 0, 4]);
        assert_eq!(trimmed(&[1, 0, 2, 3], 2, 100), [2, 3]);
        assert_eq!(trimmed(&[0, 9], 9, 1), [0, 9]);
        assert!(trimmed(&[], 9, 0).is_empty());
    }

    #[tokio::test]
    async fn a_window_above_the_share_is_an_error_that_names_the_limit() {
        let budget = Budget::new(64 << 20);
        let error = tokio::task::spawn_blocking(move || budget.grant(1 << 27).map(drop)).await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(
            error.message.contains("134217728") && error.message.contains("--memory-limit") && error.message.contains("241 MiB"),
            "{error}"
        );
    }
}
