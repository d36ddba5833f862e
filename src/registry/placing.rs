//! Ensures that a repository has blobs: checks first, mounts them from another repository of the same registry if possible, else uploads them.
//!
//! Each blob is sent once, however many callers ask; several are sent in parallel. Never decides which blobs are needed or in which order.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::{Push, UploadSource, Uploaded};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Repository};

/// How a blob got into the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It was already there.
    Present,
    /// The registry mounted it from another repository.
    Mounted,
    /// It was uploaded.
    Uploaded,
}

/// Places the blobs of one repository.
pub struct BlobPlacer {
    push: Arc<dyn Push>,
    repository: Repository,
    limit: Semaphore,
    placed: Mutex<HashMap<Digest, Arc<OnceCell<()>>>>,
}

impl BlobPlacer {
    /// For one repository, with at most this many blobs in flight.
    pub fn new(push: Arc<dyn Push>, repository: Repository, concurrency: NonZeroUsize) -> Self {
        Self { push, repository, limit: Semaphore::new(concurrency.get()), placed: Mutex::default() }
    }

    /// Whether the repository has a blob, possibly by mounting it from another one.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn is_there(&self, descriptor: &Descriptor, from: Option<&Repository>) -> Result<bool, Error> {
        let _permit = self.limit.acquire().await;
        Ok(self.find(descriptor, from).await?.is_some())
    }

    async fn find(&self, descriptor: &Descriptor, from: Option<&Repository>) -> Result<Option<Placed>, Error> {
        if self.push.has_blob(&self.repository, descriptor).await? {
            return Ok(Some(Placed::Present));
        }
        let Some(from) = from.filter(|from| **from != self.repository) else { return Ok(None) };
        match self.push.mount_blob(&self.repository, descriptor, from).await {
            Ok(is_mounted) => Ok(is_mounted.then_some(Placed::Mounted)),
            // Without read access there, the blob is uploaded.
            Err(error) if error.kind == ErrorKind::Denied => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ensures that the repository has a blob. If it must be uploaded, `open` provides its bytes and the progress callback. `None` if another
    /// call has placed it.
    ///
    /// # Errors
    /// Those of the registry and of `open`.
    pub async fn place<E: From<Error>>(
        &self,
        descriptor: &Descriptor,
        from: Option<&Repository>,
        open: impl FnOnce() -> Result<(Arc<dyn UploadSource>, Uploaded), E>,
    ) -> Result<Option<Placed>, E> {
        let cell = {
            let mut placed = self.placed.lock();
            Arc::clone(placed.entry(descriptor.digest).or_default())
        };
        let mut how = None;
        let placing = async {
            let _permit = self.limit.acquire().await;
            let placed = match self.find(descriptor, from).await? {
                Some(placed) => placed,
                None => {
                    let (source, uploaded) = open()?;
                    self.push.push_blob(&self.repository, descriptor, source, uploaded).await?;
                    Placed::Uploaded
                }
            };
            how = Some(placed);
            Ok::<_, E>(())
        };
        cell.get_or_try_init(|| placing).await.copied()?;
        Ok(how)
    }
}
