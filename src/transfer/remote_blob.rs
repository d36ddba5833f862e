//! A blob of the source as an upload source: read in order from one open stream, which is reopened if an upload restarts.
//!
//! The bytes are hashed as they first pass, and the last piece is withheld unless the digest matches: even a destination that checks nothing
//! receives nothing wrong. Holds at most one piece.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::Mutex;

use super::Source;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Hasher};
use crate::registry::{BlobStream, MANIFEST_LIMIT, UploadSource};

/// A blob of the source.
pub struct RemoteBlob {
    source: Source,
    descriptor: Descriptor,
    /// Never held across an await.
    failure: parking_lot::Mutex<Option<Error>>,
    /// The bytes were wrong, and another place may have the right ones.
    is_elsewhere: AtomicBool,
    state: Mutex<StreamState>,
}

/// The position of the stream. An upload reads one piece at a time, so the lock is never contended.
struct StreamState {
    stream: Option<BlobStream>,
    /// Offset of the stream's next byte, after `rest`.
    position: u64,
    /// Bytes of the stream not requested yet.
    rest: Bytes,
    /// Has hashed everything before `hashed`.
    hasher: Hasher,
    hashed: u64,
}

impl RemoteBlob {
    /// A blob that is opened on first use.
    pub fn new(source: Source, descriptor: Descriptor) -> Self {
        let hasher = Hasher::new(descriptor.digest.algorithm());
        let state = StreamState { stream: None, position: 0, rest: Bytes::new(), hasher, hashed: 0 };
        Self { source, descriptor, failure: parking_lot::Mutex::default(), is_elsewhere: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Why the source could not be read, if that ended the upload.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Whether the bytes were wrong and another place is asked for them from now on.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere.load(Ordering::Relaxed)
    }

    /// At most `length` bytes from an offset, in order. The last piece is returned only if the digest matches.
    ///
    /// # Errors
    /// Those of the source; Integrity if the bytes do not match the digest.
    pub async fn piece(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        let read = self.read(offset, length).await;
        read.map_err(|error| self.failure().unwrap_or_else(|| Error::new(ErrorKind::Other, error.to_string())))
    }

    fn failed(&self, error: Error) -> io::Error {
        let told = io::Error::other(error.clone());
        *self.failure.lock() = Some(error);
        told
    }

    /// The next bytes of the stream; empty at its end.
    async fn next(&self, state: &mut StreamState) -> io::Result<Bytes> {
        if !state.rest.is_empty() {
            return Ok(std::mem::take(&mut state.rest));
        }
        let Some(stream) = &mut state.stream else { return Ok(Bytes::new()) };
        match stream.next().await {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => {
                state.stream = None;
                Err(self.failed(error))
            }
            None => Ok(Bytes::new()),
        }
    }
}

impl StreamState {
    /// Hashes the part of a piece that was not hashed yet.
    fn hash(&mut self, offset: u64, piece: &[u8]) {
        let skip = self.hashed.checked_sub(offset).and_then(|skip| usize::try_from(skip).ok());
        if let Some(new) = skip.and_then(|skip| piece.get(skip..)) {
            self.hasher.update(new);
            self.hashed += new.len() as u64;
        }
    }
}

/// Reads a small blob whole, verified.
///
/// # Errors
/// As [`RemoteBlob::piece`]; Unsupported if it is larger than a manifest may be.
pub async fn read_small(source: &Source, descriptor: &Descriptor) -> Result<Bytes, Error> {
    let size = usize::try_from(descriptor.size).ok().filter(|_| descriptor.size <= MANIFEST_LIMIT);
    let too_large = || Error::new(ErrorKind::Unsupported, format!("blob {} has {} bytes", descriptor.digest, descriptor.size));
    let size = size.ok_or_else(too_large)?;
    let blob = RemoteBlob::new(source.clone(), descriptor.clone());
    match blob.piece(0, size).await {
        Err(_) if blob.is_elsewhere() => RemoteBlob::new(source.clone(), descriptor.clone()).piece(0, size).await,
        read => read,
    }
}

#[async_trait]
impl UploadSource for RemoteBlob {
    fn length(&self) -> u64 {
        self.descriptor.size
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let size = self.descriptor.size;
        let wanted = length.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if state.stream.is_none() || state.position != offset {
            state.rest = Bytes::new();
            let stream = self.source.pull.blob(&self.source.repository, &self.descriptor, offset..size).await;
            state.stream = Some(stream.map_err(|error| self.failed(error))?);
            state.position = offset;
        }
        let mut piece = BytesMut::new();
        while piece.len() < wanted {
            let mut bytes = self.next(state).await?;
            if bytes.is_empty() {
                break;
            }
            state.rest = bytes.split_off(bytes.len().min(wanted - piece.len()));
            piece.extend_from_slice(&bytes);
        }
        state.position += piece.len() as u64;
        state.hash(offset, &piece);
        if state.hashed == size && offset + piece.len() as u64 == size && state.hasher.clone().finish() != self.descriptor.digest {
            let is_elsewhere = self.source.pull.report_wrong_bytes(&self.source.repository, &self.descriptor.digest);
            self.is_elsewhere.store(is_elsewhere, Ordering::Relaxed);
            let message = format!("blob {} of {}: its bytes do not match its digest", self.descriptor.digest, self.source.pull.origin());
            return Err(self.failed(Error::new(ErrorKind::Integrity, message)));
        }
        Ok(piece.freeze())
    }
}
