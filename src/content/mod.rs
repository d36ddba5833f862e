//! One blob or layer as a range reader: its index, fetching, verifying, unsealing, decompressing, caching.
//!
//! Owns the way of bytes from a registry to a reader: the first streaming pass, later fetches of single spans,
//! what is trusted before a blob is whole, prefetch, and the bound on memory while all that happens. Promises
//! that what it serves belongs to the digest that was asked for (or says [`Verified::Partial`]). Knows nothing
//! of manifests, trees or paths.

mod attached_index;
mod budget;
mod contents;
mod decode;
mod download;
mod fetch;
mod in_flight;
mod input;
mod names;
mod pass;
mod plan;
mod prefetch;
mod reader;
mod readers;
mod reading;
mod recent;
mod running_check;
mod sealed;
mod shared;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

pub use budget::{Budget, Granted, MEMORY_LEAST, MEMORY_LIMIT, Use, trim};
pub use contents::Contents;
pub use download::Download;
pub use names::stream_keys;
pub use sealed::keys::{KeyRing, Lent, PassphraseSource};
pub use stream::ContentStream;

use crate::cache::SpanCache;
use crate::layer::Form;
use crate::oci::{Descriptor, Repository};
use crate::registry::Pull;
use crate::seal::{ENVELOPE_HEADER, ENVELOPE_TAG};

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
    /// The blob that is said to hold its index.
    pub index: Option<Descriptor>,
}

impl BlobSource {
    /// The blob as messages name it.
    fn label(&self) -> String {
        format!("blob {} of {}", self.descriptor.digest.short(), self.repository)
    }
}

/// How much of a stream has been checked against the digest that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// All of it, or every span by a digest of its own.
    Whole,
    /// Only the transport vouches for what is read now.
    Partial,
    /// Nothing was read yet, and nothing will be served before it was checked.
    Unread,
}

/// When a blob may be served before the whole of it was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyPolicy {
    /// Where the transport vouches for the registry and no digest was asked for.
    #[default]
    Auto,
    /// Never.
    Strict,
    /// Always: what is read goes to somebody who checks it too, and who gets the last byte only once the digest holds.
    Relayed,
}

/// The services and limits that reading uses.
#[derive(Clone)]
pub struct Config {
    /// Where blobs come from.
    pub pull: Arc<dyn Pull>,
    /// Where they are kept.
    pub cache: SpanCache,
    /// Passphrases.
    pub keys: KeyRing,
    /// When a blob may be served unchecked.
    pub verify: VerifyPolicy,
    /// Waits without progress end after this time.
    pub io_timeout: Duration,
    /// Parallel requests for spans; half as many again for prefetch.
    pub concurrency: usize,
    /// Parallel first passes. Each holds a few MiB.
    pub passes: usize,
    /// The memory that they share with everything else of the process.
    pub budget: Budget,
}

impl Config {
    /// The defaults: no passphrases, `auto`, 60 s, 8 requests, 3 passes, 256 MiB.
    pub fn new(pull: Arc<dyn Pull>, cache: SpanCache) -> Self {
        Self {
            pull,
            cache,
            keys: KeyRing::default(),
            verify: VerifyPolicy::Auto,
            io_timeout: Duration::from_secs(60),
            concurrency: 8,
            passes: 3,
            budget: Budget::new(MEMORY_LIMIT),
        }
    }
}

impl Sealing {
    /// Bytes that the seal adds to the blob.
    fn overhead(self) -> u64 {
        match self {
            Self::None => 0,
            Self::OciSync => (ENVELOPE_HEADER + ENVELOPE_TAG) as u64,
        }
    }
}
