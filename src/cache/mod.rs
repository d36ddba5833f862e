//! The bounded local cache: spans of logical streams in sparse files, indexes and trees, pins, one byte budget.
//!
//! It knows digests and ranges, not registries. It never answers wrong bytes: a torn, flipped, zeroed or truncated
//! span, a lost table, a power cut or a killed process make misses. It never holds more than its budget, over all
//! processes that share the directory, bytes in flight included. Opening it never scans it.
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
//! The state of a span is a generation and whether it is present, in one shared atomic word. Presence changes take a
//! new generation.
//!
//! - *Writers* reserve bytes in the ledger, take the lock on the span's byte of the table file, write the bytes, then
//!   the checksum, then publish the state. A crash before that leaves a miss. Nothing is synced: what a power cut
//!   loses fails its checksum.
//! - *The evictor* (one process at a time) takes the lock on all bytes of a table file, so no writer is at work in the
//!   stream; withdraws states; then punches. It punches neighbours that are absent too, and what killed writers left.
//! - *Readers* take no lock. They load the state, read, and load the state again: unchanged means that the punching,
//!   which comes after the withdrawal, had not begun when the read ended. A changed state is a miss, whatever was
//!   read. The generation makes an eviction and a new store in between visible too.
//! - The first read of a generation of a span by each process reads all of it and compares the checksum, and remembers
//!   the state word that held. Later reads are one `pread` a file and a few atomic operations; the only lock is that of the
//!   file's slot, shared and held just to take a handle. A mismatch withdraws the span.
//! - *Unlinking* a stream (clear, replacement by a commit, emptied by the evictor) first marks its table dead, then
//!   renames the directory away, under the structure lock. Data files carry the instance that the table names, so an
//!   old table never meets new files. A holder of a dead stream reads on from the files it has open, and moves to the
//!   new one when it next stores.
//!
//! Lock order: evictor, then structure, then table or span; a span's lock is never held while waiting for another.
//! In the process, no mutex is held across a system call but those that open or lock files.
//!
//! Sealed streams hold chunks under a key derived from the artifact's key, the blob and a salt of that life of the
//! stream, so no position of a key is ever used for two contents.

mod aging;
mod cached;
mod claim;
mod config;
mod document_name;
mod documents;
mod evict;
mod fill;
mod layout;
mod ledger;
mod pins;
mod room;
mod scratch;
mod shared;
mod stream;
mod stream_files;
mod table;
mod upkeep;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use cached::CachedStream;
pub use claim::Claim;
pub use config::{Config, Protection};
pub use documents::Document;
pub use fill::Fill;
pub use layout::Layout;
pub use room::Room;
pub use table::Trust;
pub use upkeep::Usage;

use crate::error::Error;
use crate::oci::Digest;
use crate::sys::array::Scratch;
use shared::{Shared, failed};
use stream::OpenStreams;

/// The cache of one directory. Cheap to clone.
#[derive(Clone)]
pub struct SpanCache {
    shared: Arc<Shared>,
    streams: Arc<OpenStreams>,
}

impl SpanCache {
    /// Opens or makes the cache. Never scans it.
    ///
    /// # Errors
    /// Denied if the directory belongs to another user or others may write to it, NoSpace, Busy, Other.
    pub fn open(config: Config) -> Result<Self, Error> {
        let shared = Shared::open(config)?;
        let streams = Arc::new(OpenStreams::new(&shared));
        Ok(Self { shared, streams })
    }

    /// The stream of a blob, ready for reads and single spans. A stream that is cut differently is another object.
    pub fn stream(&self, blob: &Digest, layout: &Layout, protection: &Protection) -> Result<CachedStream, Error> {
        CachedStream::new(&self.streams, blob, layout, protection)
    }

    /// Begins the first pass over a blob. Hold a [`Claim`] on it.
    pub fn fill(&self, blob: &Digest, protection: &Protection) -> Result<Fill, Error> {
        Fill::new(&self.shared, blob, protection)
    }

    /// Waits until this caller alone holds `name`, across threads and daemons, as long as its holder makes progress (see
    /// [`SpanCache::moved`]); `None` once nothing moved there for `patience`. Calls `moved` whenever something did.
    /// Dropping the future gives up.
    pub async fn claim(&self, name: &str, patience: Duration, moved: impl Fn()) -> Result<Option<Claim>, Error> {
        self.shared.claims.claim(name, patience, moved).await.map_err(failed("lock", &self.shared.root.join("claims.lock")))
    }

    /// Notes that so many bytes arrived or were decoded here, for other daemons that wait for a claim.
    pub fn moved(&self, bytes: u64) {
        self.shared.ledger.moved(bytes);
    }

    /// A document (index, tree, manifest): mapped if plain, opened into memory if sealed. `kind` is a short word and
    /// part of the path. A broken one is a miss.
    pub fn document(&self, kind: &str, key: &str, protection: &Protection) -> Result<Option<Document>, Error> {
        documents::load(&self.shared, kind, key, protection)
    }

    /// Stores a document: written once, renamed into place. It counts in the budget; where that is full, spans go first,
    /// then the documents that were not used for longest.
    ///
    /// # Errors
    /// NoSpace if it is larger than a quarter of the budget, or what is there is pinned or in flight.
    pub fn store_document(&self, kind: &str, key: &str, bytes: &[u8], protection: &Protection) -> Result<(), Error> {
        documents::store(&self.shared, kind, key, bytes, protection)
    }

    /// Forgets a document that turned out wrong.
    pub fn forget_document(&self, kind: &str, key: &str) -> Result<(), Error> {
        documents::forget(&self.shared, kind, key)
    }

    /// Exempts the streams of these blobs from eviction under a name (an artifact's digest), and the documents that were
    /// recorded; replaces what the name stood for before.
    pub fn pin(&self, name: &str, blobs: &[Digest]) -> Result<(), Error> {
        pins::pin(&self.shared, name, blobs)
    }

    /// From now on remembers which documents are read and stored through this open cache, for [`SpanCache::pin`].
    pub fn record_documents(&self) {
        self.shared.record_documents();
    }

    /// Removes a pin; `false` if there was none.
    pub fn unpin(&self, name: &str) -> Result<bool, Error> {
        let removed = pins::unpin(&self.shared, name)?;
        self.shared.hope_again();
        Ok(removed)
    }

    /// All pins by name, with their blobs.
    pub fn pins(&self) -> Result<Vec<(String, Vec<Digest>)>, Error> {
        pins::pins(&self.shared)
    }

    /// Unlinks all streams of one blob, pinned or not, however they are cut or protected. Open files keep working.
    pub fn forget_stream(&self, blob: &Digest) -> Result<(), Error> {
        upkeep::forget_stream(&self.shared, blob)
    }

    /// Where large arrays lie while something is being made: in files of this cache that count in its budget. Not for
    /// what comes from encrypted artifacts.
    pub fn scratch(&self) -> Scratch {
        Scratch::on_disk(Arc::new(scratch::ScratchFiles(Arc::clone(&self.shared))))
    }

    /// Bytes of span data that fit.
    pub fn size(&self) -> u64 {
        self.shared.limit()
    }

    /// Bytes that are counted as used, without a look at the disk; none before they were counted for the first time.
    pub fn used(&self) -> u64 {
        self.shared.ledger.known().unwrap_or(0)
    }

    /// Figures. Walks the cache.
    pub fn usage(&self) -> Result<Usage, Error> {
        upkeep::usage(&self.shared)
    }

    /// Unlinks everything that is not pinned (everything with `pinned`; the pins themselves stay). Open files keep
    /// working, and their blocks are free once every process has let go of them: see [`SpanCache::let_go`].
    pub fn clear(&self, pinned: bool) -> Result<(), Error> {
        upkeep::clear(&self.shared, pinned)
    }

    /// Closes files of this process that were unlinked. Reads that go on fetch them again.
    pub fn let_go(&self) {
        self.streams.let_go();
    }

    /// Counts bytes that lie outside of the cache, such as packed layers that wait to be sent, in the budget for as long
    /// as the answer is held; spans make way for them. `None` if there is no room. Blocks on the disk.
    pub fn room(&self, bytes: u64) -> Option<Room> {
        self.shared.lend(bytes)
    }

    /// Checks every span, plain or sealed, against its checksum; broken ones become misses. (checked, broken).
    pub fn verify(&self) -> Result<(u64, u64), Error> {
        upkeep::verify(&self.shared, &self.streams)
    }
}
