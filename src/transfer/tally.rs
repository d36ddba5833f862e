//! The progress of a transfer, counted while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::oci::{Descriptor, Repository};
use crate::registry::{BlobPlacer, Placed, UploadSource, Uploaded};

/// Progress of a transfer, readable while it runs.
#[derive(Debug, Default)]
pub struct Tally {
    /// Total bytes of the blobs known to be needed.
    pub total: AtomicU64,
    /// Bytes of them at the destination.
    pub done: AtomicU64,
    /// Manifests put.
    pub manifests: AtomicU64,
    sent: Count,
    reused: Count,
}

#[derive(Debug, Default)]
struct Count {
    bytes: AtomicU64,
    blobs: AtomicU64,
}

impl Count {
    fn add(&self, (bytes, blobs): (u64, u64)) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.blobs.fetch_add(blobs, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.blobs.load(Ordering::Relaxed))
    }
}

impl Tally {
    /// Bytes and number of blobs sent.
    pub fn sent(&self) -> (u64, u64) {
        self.sent.get()
    }

    /// Bytes and number of blobs that were present or mounted by the registry.
    pub fn reused(&self) -> (u64, u64) {
        self.reused.get()
    }

    /// Adds the blobs of another transfer.
    pub fn add(&self, other: &Self) {
        for (ours, theirs) in [(&self.total, &other.total), (&self.done, &other.done)] {
            ours.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sent.add(other.sent());
        self.reused.add(other.reused());
    }

    /// Places a blob, possibly from the repository `from` of the same registry, and counts it. `open` provides its bytes if they must be sent.
    ///
    /// # Errors
    /// Those of the registry and of `open`.
    pub async fn place(
        self: &Arc<Self>,
        placer: &BlobPlacer,
        blob: &Descriptor,
        from: Option<&Repository>,
        open: impl FnOnce() -> Result<Arc<dyn UploadSource>, Error>,
    ) -> Result<(), Error> {
        let reached = Arc::new(AtomicU64::new(0));
        let open = || {
            let (tally, reached) = (Arc::clone(self), Arc::clone(&reached));
            let uploaded: Uploaded = Arc::new(move |offset| {
                let before = reached.swap(offset, Ordering::Relaxed);
                // A restarted upload goes back; the wrapping sum still comes out right.
                tally.done.fetch_add(offset.wrapping_sub(before), Ordering::Relaxed);
            });
            Ok::<_, Error>((open()?, uploaded))
        };
        match placer.place(blob, from, open).await? {
            Some(Placed::Uploaded) => self.sent.add((blob.size, 1)),
            Some(Placed::Present | Placed::Mounted) => self.reused.add((blob.size, 1)),
            None => {}
        }
        self.done.fetch_add(blob.size.wrapping_sub(reached.load(Ordering::Relaxed)), Ordering::Relaxed);
        Ok(())
    }
}
