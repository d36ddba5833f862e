//! The bounded local cache: spans of logical streams in sparse files, indexes and trees, pins, one byte budget.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::seal::ChunkKey;

/// Why the cache did not do what was asked. A miss is no error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// NoSpace, or Other for failing disks.
    pub kind: ErrorKind,
    /// What happened to which file.
    pub message: String,
}

/// Where the cache lies and how large it may grow.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; made with mode 0700.
    pub directory: PathBuf,
    /// Most bytes of span data over all daemons that share the directory.
    pub size: u64,
    /// Bytes of the file system that are left free.
    pub min_free: u64,
}

/// How stored bytes are protected.
#[derive(Clone)]
pub enum Protection {
    /// As they are.
    Plain,
    /// Sealed again chunk by chunk, since they come from an encrypted artifact.
    Sealed(ChunkKey),
}

/// Spans and members of a stream: what decides where bytes lie in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLayout {
    /// Start of every span, ascending from 0; the last ends at `length`.
    pub starts: Arc<[u64]>,
    /// Length of the stream.
    pub length: u64,
    /// Ranges of members of 1 MiB or more, ascending; each has a file of its own.
    pub members: Arc<[Range<u64>]>,
}

/// The cache of one directory. Cheap to clone.
#[derive(Clone)]
pub struct SpanCache {
    _inner: Arc<()>,
}

/// One cached stream.
pub struct CachedStream {
    _inner: (),
}

/// A stream being filled for the first time, span after span, invisible to readers until committed.
pub struct Fill {
    _inner: (),
}

/// The right to compute something that no other thread or daemon computes meanwhile.
pub struct Claim {
    _inner: (),
}

/// Figures for `cache info` and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of span data on disk.
    pub spans: u64,
    /// Bytes of indexes and trees.
    pub indexes: u64,
    /// Bytes of span data that belong to pinned streams.
    pub pinned: u64,
    /// Number of streams with any data.
    pub streams: u64,
    /// The budget.
    pub size: u64,
}

impl SpanCache {
    /// Opens or makes the cache. Never scans it.
    pub fn open(_config: Config) -> Result<Self, Error> {
        todo!()
    }

    /// The stream of a blob, ready for reads and single spans.
    pub fn stream(&self, _blob: &Digest, _layout: &StreamLayout, _protection: &Protection) -> Result<CachedStream, Error> {
        todo!()
    }

    /// Begins the first pass over a blob. Hold a [`Claim`] on it.
    pub fn fill(&self, _blob: &Digest, _protection: &Protection) -> Result<Fill, Error> {
        todo!()
    }

    /// Waits until this caller alone holds `name`, across threads and daemons. Dropping the future gives up.
    pub async fn claim(&self, _name: &str) -> Result<Claim, Error> {
        todo!()
    }

    /// A document kept apart from the data budget (index, tree): mapped if plain, opened into memory if sealed.
    /// `kind` is a short word and part of the path. A broken one is a miss.
    pub fn document(&self, _kind: &str, _key: &str, _protection: &Protection) -> Result<Option<Arc<dyn AsRef<[u8]> + Send + Sync>>, Error> {
        todo!()
    }

    /// Stores a document: written once, renamed into place.
    pub fn store_document(&self, _kind: &str, _key: &str, _bytes: &[u8], _protection: &Protection) -> Result<(), Error> {
        todo!()
    }

    /// Forgets a document that turned out wrong.
    pub fn forget_document(&self, _kind: &str, _key: &str) -> Result<(), Error> {
        todo!()
    }

    /// Exempts the streams of these blobs from eviction under a name (an artifact's digest), or stops that.
    pub fn pin(&self, _name: &str, _blobs: &[Digest]) -> Result<(), Error> {
        todo!()
    }

    /// Removes a pin; `false` if there was none.
    pub fn unpin(&self, _name: &str) -> Result<bool, Error> {
        todo!()
    }

    /// Figures.
    pub fn usage(&self) -> Result<Usage, Error> {
        todo!()
    }

    /// Unlinks everything that is not pinned (everything with `pinned`). Open files keep working.
    pub fn clear(&self, _pinned: bool) -> Result<(), Error> {
        todo!()
    }

    /// Checks every plain span against its checksum; broken ones become misses. (checked, broken).
    pub fn verify(&self) -> Result<(u64, u64), Error> {
        todo!()
    }
}

impl CachedStream {
    /// Part of a span (offsets in the stream), if the span is here and whole.
    pub fn read(&self, _span: u32, _within: Range<u64>) -> Result<Option<Bytes>, Error> {
        todo!()
    }

    /// Whether a span is here.
    pub fn has(&self, _span: u32) -> bool {
        todo!()
    }

    /// Keeps a verified span. `false` if the budget (all pinned or in flight) leaves no room: not an error.
    pub fn store(&self, _span: u32, _data: &[u8]) -> Result<bool, Error> {
        todo!()
    }
}

impl Fill {
    /// The next bytes of the stream down to its end are a member with a file of its own.
    pub fn member(&mut self, _stream: Range<u64>) -> Result<(), Error> {
        todo!()
    }

    /// The next span. `false` if there is no room for it: it is left out, the fill goes on.
    pub fn span(&mut self, _data: &[u8]) -> Result<bool, Error> {
        todo!()
    }

    /// Makes everything visible, now that the blob's digest held. Dropping instead discards it.
    pub fn commit(self) -> Result<(), Error> {
        todo!()
    }
}
