//! Reads a range of the (unsealed) blob forward, from any origin, span by span.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::blob_bytes::BlobBytes;
use super::budget::Use;
use super::reader::Reader;
use super::sealed::probe::Opened;
use crate::error::{Error, ErrorKind};
use crate::seal::{ENVELOPE_HEADER, EnvelopeReader};

/// Size of ciphertext reads, in bytes.
const PIECE: u64 = 256 << 10;

/// Where the bytes come from.
pub(super) enum Origin {
    /// The blob as stored.
    Stored {
        /// The bytes as they arrive.
        bytes: Box<BlobBytes>,
        /// The slot of its requests, released at the end.
        _turn: Option<OwnedSemaphorePermit>,
    },
    /// The verified ciphertext of an envelope.
    Envelope {
        /// The blob as stored.
        blob: Arc<Reader>,
        /// Decrypts the ciphertext.
        envelope: Box<EnvelopeReader>,
        /// The use that the reads are accounted to.
        rank: Use,
    },
}

/// A forward reader of one range.
pub(super) struct Input {
    origin: Origin,
    /// Blob offset of the first byte in `buffer`.
    start: u64,
    buffer: BytesMut,
    /// End of the range.
    end: u64,
}

impl Input {
    pub(super) fn new(origin: Origin, range: Range<u64>) -> Self {
        Self { origin, start: range.start, buffer: BytesMut::new(), end: range.end }
    }

    /// A forward reader of an opened envelope's content; `blob` reads the ciphertext.
    pub(super) fn of_envelope(blob: &Arc<Reader>, opened: &Opened, range: Range<u64>, rank: Use) -> Self {
        let envelope = Box::new(EnvelopeReader::new(&opened.key, &opened.header));
        Self::new(Origin::Envelope { blob: Arc::clone(blob), envelope, rank }, range)
    }

    /// The bytes of a range that starts no earlier than that of the last call.
    pub(super) async fn take(&mut self, range: &Range<u64>) -> Result<Bytes, Error> {
        if range.start < self.start || range.end > self.end || range.start > range.end {
            return Err(Error::new(ErrorKind::Other, format!("bytes {range:?} cannot be read in order: the index is not consistent")));
        }
        self.skip_to(range.start);
        while self.start + (self.buffer.len() as u64) < range.end {
            let Some(piece) = self.next().await? else {
                let end = self.start + self.buffer.len() as u64;
                return Err(Error::new(ErrorKind::Integrity, format!("the transfer ended at byte {end} instead of {}", self.end)));
            };
            self.buffer.extend_from_slice(&piece);
            self.skip_to(range.start);
        }
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        Ok(Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default()))
    }

    /// Whether any of the bytes came from the cache as stored.
    pub(super) fn were_cached(&self) -> bool {
        matches!(&self.origin, Origin::Stored { bytes, .. } if bytes.were_cached())
    }

    fn skip_to(&mut self, start: u64) {
        let known = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.buffer.len());
        let _skipped = self.buffer.split_to(known);
        self.start += known as u64;
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let place = self.start + self.buffer.len() as u64;
        match &mut self.origin {
            Origin::Stored { bytes, .. } => bytes.next("no byte").await,
            Origin::Envelope { blob, envelope, rank } => {
                if place >= self.end {
                    return Ok(None);
                }
                let header = ENVELOPE_HEADER as u64;
                let wanted = place + header..(place + PIECE).min(self.end) + header;
                let mut piece = BytesMut::from(&*blob.read_for(wanted, *rank).await?);
                envelope.decrypt(place, &mut piece)?;
                Ok(Some(piece.freeze()))
            }
        }
    }
}
