//! The running check of a raw blob served unverified: its spans are hashed in order as they arrive, from memory or from the cache, until the whole
//! digest is known.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::BlobSource;
use crate::cache::{CachedStream, Layout};
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex, Resources, Scan, SpanSink};
use crate::oci::Hasher;

/// The state after the spans before `next`.
struct Progress {
    next: u32,
    /// `None` once the last span was hashed or hashing failed.
    hashing: Option<(Hasher, Scan)>,
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
    /// It was abandoned.
    Never,
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
        let hashing = (Hasher::new(source.descriptor.digest.algorithm()), Scan::new(Form::Raw, &Resources::default()));
        let progress = Mutex::new(Progress { next: 0, hashing: Some(hashing) });
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
        let progress = self.progress.lock();
        match progress.hashing {
            _ if progress.next >= layout.count() => Wanting::Nothing,
            Some(_) => Wanting::Span(progress.next),
            None => Wanting::Never,
        }
    }

    /// Whether a span just fetched is consistent with the one hashed before, as far as known.
    pub(super) fn agrees(&self, number: u32, data: &[u8]) -> bool {
        let hashed = self.hashed.lock().get(number as usize).copied();
        hashed.is_none_or(|expected| expected == span_digest(data))
    }

    /// Hashes the next span.
    fn add(&self, progress: &mut Progress, number: u32, data: &[u8]) {
        self.hashed.lock().push(span_digest(data));
        progress.add(number, data);
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
            while progress.next < layout.count() && progress.hashing.is_some() {
                let next = progress.next;
                let Some(Ok(Some(data))) = cached.map(|cached| cached.read_unproved(next, layout.span(next))) else { break };
                self.add(&mut progress, next, &data);
            }
            if progress.next >= layout.count() {
                return self.judge(source, progress.hashing.take());
            }
            let next = progress.next;
            let over = progress.hashing.is_none();
            drop(progress);
            if over || !cached.is_some_and(|cached| cached.has(next)) {
                return Verdict::Open;
            }
        }
    }

    fn judge(&self, source: &BlobSource, hashing: Option<(Hasher, Scan)>) -> Verdict {
        let Some((hasher, scan)) = hashing else { return Verdict::Open };
        let found = hasher.finish();
        let expected = source.descriptor.digest;
        if found == expected {
            self.held.store(true, Ordering::Release);
            return scan.finish(found, &mut Nowhere).map_or(Verdict::Open, |index| Verdict::Held(Box::new(index)));
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

impl Progress {
    fn add(&mut self, number: u32, data: &[u8]) {
        if let Some((hasher, scan)) = &mut self.hashing {
            hasher.update(data);
            if let Err(error) = scan.push(data, &mut Nowhere) {
                tracing::warn!(%error, "cannot verify a blob");
                self.hashing = None;
            }
        }
        self.next = number + 1;
    }
}

fn span_digest(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// The spans are already in the cache.
struct Nowhere;

impl SpanSink for Nowhere {
    fn member(&mut self, _stream: std::ops::Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn span(&mut self, _number: u32, _stream: std::ops::Range<u64>, _data: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}
