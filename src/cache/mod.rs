//! The bounded local cache: spans of logical streams in sparse files, indexes and trees, pins, one byte budget.
//!
//! It knows digests and ranges, not registries. It never returns wrong bytes: a torn, flipped, zeroed or truncated span, a lost table, a power cut
//! or a killed process only cause misses. It never exceeds its budget, over all processes that share the directory, including bytes in flight.
//! Opening it never scans it.
//!
//! # On disk
//!
//! ```text
//! DIRECTORY (0700)/v2/
//!   ledger                  counters that all processes map          (ledger.rs)
//!   evict.lock structure.lock claims.lock                            locks, empty files
//!   streams/4e/sha256-4e1f….plain.FINGERPRINT/                       a stream: blob, protection, layout
//!     table                 layout, state and checksum of each span  (table.rs)
//!     INSTANCE.main         the stream, sparse, without large members (layout.rs)
//!     INSTANCE.START        a member of 1 MiB or more, from its own offset 0
//!   work/OWNER-NUMBER/      fills before their commit, streams on their way out
//!   documents/KIND/KEY.plain|sealed                                  (documents.rs, aging.rs)
//!   pins/NAME                                                        (pins.rs)
//! ```
//!
//! # Protocol
//!
//! The state of a span is a generation and whether it is present, in one shared atomic word. Every change of presence takes a new generation.
//!
//! - *Writers* reserve bytes in the ledger, lock the span's byte of the table file, write the bytes, then the checksum, then publish the state. A
//!   crash before that leaves a miss. Nothing is synced: anything lost in a power cut fails its checksum.
//! - *The evictor* (one process at a time) locks all bytes of a table file, so that no writer is active in the stream; withdraws states; then
//!   punches. It also punches absent neighbours, and leftovers of killed writers.
//! - *Readers* take no lock. They load the state, read, and load the state again: if it is unchanged, punching, which follows the withdrawal, had
//!   not begun when the read ended. A changed state is a miss, whatever was read. The generation also reveals an eviction and a new store in
//!   between.
//! - A process's first read of a span's generation reads all of it, compares the checksum, and remembers the verified state word. Later reads are
//!   one `pread` per file and a few atomic operations; the only lock is that of the file's slot, shared and held just to take a handle. A
//!   mismatch withdraws the span.
//! - *Unlinking* a stream (clear, replacement by a commit, emptied by the evictor) first marks its table dead, then renames the directory away,
//!   under the structure lock. Data files carry the instance named in the table, so an old table never meets new files. A holder of a dead
//!   stream continues reading its open files, and moves to the new one at its next store.
//!
//! Lock order: evictor, then structure, then table or span; a span's lock is never held while waiting for another. In the process, no mutex is held
//! across a system call, except those that open or lock files.
//!
//! Sealed streams hold chunks under a key derived from the artifact's key, the blob and a salt of that life of the stream, so no key position is
//! ever used for two contents.

mod aging;
mod cached;
mod claim;
mod config;
mod document_name;
mod documents;
mod evict;
mod fill;
mod held;
mod layout;
mod lease;
mod ledger;
mod pins;
mod present;
mod room;
mod scratch;
mod shared;
mod span_key;
mod stream;
mod stream_files;
mod table;
mod upkeep;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use cached::CachedStream;
pub use claim::Claim;
pub use config::{Config, Protection};
pub use documents::Document;
pub use fill::Fill;
pub use layout::Layout;
pub use present::Present;
pub use room::Room;
pub use table::Trust;
pub use upkeep::Usage;

use crate::error::Error;
use crate::oci::Digest;
use crate::sys::array::Scratch;
use held::Held;
use scratch::{ScratchFiles, UnnamedFiles};
use shared::{Shared, failed};
use stream::OpenStreams;

/// The cache of one directory. Cheap to clone.
#[derive(Clone)]
pub struct SpanCache {
    shared: Arc<Shared>,
    streams: Arc<OpenStreams>,
    /// Set if it is read without being filled.
    held: Option<Arc<Held>>,
}

impl SpanCache {
    /// Opens or creates the cache. Never scans it.
    ///
    /// # Errors
    /// Denied if the directory belongs to another user or others may write to it, NoSpace, Busy, Other.
    pub fn open(config: Config) -> Result<Self, Error> {
        let shared = Shared::open(config)?;
        let streams = Arc::new(OpenStreams::new(&shared));
        Ok(Self { shared, streams, held: None })
    }

    /// The same cache for a process that reads what is there and stores nothing: it holds new documents itself, large ones in unnamed files in
    /// this directory, and creates no streams.
    pub fn unfilled(&self, directory: Option<PathBuf>) -> Self {
        let scratch = match directory {
            Some(directory) => Scratch::on_disk(Arc::new(UnnamedFiles { directory, otherwise: ScratchFiles(Arc::clone(&self.shared)) })),
            None => self.scratch(),
        };
        Self { held: Some(Arc::new(Held::new(scratch))), ..self.clone() }
    }

    /// The same cache, filled again.
    pub fn filled(&self) -> Self {
        Self { held: None, ..self.clone() }
    }

    /// Whether what is read through it may be stored in it.
    pub fn is_filled(&self) -> bool {
        self.held.is_none()
    }

    /// The stream of a blob, for reads and single spans; created if missing. A different layout makes a different object.
    pub fn stream(&self, blob: &Digest, layout: &Layout, protection: &Protection) -> Result<CachedStream, Error> {
        CachedStream::open(&self.streams, blob, layout, protection, true)?
            .ok_or_else(|| Error::other(format!("cannot create a cache stream for {blob}: its new table is already broken")))
    }

    /// The same stream if something of it was stored before; creates nothing.
    pub fn begun_stream(&self, blob: &Digest, layout: &Layout, protection: &Protection) -> Result<Option<CachedStream>, Error> {
        CachedStream::open(&self.streams, blob, layout, protection, false)
    }

    /// Which spans of a stream are present, as stored plain or sealed. Uses nothing: no age changes, and nothing is created. `None` if it was never stored.
    pub fn present(&self, blob: &Digest, layout: &Layout, is_sealed: bool) -> Result<Option<Present>, Error> {
        Present::find(&self.streams, blob, layout, is_sealed)
    }

    /// Starts the first pass over a blob. Hold a [`Claim`] on it.
    pub fn fill(&self, blob: &Digest, protection: &Protection) -> Result<Fill, Error> {
        Fill::new(&self.shared, blob, protection)
    }

    /// Waits until this caller alone holds `name`, across threads and daemons, as long as the holder makes progress (see [`SpanCache::moved`]); `None`
    /// after `patience` without any. Calls `moved` on every progress. Dropping the future gives up.
    pub async fn claim(&self, name: &str, patience: Duration, moved: impl Fn()) -> Result<Option<Claim>, Error> {
        self.shared.claims.claim(name, patience, moved).await.map_err(failed("lock", &self.shared.root.join("claims.lock")))
    }

    /// Records that this many bytes arrived or were decoded here, for other daemons waiting for a claim.
    pub fn moved(&self, bytes: u64) {
        self.shared.ledger.moved(bytes);
    }

    /// A document (index, tree, manifest): mapped if plain, unsealed into memory if sealed. `kind` is a short word and part of the path. A broken one
    /// is a miss.
    pub fn document(&self, kind: &str, key: &str, protection: &Protection) -> Result<Option<Document>, Error> {
        if let Some(held) = self.held.as_ref().and_then(|held| held.get(kind, key)) {
            return Ok(Some(held));
        }
        documents::load(&self.shared, kind, key, protection)
    }

    /// The same, without counting as a use of it.
    pub fn peek_document(&self, kind: &str, key: &str, protection: &Protection) -> Result<Option<Document>, Error> {
        if let Some(held) = self.held.as_ref().and_then(|held| held.get(kind, key)) {
            return Ok(Some(held));
        }
        documents::peek(&self.shared, kind, key, protection)
    }

    /// Stores a document: written once, renamed into place; held by this process if the cache is not filled. It counts against the budget: if
    /// that is full, spans are evicted first, then the least recently used documents.
    ///
    /// # Errors
    /// NoSpace if it is larger than a quarter of the budget, or everything there is pinned or in flight.
    pub fn store_document(&self, kind: &str, key: &str, bytes: &[u8], protection: &Protection) -> Result<(), Error> {
        match &self.held {
            Some(held) => held.put(kind, key, bytes, protection),
            None => documents::store(&self.shared, kind, key, bytes, protection),
        }
    }

    /// Removes a document that turned out to be wrong.
    pub fn forget_document(&self, kind: &str, key: &str) -> Result<(), Error> {
        if let Some(held) = &self.held {
            held.forget(kind, key);
        }
        documents::forget(&self.shared, kind, key)
    }

    /// Exempts the streams of these blobs and the recorded documents from eviction under a name (an artifact's digest), replacing an earlier pin of that
    /// name.
    pub fn pin(&self, name: &str, blobs: &[Digest]) -> Result<(), Error> {
        pins::pin(&self.shared, name, blobs)
    }

    /// Starts recording which documents are read and stored through this open cache, for [`SpanCache::pin`].
    pub fn record_documents(&self) {
        self.shared.record_documents();
    }

    /// Removes a pin; `false` if it did not exist.
    pub fn unpin(&self, name: &str) -> Result<bool, Error> {
        let removed = pins::unpin(&self.shared, name)?;
        self.shared.hope_again();
        Ok(removed)
    }

    /// All pins by name, with their blobs.
    pub fn pins(&self) -> Result<Vec<(String, Vec<Digest>)>, Error> {
        pins::pins(&self.shared)
    }

    /// Unlinks all streams of one blob, pinned or not, in any layout and protection. Open files keep working.
    pub fn forget_stream(&self, blob: &Digest) -> Result<(), Error> {
        upkeep::forget_stream(&self.shared, blob)
    }

    /// Storage for large arrays under construction: files of this cache that count against its budget, unless it is not filled. Not for data
    /// of encrypted artifacts.
    pub fn scratch(&self) -> Scratch {
        match &self.held {
            Some(held) => held.scratch.clone(),
            None => Scratch::on_disk(Arc::new(ScratchFiles(Arc::clone(&self.shared)))),
        }
    }

    /// The budget for span data, in bytes.
    pub fn size(&self) -> u64 {
        self.shared.limit()
    }

    /// Bytes counted as used, without examining the disk; `None` before the first count.
    pub fn used(&self) -> u64 {
        self.shared.ledger.known().unwrap_or(0)
    }

    /// Usage figures. Walks the cache.
    pub fn usage(&self) -> Result<Usage, Error> {
        upkeep::usage(&self.shared)
    }

    /// Unlinks everything that is not pinned (everything if `pinned`; the pins themselves stay). Open files keep working, and their blocks are freed once
    /// every process has released them: see [`SpanCache::let_go`].
    pub fn clear(&self, pinned: bool) -> Result<(), Error> {
        upkeep::clear(&self.shared, pinned)
    }

    /// Closes this process's unlinked files. Reads in progress fetch them again.
    pub fn let_go(&self) {
        self.streams.let_go();
    }

    /// Counts bytes outside the cache, such as packed layers waiting to be sent, in the budget while the result is held; spans are evicted for them.
    /// `None` if there is no room. Blocks on the disk.
    pub fn room(&self, bytes: u64) -> Option<Room> {
        self.shared.lend(bytes)
    }

    /// Checks every span, plain or sealed, against its checksum; broken ones become misses. Returns (checked, broken).
    pub fn verify(&self) -> Result<(u64, u64), Error> {
        upkeep::verify(&self.shared, &self.streams)
    }
}
