//! One blob or layer as a range reader: its index, fetching, verifying, unsealing, decompressing, caching.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ErrorKind;
use crate::layer::{Form, LayerIndex};
use crate::oci::{Descriptor, Repository};

/// Why content cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a caller can act on.
    pub kind: ErrorKind,
    /// What happened to which blob.
    pub message: String,
}

/// How a blob is sealed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealing {
    /// Not at all.
    None,
    /// In the oci-sync envelope.
    OciSync,
}

/// Which blob, and how it is meant.
#[derive(Clone, Debug)]
pub struct BlobSource {
    /// The repository that it is asked from.
    pub repository: Repository,
    /// Digest and claimed size.
    pub descriptor: Descriptor,
    /// Archive or raw.
    pub form: Form,
    /// Sealing.
    pub sealing: Sealing,
    /// A digest is what the user trusts, so nothing is served before the whole blob was checked.
    pub strict: bool,
}

/// How much of a stream has been checked against the digest that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// All of it, or every span by a digest of its own.
    Whole,
    /// Only the transport vouches for what is read now.
    Partial,
}

/// Opens blobs of one registry or layout through one cache. Cheap to clone.
#[derive(Clone)]
pub struct Contents {
    _inner: Arc<()>,
}

/// An open logical stream. Cheap to clone.
#[derive(Clone)]
pub struct ContentStream {
    _inner: Arc<()>,
}

impl Contents {
    /// The index of a blob: from the cache, or by one pass over the blob that also fills the cache.
    pub async fn index(&self, _source: &BlobSource) -> Result<LayerIndex, Error> {
        todo!()
    }

    /// The logical stream of a blob. An archive is indexed first; a raw blob costs nothing here.
    pub async fn open(&self, _source: &BlobSource) -> Result<ContentStream, Error> {
        todo!()
    }
}

impl ContentStream {
    /// Length of the stream in bytes (for a raw blob that was never read whole: as claimed).
    pub fn length(&self) -> u64 {
        todo!()
    }

    /// How far it is verified.
    pub fn verified(&self) -> Verified {
        todo!()
    }

    /// Bytes of a range, all of them or an error. Completes at once (without suspending) when everything is in
    /// the cache, so that a FUSE thread can answer by itself. Sequential calls prefetch.
    pub async fn read(&self, _range: Range<u64>) -> Result<Bytes, Error> {
        todo!()
    }
}
