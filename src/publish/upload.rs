//! Sending blobs: asked for first, taken over from another repository where that has them, else uploaded; several at a time.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use super::Error;
use super::report::Progress;
use super::store::FileSource;
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Repository};
use crate::registry::{Push, UploadSource};

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In a packed layer.
    File(PathBuf),
    /// In memory: a config, a list.
    Bytes(Bytes),
}

/// Blobs sent and blobs that were there: bytes and number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub sent: (u64, u64),
    pub reused: (u64, u64),
}

/// Sends the blobs of one publish.
pub(super) struct Uploader {
    push: Arc<dyn Push>,
    repository: Repository,
    concurrency: NonZeroUsize,
    limit: Semaphore,
    progress: Arc<Progress>,
    /// What was sent already: a blob that is named twice goes once.
    seen: Mutex<HashMap<Digest, Arc<OnceCell<()>>>>,
    counts: Mutex<Counts>,
}

impl Uploader {
    pub fn new(push: Arc<dyn Push>, repository: Repository, concurrency: NonZeroUsize, progress: Arc<Progress>) -> Self {
        let limit = Semaphore::new(concurrency.get());
        Self { push, repository, concurrency, limit, progress, seen: Mutex::default(), counts: Mutex::default() }
    }

    /// The same with its counts, but nothing is known to be there.
    pub fn anew(&self) -> Self {
        let again = Self::new(Arc::clone(&self.push), self.repository.clone(), self.concurrency, Arc::clone(&self.progress));
        *again.counts.lock().unwrap_or_else(PoisonError::into_inner) = Counts { reused: (0, 0), ..self.counts() };
        again
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a blob that need not be asked for, since a manifest that the tag holds names it.
    pub fn reused(&self, descriptor: &Descriptor) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.reused = (counts.reused.0 + descriptor.size, counts.reused.1 + 1);
    }

    /// Whether the repository has a blob now, taken over from another one if need be.
    pub async fn is_there(&self, descriptor: &Descriptor, from: Option<&Repository>) -> Result<bool, Error> {
        let _permit = self.limit.acquire().await;
        self.find(descriptor, from).await
    }

    async fn find(&self, descriptor: &Descriptor, from: Option<&Repository>) -> Result<bool, Error> {
        if self.push.has_blob(&self.repository, descriptor).await? {
            return Ok(true);
        }
        match from.filter(|from| **from != self.repository) {
            Some(from) => match self.push.mount_blob(&self.repository, descriptor, from).await {
                // Without the right to read there it is uploaded.
                Err(error) if error.kind == ErrorKind::Denied => Ok(false),
                other => Ok(other?),
            },
            None => Ok(false),
        }
    }

    /// Makes sure that the repository has a blob.
    pub async fn send(&self, descriptor: &Descriptor, source: &Source) -> Result<(), Error> {
        let cell = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(seen.entry(descriptor.digest).or_default())
        };
        cell.get_or_try_init(|| self.transfer(descriptor, source)).await.copied()
    }

    async fn transfer(&self, descriptor: &Descriptor, source: &Source) -> Result<(), Error> {
        let _permit = self.limit.acquire().await;
        let told = self.progress.upload(descriptor.size);
        if self.find(descriptor, None).await? {
            self.reused(descriptor);
            told.done();
            return Ok(());
        }
        let bytes: Arc<dyn UploadSource> = match source {
            Source::File(path) => Arc::new(FileSource::open(path, descriptor.size)?),
            Source::Bytes(bytes) => Arc::new(bytes.clone()),
        };
        let listener = told.clone();
        let uploaded = Arc::new(move |offset: u64| listener.reached(offset));
        self.push.push_blob(&self.repository, descriptor, bytes, uploaded).await?;
        told.done();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.sent = (counts.sent.0 + descriptor.size, counts.sent.1 + 1);
        Ok(())
    }
}
