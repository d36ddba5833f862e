//! The open logical stream handed to callers: which reader serves it, and when that is replaced.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::contents::{Contents, check_empty};
use super::reader::Reader;
use super::{BlobSource, Sealing, Verified, attached_index};
use crate::error::{Error, ErrorKind};
use crate::layer::Form;

/// Most failed ranges remembered individually.
const FAILED: usize = 64;
/// How long an outage applies to the reader that met it: until the kernel has asked for every page of a failed read.
const OUTAGE: Duration = Duration::from_secs(1);

/// An open logical stream. Cheap to clone.
#[derive(Clone)]
pub struct ContentStream {
    inner: Arc<Inner>,
}

enum Inner {
    /// A blob.
    Blob(Box<Blob>),
    /// Bytes that are already present.
    Bytes(Bytes),
}

struct Blob {
    contents: Contents,
    source: BlobSource,
    /// Serves reads. `None` until the first read of a raw blob that must be read whole first; replaced when it is no longer trusted. Locked only for a
    /// glance.
    reader: Mutex<Option<Arc<Reader>>>,
    /// Requested spans of a blob served unverified. Locked briefly.
    seen: Mutex<Seen>,
    /// Failed ranges: the kernel retries what it did not get. Locked briefly.
    failed: Mutex<Vec<Failed>>,
}

impl Contents {
    /// The logical stream of a blob. An archive is indexed first; for a raw blob nothing is fetched.
    ///
    /// # Errors
    /// Those of [`Contents::index`].
    pub async fn open(&self, source: &BlobSource) -> Result<ContentStream, Error> {
        check_empty(source)?;
        let reader = match self.ready(source)? {
            Some(reader) => Some(reader),
            // If the index is still to be fetched, only the reader knows how far it will be verified.
            None if source.form == Form::Raw && source.sealing == Sealing::None && !attached_index::is_expected(self.shared(), source) => {
                None
            }
            None => Some(self.reader(source).await?),
        };
        let blob = Blob {
            contents: self.clone(),
            source: source.clone(),
            reader: Mutex::new(reader),
            seen: Mutex::default(),
            failed: Mutex::default(),
        };
        Ok(ContentStream { inner: Arc::new(Inner::Blob(Box::new(blob))) })
    }
}

impl ContentStream {
    /// A stream of bytes verified elsewhere (a manifest).
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self { inner: Arc::new(Inner::Bytes(bytes)) }
    }

    /// Length of the stream in bytes (for a raw blob never read whole: as claimed).
    pub fn length(&self) -> u64 {
        match &*self.inner {
            Inner::Blob(blob) => blob.reader().map_or(blob.source.descriptor.size, |reader| reader.length()),
            Inner::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// How much of it is verified.
    pub fn verified(&self) -> Verified {
        match &*self.inner {
            Inner::Blob(blob) => match blob.reader().map_or(Verified::Unread, |reader| reader.verified()) {
                Verified::Whole if blob.source.is_referred() => Verified::Index,
                verified => verified,
            },
            Inner::Bytes(_) => Verified::Whole,
        }
    }

    /// Whether a whole range is present, so that reading it sends no request. That may change a moment later.
    pub fn holds(&self, range: &Range<u64>) -> bool {
        match &*self.inner {
            Inner::Blob(blob) => blob.reader().is_some_and(|reader| reader.spans_of(range).all(|span| reader.has(span))),
            Inner::Bytes(_) => true,
        }
    }

    /// The cache's own file of just this range, if it is plain, complete and verified; see [`crate::cache::CachedStream::lease`]. Blocks on the disk.
    pub fn lease(&self, range: &Range<u64>) -> Option<File> {
        let Inner::Blob(blob) = &*self.inner else { return None };
        let reader = blob.reader().filter(|reader| reader.verified() == Verified::Whole && !reader.is_distrusted())?;
        reader.cached.as_ref()?.lease(range)
    }

    /// Bytes of a range, all of them or an error; clipped to the stream. Completes without suspending if everything is cached, so that a FUSE thread can
    /// answer by itself. Sequential calls prefetch. The call that completes a blob served unverified returns once the digest is verified.
    ///
    /// # Errors
    /// Those of [`Contents::index`]. A range that failed verification fails again without being refetched, and so does, for a moment, one that could not be
    /// fetched.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        match &*self.inner {
            Inner::Blob(blob) => {
                if let Some(error) = remembered(&blob.failed, &range) {
                    return Err(error);
                }
                let answer = blob.read(range.clone()).await;
                if let Err(error) = answer.as_ref()
                    && matches!(error.kind, ErrorKind::Integrity | ErrorKind::TimedOut | ErrorKind::Unreachable)
                {
                    // Without a trusted reader, the whole blob failed.
                    let is_whole = error.kind == ErrorKind::Integrity && blob.reader().is_none_or(|reader| reader.is_distrusted());
                    remember(&blob.failed, if is_whole { 0..u64::MAX } else { range }, error);
                }
                answer
            }
            Inner::Bytes(bytes) => {
                let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(place(range.start).min(place(range.end))..place(range.end)))
            }
        }
    }
}

impl Blob {
    fn reader(&self) -> Option<Arc<Reader>> {
        self.reader.lock().clone()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if let Some(reader) = self.reader().filter(|reader| !reader.is_distrusted()) {
            match read_checked(&reader, &self.seen, range.clone()).await {
                Err(error) if error.kind == ErrorKind::Integrity && reader.is_distrusted() => {
                    tracing::info!("{error}; reading it again through the blob's own index");
                }
                answer => return answer,
            }
        }
        let reader = self.contents.reader(&self.source).await?;
        *self.reader.lock() = Some(Arc::clone(&reader));
        read_checked(&reader, &self.seen, range).await
    }
}

/// Reads. A reader that has now seen every span of an unverified blob waits for the digest.
async fn read_checked(reader: &Arc<Reader>, seen: &Mutex<Seen>, range: Range<u64>) -> Result<Bytes, Error> {
    if !reader.is_unchecked() {
        return reader.read(range).await;
    }
    let seen = || seen.lock();
    seen().add(reader.spans_of(&range));
    let data = reader.read(range).await?;
    // Evaluated only now: concurrent requests count, in whatever order they are answered.
    let completes = seen().count == reader.layout.count();
    if completes {
        reader.finish_verification().await?;
    }
    Ok(data)
}

/// Requested spans.
#[derive(Default)]
struct Seen {
    /// One bit per span.
    bits: Vec<u64>,
    count: u32,
}

impl Seen {
    fn add(&mut self, spans: Range<u32>) {
        for span in spans {
            let (word, bit) = ((span / u64::BITS) as usize, 1u64 << (span % u64::BITS));
            if self.bits.len() <= word {
                self.bits.resize(word + 1, 0);
            }
            if let Some(word) = self.bits.get_mut(word).filter(|word| **word & bit == 0) {
                *word |= bit;
                self.count += 1;
            }
        }
    }
}

/// A range that could not be read.
struct Failed {
    range: Range<u64>,
    error: Error,
    /// Until when that applies; `None` for a failed verification, which a retry would not change.
    until: Option<Instant>,
}

impl Failed {
    fn counts(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now())
    }
}

/// The error of a range that failed before.
fn remembered(failed: &Mutex<Vec<Failed>>, range: &Range<u64>) -> Option<Error> {
    let failed = failed.lock();
    let found = failed.iter().find(|failed| failed.counts() && failed.range.start < range.end && range.start < failed.range.end);
    found.map(|failed| failed.error.clone())
}

/// Remembers a failed range; after too many, everything counts as failed.
fn remember(failed: &Mutex<Vec<Failed>>, range: Range<u64>, error: &Error) {
    let mut failed = failed.lock();
    failed.retain(Failed::counts);
    let range = if failed.len() < FAILED { range } else { 0..u64::MAX };
    let until = (error.kind != ErrorKind::Integrity).then(|| Instant::now() + OUTAGE);
    failed.push(Failed { range, error: error.clone(), until });
}
