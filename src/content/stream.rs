//! An open logical stream, as it is handed out: which reader answers it, and when that one is replaced.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::contents::{Contents, check_empty};
use super::reader::Reader;
use super::{BlobSource, Error, Sealing, Verified, attached_index};
use crate::error::ErrorKind;
use crate::layer::Form;

/// Ranges that are remembered one by one.
const FAILED: usize = 64;
/// How long an outage counts for who ran into it: until the kernel has asked for every page of a read that failed.
const OUTAGE: Duration = Duration::from_secs(1);

/// An open logical stream. Cheap to clone.
#[derive(Clone)]
pub struct ContentStream {
    inner: Arc<Opened>,
}

enum Opened {
    /// A blob.
    Blob {
        contents: Contents,
        source: Box<BlobSource>,
        /// Empty until the first read of a raw blob that has to be checked whole.
        reader: OnceCell<Arc<Reader>>,
        /// Reads on where what was read by turned out not to be believed.
        instead: OnceCell<Arc<Reader>>,
        /// Ranges already read from a blob that is served before it is checked. Held briefly.
        seen: Mutex<Seen>,
        /// Ranges that failed: the kernel asks several times for what it did not get. Held briefly.
        failed: Mutex<Vec<Failed>>,
    },
    /// Bytes that are here already.
    Bytes(Bytes),
}

impl Contents {
    /// The logical stream of a blob. An archive is indexed first; a raw blob costs nothing here.
    ///
    /// # Errors
    /// Those of [`Contents::index`].
    pub async fn open(&self, source: &BlobSource) -> Result<ContentStream, Error> {
        check_empty(source)?;
        let reader = match self.ready(source)? {
            Some(reader) => Some(reader),
            // With an index that is still to come, only the reader knows how far it will be verified.
            None if source.form == Form::Raw && source.sealing == Sealing::None && !attached_index::is_expected(self.shared(), source) => {
                None
            }
            None => Some(self.reader(source).await?),
        };
        Ok(ContentStream::new(self, source, reader))
    }
}

impl ContentStream {
    /// A stream of a blob, with its reader if that is here.
    pub(super) fn new(contents: &Contents, source: &BlobSource, reader: Option<Arc<Reader>>) -> Self {
        let (contents, source, reader) = (contents.clone(), Box::new(source.clone()), OnceCell::new_with(reader));
        let (instead, seen, failed) = (OnceCell::new(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Opened::Blob { contents, source, reader, instead, seen, failed }) }
    }

    /// A stream of bytes that were checked elsewhere (a manifest).
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self { inner: Arc::new(Opened::Bytes(bytes)) }
    }

    /// Length of the stream in bytes (for a raw blob that was never read whole: as claimed).
    pub fn length(&self) -> u64 {
        match &*self.inner {
            Opened::Blob { source, reader, .. } => reader.get().map_or(source.descriptor.size, |reader| reader.length()),
            Opened::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// How far it is verified.
    pub fn verified(&self) -> Verified {
        match &*self.inner {
            Opened::Blob { reader, instead, .. } => instead.get().or(reader.get()).map_or(Verified::Unread, |reader| reader.verified()),
            Opened::Bytes(_) => Verified::Whole,
        }
    }

    /// Bytes of a range, all of them or an error; clipped to the stream. Completes at once (without suspending)
    /// when everything is in the cache, so that a FUSE thread can answer by itself. Sequential calls prefetch. The call
    /// that completes a whole blob which is served while it is checked gets its bytes once the digest holds.
    ///
    /// # Errors
    /// Those of [`Contents::index`]. What failed a check here fails again without being fetched again, and
    /// what could not be reached for a moment.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        match &*self.inner {
            Opened::Blob { failed, reader, instead, .. } => {
                if let Some(error) = remembered(failed, &range) {
                    return Err(error);
                }
                let answer = self.read_blob(range.clone()).await;
                if let Err(error) = answer.as_ref()
                    && matches!(error.kind, ErrorKind::Integrity | ErrorKind::TimedOut | ErrorKind::Unreachable)
                {
                    // Without a reader that is believed it is the blob as a whole that failed.
                    let is_whole = instead.get().or(reader.get()).is_none_or(|reader| reader.is_distrusted());
                    let is_whole = is_whole && error.kind == ErrorKind::Integrity;
                    remember(failed, if is_whole { 0..u64::MAX } else { range }, error);
                }
                answer
            }
            Opened::Bytes(bytes) => {
                let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(place(range.start).min(place(range.end))..place(range.end)))
            }
        }
    }

    async fn read_blob(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let Opened::Blob { contents, source, reader, instead, seen, .. } = &*self.inner else { return Ok(Bytes::new()) };
        let reader = match reader.get() {
            Some(reader) => reader,
            None => reader.get_or_try_init(|| contents.reader(source)).await?,
        };
        if !reader.is_distrusted() {
            match read_checked(reader, seen, range.clone()).await {
                Err(error) if error.kind == ErrorKind::Integrity && reader.is_distrusted() => {
                    tracing::info!("{error}; reading it again by what the blob itself says");
                }
                answer => return answer,
            }
        }
        instead.get_or_try_init(|| contents.reader(source)).await?.read(range).await
    }
}

/// Reads. A reader that has thereby seen every span of an unchecked blob waits for the digest.
async fn read_checked(reader: &Arc<Reader>, seen: &Mutex<Seen>, range: Range<u64>) -> Result<Bytes, Error> {
    if !reader.is_unchecked() {
        return reader.read(range).await;
    }
    let seen = || seen.lock();
    seen().add(reader.spans_of(&range));
    let data = reader.read(range).await?;
    // Asked only now: what was asked for at the same time counts, in whatever order it is answered.
    let completes = seen().count == reader.span_count();
    if completes {
        reader.finish_verification().await?;
    }
    Ok(data)
}

/// Spans that were asked for.
#[derive(Default)]
struct Seen {
    /// One bit a span.
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
    /// Until when that counts; `None` for what failed a check, which another attempt would not change.
    until: Option<Instant>,
}

impl Failed {
    fn counts(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now())
    }
}

/// The error of a range that could not be read before.
fn remembered(failed: &Mutex<Vec<Failed>>, range: &Range<u64>) -> Option<Error> {
    let failed = failed.lock();
    let found = failed.iter().find(|failed| failed.counts() && failed.range.start < range.end && range.start < failed.range.end);
    found.map(|failed| failed.error.clone())
}

/// Remembers what could not be read; when that was much, all of it counts as failed.
fn remember(failed: &Mutex<Vec<Failed>>, range: Range<u64>, error: &Error) {
    let mut failed = failed.lock();
    failed.retain(Failed::counts);
    let range = if failed.len() < FAILED { range } else { 0..u64::MAX };
    let until = (error.kind != ErrorKind::Integrity).then(|| Instant::now() + OUTAGE);
    failed.push(Failed { range, error: error.clone(), until });
}
