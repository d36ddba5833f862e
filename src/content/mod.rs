//! One blob or layer as a range reader: its index, fetching, verifying, unsealing, decompressing, caching.
//!
//! Moves bytes from a registry to a reader: the first streaming pass, later fetches of single spans, trust before a blob is complete, prefetch, and
//! the memory bound for all of it. Guarantees that everything it serves belongs to the requested digest (or says [`Verified::Partial`]). Knows
//! nothing about manifests, trees or paths.
//!
//! # Files
//!
//! - `plan` chooses how a blob is read, `contents` opens it, `readers` and `reader` share it, `stream` is what callers hold
//! - `reading` answers a range from cached spans, `in_flight` ones and new ones from `fetch`; `prefetch` looks ahead, `recent` remembers; `presence` says what is here
//! - `pass` reads a blob once completely and indexes it; `running_check` verifies a raw one while it is served; `download` bypasses the cache
//! - `blob_bytes` reads a blob as stored; `input` and `decode` turn that into stream bytes; `sealed` opens envelopes; `guide`, `attached_index`, `table` and `verdicts` use indexes and tables of others
//! - `spool` holds whole blobs for a pull, which does not fill the cache
//! - `budget` bounds memory, `names` are keys of the cache, `shared` is the state of a mount

mod attached_index;
mod blob_bytes;
mod budget;
mod contents;
mod decode;
mod download;
mod fetch;
mod guide;
mod in_flight;
mod input;
mod names;
mod parallel;
mod pass;
mod plan;
mod prefetch;
mod presence;
mod reader;
mod readers;
mod reading;
mod recent;
mod running_check;
mod sealed;
mod shared;
mod spool;
mod stream;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod verdicts;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use attached_index::LARGEST_INDEX;
pub use budget::{Budget, Granted, MEMORY_LEAST, MEMORY_LIMIT, Use, trim};
pub use contents::Contents;
pub use download::Download;
pub use guide::Guide;
pub use names::stream_keys;
pub use presence::Presence;
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

/// A blob, and how to interpret it.
#[derive(Clone, Debug)]
pub struct BlobSource {
    /// The repository to request it from.
    pub repository: Repository,
    /// Digest and claimed size.
    pub descriptor: Descriptor,
    /// Archive or raw.
    pub form: Form,
    /// Sealing.
    pub sealing: Sealing,
    /// The user trusts a digest, so nothing is served before the whole blob is verified.
    pub strict: bool,
    /// Lets it be read by ranges at once.
    pub guide: Option<Guide>,
}

impl BlobSource {
    /// Whether it is raw and a single span: its own digest verifies it, so it needs no index.
    pub fn is_small(&self) -> bool {
        plan::is_single(self.form, self.is_sealed(), self.descriptor.size)
    }

    /// Whether its bytes are encrypted.
    pub fn is_sealed(&self) -> bool {
        self.sealing != Sealing::None
    }

    /// Whether it is read by its table of contents.
    fn has_table(&self) -> bool {
        self.guide.as_ref().is_some_and(Guide::is_table)
    }

    /// Whether the manifest does not vouch for what lets it be read at once.
    pub fn is_referred(&self) -> bool {
        self.guide.as_ref().is_some_and(Guide::is_referred)
    }

    /// The blob's name in messages.
    fn label(&self) -> String {
        format!("blob {} of {}", self.descriptor.digest.short(), self.repository)
    }
}

/// How much of a stream was verified against the requested digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// All of it, or every span by its own digest.
    Whole,
    /// The fetched bytes by their digests in an index that only a referrer vouches for.
    Index,
    /// Only the transport vouches for the bytes being read.
    Partial,
    /// Nothing was read yet, and nothing will be served before it is verified.
    Unread,
}

/// When a blob may be served before it is verified as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyPolicy {
    /// If the transport vouches for the registry and no digest was requested.
    #[default]
    Auto,
    /// Never.
    Strict,
    /// Always: the recipient verifies the bytes too, and gets the last byte only once the digest matches.
    Relayed,
}

/// The services and limits for reading.
#[derive(Clone)]
pub struct Config {
    /// Where blobs come from.
    pub pull: Arc<dyn Pull>,
    /// Where they are cached.
    pub cache: SpanCache,
    /// If the cache is not filled: a directory on whose file system blobs read whole wait, unnamed, until their content was read.
    pub spool: Option<PathBuf>,
    /// Passphrases.
    pub keys: KeyRing,
    /// When a blob may be served unverified.
    pub verify: VerifyPolicy,
    /// Limit for waits without progress.
    pub io_timeout: Duration,
    /// Concurrent requests for spans; half as many again for prefetch.
    pub concurrency: usize,
    /// Concurrent first passes. Each holds a few MiB.
    pub passes: usize,
    /// The memory budget, shared with the rest of the process.
    pub budget: Budget,
}

impl Config {
    /// The defaults: no passphrases, `auto`, 60 s, 8 requests, 3 passes, 256 MiB.
    pub fn new(pull: Arc<dyn Pull>, cache: SpanCache) -> Self {
        Self {
            pull,
            cache,
            spool: None,
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
    /// Bytes that sealing adds to the blob.
    fn overhead(self) -> u64 {
        match self {
            Self::None => 0,
            Self::OciSync => (ENVELOPE_HEADER + ENVELOPE_TAG) as u64,
        }
    }
}
