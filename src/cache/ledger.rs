//! The ledger: a mapped file in which all processes of a cache directory account for its bytes.
//!
//! `used` is never less than the bytes occupied by span data, including bytes in flight. Writers reserve first. Only a recount (under the evictor
//! lock) and the holder of that lock decrease it, so an abandoned reservation can make it too large for a while but never too small. After a
//! reboot, or if the ledger is new in an old directory, it is unknown, which makes the first reservation recount.
//!
//! Each open cache holds a slot (a lock on one byte, which ends with the process) with the bytes it is currently writing, so that a recount can
//! add what is not on disk yet and ignore the dead. The slot also counts that cache's transfer progress, so that other processes can tell work
//! from a stall, and there are words that name the holder of each claim.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::durable::{self, RangeLock, Sharing};
use crate::sys::mapped::Words;

const MAGIC: u64 = u64::from_le_bytes(*b"ocifsLG1");
const USED: usize = 1;
const CLOCK: usize = 2;
const BOOT: usize = 3;
const SLOTS_AT: usize = 8;
/// Most caches sharing a directory at a time.
const SLOTS: usize = 1024;
/// Transfer progress by slot, in bytes.
const PROGRESS_AT: usize = SLOTS_AT + 2 * SLOTS;
/// The holder of a claim, by claim number: the number with the slot in its lowest bits.
const HOLDERS_AT: usize = PROGRESS_AT + SLOTS;
const HOLDERS: usize = 1024;
const LENGTH: u64 = ((HOLDERS_AT + HOLDERS) * size_of::<u64>()) as u64;
/// More than any limit, but far from overflow.
const UNKNOWN: u64 = u64::MAX / 4;

/// The shared counters of a cache directory.
pub struct Ledger {
    words: Words,
    path: PathBuf,
    slot: usize,
    nonce: u64,
    _slot_lock: RangeLock,
}

impl Ledger {
    /// Opens or creates the ledger and takes a slot. `None` if all slots are taken.
    pub fn open(path: &Path) -> io::Result<Option<Arc<Self>>> {
        let file = durable::open_private(path, true)?;
        let Some(_first) = RangeLock::range(path, 0..1, Sharing::Exclusive, Duration::from_secs(10))? else {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        };
        // Never shortened: another process may have mapped it.
        if file.metadata()?.len() < LENGTH {
            durable::make_room(&file, 0..LENGTH)?;
        }
        let words = Words::map(&file)?;
        let boot = boot_identity();
        let word = |at: usize| words.words().get(at);
        if let (Some(magic), Some(used), Some(last_boot)) = (word(0), word(USED), word(BOOT))
            && (magic.load(Ordering::SeqCst) != MAGIC || last_boot.load(Ordering::SeqCst) != boot)
        {
            used.store(UNKNOWN, Ordering::SeqCst);
            last_boot.store(boot, Ordering::SeqCst);
            magic.store(MAGIC, Ordering::SeqCst);
        }
        for slot in 0..SLOTS {
            let byte = slot as u64 + 1;
            let Some(lock) = RangeLock::try_range(path, byte..byte + 1, Sharing::Exclusive)? else { continue };
            let nonce = rand::random::<u64>() | 1;
            if let (Some(reserved), Some(owner)) = (word(SLOTS_AT + 2 * slot), word(SLOTS_AT + 2 * slot + 1)) {
                reserved.store(0, Ordering::SeqCst);
                owner.store(nonce, Ordering::SeqCst);
            }
            return Ok(Some(Arc::new(Self { words, path: path.to_owned(), slot, nonce, _slot_lock: lock })));
        }
        Ok(None)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        // The map is at least LENGTH bytes long and every index is below that; the fallback keeps this total.
        static NOWHERE: AtomicU64 = AtomicU64::new(UNKNOWN);
        self.words.words().get(at).unwrap_or(&NOWHERE)
    }

    fn reserved(&self, slot: usize) -> &AtomicU64 {
        self.word(SLOTS_AT + 2 * slot)
    }

    /// Bytes that are, or are about to be, on disk: never an underestimate.
    pub fn used(&self) -> u64 {
        self.word(USED).load(Ordering::SeqCst)
    }

    /// The same, if counted since boot.
    pub fn known(&self) -> Option<u64> {
        Some(self.used()).filter(|used| *used < UNKNOWN)
    }

    /// Bytes stored since the cache was created: the clock for comparing uses. Shared by all processes, and independent of the wall clock.
    pub fn now(&self) -> u64 {
        self.word(CLOCK).load(Ordering::Relaxed)
    }

    /// Advances the clock.
    pub fn advance(&self, bytes: u64) -> u64 {
        self.word(CLOCK).fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes)
    }

    /// Sets the clock to at least the newest use seen, for a ledger that was lost.
    pub fn clock_at_least(&self, seen: u64) {
        self.word(CLOCK).fetch_max(seen, Ordering::Relaxed);
    }

    /// Reserves `bytes` if that stays within `limit`.
    pub fn reserve(self: &Arc<Self>, bytes: u64, limit: u64) -> Option<Reservation> {
        // The slot first: a recount that sees the new total must also see the slot, or the finished write.
        self.reserved(self.slot).fetch_add(bytes, Ordering::SeqCst);
        let taken =
            self.word(USED).try_update(Ordering::SeqCst, Ordering::SeqCst, |used| used.checked_add(bytes).filter(|total| *total <= limit));
        if taken.is_ok() {
            return Some(Reservation { ledger: Arc::clone(self), bytes });
        }
        self.reserved(self.slot).fetch_sub(bytes, Ordering::SeqCst);
        None
    }

    /// Bytes in flight of all live caches. Clears dead slots.
    pub fn in_flight(&self) -> io::Result<u64> {
        let mut total = 0_u64;
        for slot in 0..SLOTS {
            let reserved = self.reserved(slot);
            if reserved.load(Ordering::SeqCst) == 0 {
                continue;
            }
            match self.is_live(slot)? {
                Some(_dead) => reserved.store(0, Ordering::SeqCst),
                None => total = total.saturating_add(reserved.load(Ordering::SeqCst)),
            }
        }
        Ok(total)
    }

    /// `None` if a live cache holds the slot, else the lock on it.
    fn is_live(&self, slot: usize) -> io::Result<Option<RangeLock>> {
        let byte = slot as u64 + 1;
        RangeLock::try_range(&self.path, byte..byte + 1, Sharing::Exclusive)
    }

    /// Corrects `used` after a recount that started when it was `before` and found `truth`. Bytes reserved meanwhile stay added. The caller holds the
    /// evictor lock.
    pub fn correct(&self, before: u64, truth: u64) {
        if before >= UNKNOWN {
            // Nothing can have been reserved while it was unknown.
            self.word(USED).store(truth, Ordering::SeqCst);
        } else if truth >= before {
            self.word(USED).fetch_add(truth - before, Ordering::SeqCst);
        } else {
            self.give_back(before - truth);
        }
    }

    /// Subtracts bytes removed from the disk. The caller holds the evictor lock.
    pub fn give_back(&self, bytes: u64) {
        self.word(USED).update(Ordering::SeqCst, Ordering::SeqCst, |used| used.saturating_sub(bytes));
    }

    /// Records transfer progress of this cache.
    pub fn moved(&self, bytes: u64) {
        self.word(PROGRESS_AT + self.slot).fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records that this cache now holds the claim with this number.
    pub fn note_claim(&self, claim: u64) {
        self.holder(claim).store(claim - claim % SLOTS as u64 + self.slot as u64, Ordering::Relaxed);
    }

    /// The progress of the last process to hold the claim. `None` if unknown.
    pub fn progress_of_claim(&self, claim: u64) -> Option<u64> {
        let noted = self.holder(claim).load(Ordering::Relaxed);
        let slot = noted % SLOTS as u64;
        (noted - slot == claim - claim % SLOTS as u64).then(|| self.word(PROGRESS_AT + slot as usize).load(Ordering::Relaxed))
    }

    fn holder(&self, claim: u64) -> &AtomicU64 {
        self.word(HOLDERS_AT + (claim % HOLDERS as u64) as usize)
    }

    /// Name prefix of our temporary directories.
    pub fn owner_name(&self) -> String {
        format!("{}-{:016x}", self.slot, self.nonce)
    }

    /// Whether the owner named in a temporary directory's prefix is alive.
    pub fn owner_is_alive(&self, name: &str) -> io::Result<bool> {
        let mut parts = name.split('-');
        let slot = parts.next().and_then(|text| text.parse::<usize>().ok()).filter(|slot| *slot < SLOTS);
        let nonce = parts.next().and_then(|text| u64::from_str_radix(text, 16).ok());
        let (Some(slot), Some(nonce)) = (slot, nonce) else { return Ok(false) };
        Ok(self.word(SLOTS_AT + 2 * slot + 1).load(Ordering::SeqCst) == nonce && self.is_live(slot)?.is_none())
    }
}

/// Bytes that may be written now. Dropping it ends the write; the bytes stay counted as used.
pub struct Reservation {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Reservation {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.reserved(self.ledger.slot).fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Changes with every reboot: only then can mapped counters be older than the files.
pub fn boot_identity() -> u64 {
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |text| xxh3_64(&text))
}
