//! Sends the blobs of one publish, with counts and progress.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::Error;
use crate::oci::{Descriptor, Repository};
use crate::publish::pack::store::file_source;
use crate::publish::progress::Progress;
use crate::registry::{BlobPlacer, Placed, Push, UploadSource, Uploaded};

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub(in crate::publish) enum BlobBytes {
    /// In a packed layer.
    File(PathBuf),
    /// In memory: a config or index.
    Bytes(Bytes),
}

/// Blobs sent and blobs already present: bytes and number.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::publish) struct Counts {
    pub sent: (u64, u64),
    pub reused: (u64, u64),
}

/// Sends the blobs of one publish.
pub(in crate::publish) struct Uploader {
    push: Arc<dyn Push>,
    repository: Repository,
    concurrency: NonZeroUsize,
    blobs: BlobPlacer,
    progress: Arc<Progress>,
    counts: Mutex<Counts>,
}

impl Uploader {
    pub fn new(push: Arc<dyn Push>, repository: Repository, concurrency: NonZeroUsize, progress: Arc<Progress>) -> Self {
        let blobs = BlobPlacer::new(Arc::clone(&push), repository.clone(), concurrency);
        Self { push, repository, concurrency, blobs, progress, counts: Mutex::default() }
    }

    /// A copy with the same counts that checks every blob again.
    pub fn restarted(&self) -> Self {
        let again = Self::new(Arc::clone(&self.push), self.repository.clone(), self.concurrency, Arc::clone(&self.progress));
        *again.counts.lock() = Counts { reused: (0, 0), ..self.counts() };
        again
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// Counts a blob that needs no check, since the tag's manifest refers to it.
    pub fn reused(&self, descriptor: &Descriptor) {
        let mut counts = self.counts.lock();
        counts.reused = (counts.reused.0 + descriptor.size, counts.reused.1 + 1);
    }

    /// Whether the repository has a blob now, possibly by mounting it from another one.
    pub async fn is_there(&self, descriptor: &Descriptor, from: Option<&Repository>) -> Result<bool, Error> {
        self.blobs.is_there(descriptor, from).await
    }

    /// Sends a blob unless the repository has it.
    pub async fn send(&self, descriptor: &Descriptor, source: &BlobBytes) -> Result<(), Error> {
        let open = || -> Result<_, Error> {
            let bytes: Arc<dyn UploadSource> = match source {
                BlobBytes::File(path) => Arc::new(file_source(path, descriptor.size)?),
                BlobBytes::Bytes(bytes) => Arc::new(bytes.clone()),
            };
            let told = self.progress.upload(descriptor.size);
            let uploaded: Uploaded = Arc::new(move |offset| told.reached(offset));
            Ok((bytes, uploaded))
        };
        match self.blobs.place(descriptor, None, open).await? {
            Some(Placed::Uploaded) => {
                let mut counts = self.counts.lock();
                counts.sent = (counts.sent.0 + descriptor.size, counts.sent.1 + 1);
            }
            Some(Placed::Present | Placed::Mounted) => {
                self.progress.upload(descriptor.size).done();
                self.reused(descriptor);
            }
            None => {}
        }
        Ok(())
    }
}
