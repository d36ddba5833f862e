//! An open logical stream, as it is handed out: which reader answers it, and when that one is replaced.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::contents::Contents;
use super::reader::Reader;
use super::{BlobSource, Error, Verified};
use crate::error::ErrorKind;

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
        /// Reads on where the index that travelled with the blob turned out wrong.
        instead: OnceCell<Arc<Reader>>,
    },
    /// Bytes that are here already.
    Bytes(Bytes),
}

impl ContentStream {
    /// A stream of a blob, with its reader if that is here.
    pub(super) fn new(contents: &Contents, source: &BlobSource, reader: Option<Arc<Reader>>) -> Self {
        let (contents, source, reader) = (contents.clone(), Box::new(source.clone()), OnceCell::new_with(reader));
        Self { inner: Arc::new(Opened::Blob { contents, source, reader, instead: OnceCell::new() }) }
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

    /// How far it is verified. What is not there yet is served only once it was checked.
    pub fn verified(&self) -> Verified {
        match &*self.inner {
            Opened::Blob { reader, instead, .. } => instead.get().or(reader.get()).map_or(Verified::Whole, |reader| reader.verified()),
            Opened::Bytes(_) => Verified::Whole,
        }
    }

    /// Bytes of a range, all of them or an error; clipped to the stream. Completes at once (without suspending)
    /// when everything is in the cache, so that a FUSE thread can answer by itself. Sequential calls prefetch.
    ///
    /// # Errors
    /// Those of [`Contents::index`].
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        match &*self.inner {
            Opened::Blob { contents, source, reader, instead } => {
                let reader = match reader.get() {
                    Some(reader) => reader,
                    None => reader.get_or_try_init(|| contents.reader(source)).await?,
                };
                if !reader.is_distrusted() {
                    match reader.read(range.clone()).await {
                        Err(error) if error.kind == ErrorKind::Integrity && reader.is_distrusted() => {
                            tracing::info!("{error}; reading it again without the index that travelled with it");
                        }
                        answer => return answer,
                    }
                }
                instead.get_or_try_init(|| contents.reader(source)).await?.read(range).await
            }
            Opened::Bytes(bytes) => {
                let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(place(range.start).min(place(range.end))..place(range.end)))
            }
        }
    }
}
