//! The check of a raw blob that is served meanwhile: its spans are hashed in order as they come in, from memory or from the
//! cache, until the whole digest is known.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::BlobSource;
use crate::cache::{CachedStream, Layout};
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex, Resources, Scan, SpanSink};
use crate::oci::Hasher;

/// State of the spans before `next`.
struct Progress {
    next: u32,
    /// Taken when the last span was hashed, or could not be.
    hashing: Option<(Hasher, Scan)>,
}

/// The check of one raw blob.
pub(super) struct RunningCheck {
    /// Held while spans are hashed, on blocking threads only.
    progress: Mutex<Progress>,
    /// SHA-256 of each span that was hashed: one that is fetched again must be the same. Held for one look.
    hashed: Mutex<Vec<[u8; 32]>>,
    failure: OnceLock<Error>,
    /// The digest holds.
    held: AtomicBool,
}

/// The next input that the check needs.
pub(super) enum Wanting {
    /// This span, then those behind it.
    Span(u32),
    /// Nothing: it has ended.
    Nothing,
    /// It was given up.
    Never,
}

/// How a check ended.
pub(super) enum Verdict {
    /// Not all spans were seen yet.
    Open,
    /// The digest holds.
    Held(Box<LayerIndex>),
    /// It does not.
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

    /// Whether the digest was found to hold.
    pub(super) fn has_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Which span is hashed next. Blocks while others are hashed.
    pub(super) fn wanting(&self, layout: &Layout) -> Wanting {
        let progress = self.progress.lock();
        match progress.hashing {
            _ if progress.next >= layout.count() => Wanting::Nothing,
            Some(_) => Wanting::Span(progress.next),
            None => Wanting::Never,
        }
    }

    /// Whether a span that was just fetched is, as far as is known, the one that was hashed before.
    pub(super) fn agrees(&self, number: u32, data: &[u8]) -> bool {
        let hashed = self.hashed.lock().get(number as usize).copied();
        hashed.is_none_or(|expected| expected == span_digest(data))
    }

    /// Hashes the next span.
    fn add(&self, progress: &mut Progress, number: u32, data: &[u8]) {
        self.hashed.lock().push(span_digest(data));
        progress.add(number, data);
    }

    /// Notes that a span is here, and hashes as far as there are spans. Blocks.
    pub(super) fn advance(
        &self,
        source: &BlobSource,
        layout: &Layout,
        cached: Option<&CachedStream>,
        fresh: Option<(u32, &[u8])>,
    ) -> Verdict {
        loop {
            // The thread that hashes now looks into the cache once more before it stops.
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
            "{}: the registry's bytes do not match: expected {expected}, found {found} over {} bytes; it is not served any more",
            source.label(),
            source.descriptor.size,
        );
        tracing::error!("{message}");
        // The first failure stays.
        let _ = self.failure.set(Error::new(ErrorKind::Integrity, message));
        Verdict::Failed
    }
}

impl Progress {
    fn add(&mut self, number: u32, data: &[u8]) {
        if let Some((hasher, scan)) = &mut self.hashing {
            hasher.update(data);
            if let Err(error) = scan.push(data, &mut Nowhere) {
                tracing::warn!(%error, "a blob stays unverified");
                self.hashing = None;
            }
        }
        self.next = number + 1;
    }
}

fn span_digest(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// The spans are in the cache already.
struct Nowhere;

impl SpanSink for Nowhere {
    fn member(&mut self, _stream: std::ops::Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn span(&mut self, _number: u32, _stream: std::ops::Range<u64>, _data: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}
