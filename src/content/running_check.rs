//! The running check of a raw blob served unverified: its spans are hashed in order as they arrive, from memory or from the cache, until the whole
//! digest is known.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::BlobSource;
use crate::cache::{CachedStream, Layout};
use crate::error::{Error, ErrorKind};
use crate::layer::{self, LayerIndex, Resources};
use crate::oci::Hasher;

/// The state after the spans before `next`.
struct Progress {
    next: u32,
    /// Of all those spans; `None` once the last one was hashed.
    hasher: Option<Hasher>,
}

/// The running check of one raw blob.
pub(super) struct RunningCheck {
    /// Locked while spans are hashed, on blocking threads only.
    progress: Mutex<Progress>,
    /// SHA-256 of each hashed span: a refetched one must match. Locked only for a glance.
    hashed: Mutex<Vec<[u8; 32]>>,
    failure: OnceLock<Error>,
    /// The digest matches.
    held: AtomicBool,
}

/// The next step of the check.
pub(super) enum Wanting {
    /// This span, then the following ones.
    Span(u32),
    /// Nothing: it is complete.
    Nothing,
}

/// The state of a check.
pub(super) enum Verdict {
    /// Not all spans were seen yet.
    Open,
    /// The digest matches.
    Held(Box<LayerIndex>),
    /// The digest does not match.
    Failed,
}

impl RunningCheck {
    pub(super) fn new(source: &BlobSource) -> Self {
        let progress = Mutex::new(Progress { next: 0, hasher: Some(Hasher::new(source.descriptor.digest.algorithm())) });
        Self { progress, hashed: Mutex::default(), failure: OnceLock::new(), held: AtomicBool::new(false) }
    }

    /// Why nothing of the blob may be served any more.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// Whether the digest was verified.
    pub(super) fn has_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// The next span to hash. Blocks while another thread hashes.
    pub(super) fn wanting(&self, layout: &Layout) -> Wanting {
        let next = self.progress.lock().next;
        if next < layout.count() { Wanting::Span(next) } else { Wanting::Nothing }
    }

    /// Whether a span just fetched is consistent with the one hashed before, as far as known.
    pub(super) fn agrees(&self, number: u32, data: &[u8]) -> bool {
        let hashed = self.hashed.lock().get(number as usize).copied();
        hashed.is_none_or(|expected| expected == span_digest(data))
    }

    /// Hashes the next span.
    fn add(&self, progress: &mut Progress, number: u32, data: &[u8]) {
        self.hashed.lock().push(span_digest(data));
        if let Some(hasher) = &mut progress.hasher {
            hasher.update(data);
        }
        progress.next = number + 1;
    }

    /// Reports that a span has arrived, and hashes as far as spans are available. Blocks.
    pub(super) fn advance(
        &self,
        source: &BlobSource,
        layout: &Layout,
        cached: Option<&CachedStream>,
        fresh: Option<(u32, &[u8])>,
    ) -> Verdict {
        loop {
            // The thread that is hashing looks into the cache once more before it stops.
            let Some(mut progress) = self.progress.try_lock() else { return Verdict::Open };
            if let Some((number, data)) = fresh.filter(|(number, _)| *number == progress.next) {
                self.add(&mut progress, number, data);
            }
            while progress.next < layout.count() {
                let next = progress.next;
                let Some(Ok(Some(data))) = cached.map(|cached| cached.read_unproved(next, layout.span(next))) else { break };
                self.add(&mut progress, next, &data);
            }
            if progress.next >= layout.count() {
                return progress.hasher.take().map_or(Verdict::Open, |hasher| self.judge(source, hasher));
            }
            let next = progress.next;
            drop(progress);
            if !cached.is_some_and(|cached| cached.has(next)) {
                return Verdict::Open;
            }
        }
    }

    fn judge(&self, source: &BlobSource, hasher: Hasher) -> Verdict {
        let found = hasher.finish();
        let expected = source.descriptor.digest;
        if found == expected {
            self.held.store(true, Ordering::Release);
            return match layer::raw_index(found, source.descriptor.size, &self.hashed.lock(), &Resources::default()) {
                Ok(index) => Verdict::Held(Box::new(index)),
                Err(error) => {
                    tracing::warn!(%error, "{} has no index", source.label());
                    Verdict::Open
                }
            };
        }
        let message = format!(
            "{}: the registry's bytes do not match: expected {expected}, found {found} over {} bytes; it is no longer served",
            source.label(),
            source.descriptor.size,
        );
        tracing::error!("{message}");
        // The first failure is kept.
        let _ = self.failure.set(Error::new(ErrorKind::Integrity, message));
        Verdict::Failed
    }
}

fn span_digest(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}
