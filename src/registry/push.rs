//! Writing to registries and layouts: the trait, and sources of uploads.
//!
//! The caller decides what is published and in which order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Pull;
use crate::blocking::spawn_blocking;
use crate::error::Error;
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag, Version};

/// Bytes of a blob, readable again from any offset, since an upload may restart.
#[async_trait]
pub trait UploadSource: Send + Sync {
    /// Total length in bytes.
    fn length(&self) -> u64;
    /// At most `length` bytes (a few MiB) from an offset; fewer only at the end.
    async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes>;
}

#[async_trait]
impl UploadSource for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(self.slice(start..start.saturating_add(length).min(self.len())))
    }
}

/// Called with the offset that the other side has received; may go back when an upload restarts.
pub type Uploaded = Arc<dyn Fn(u64) + Send + Sync>;

/// How a tag was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagDeletion {
    /// The registry deleted the tag by name.
    Direct,
    /// The registry refuses to delete tags: a throw-away manifest took the tag and was deleted by digest.
    ByThrowAway,
}

/// Writing to one registry or layout. Every method may be called again after an error; none blocks the thread.
#[async_trait]
pub trait Push: Pull {
    /// Whether the repository has a blob of this digest and size (HEAD).
    async fn has_blob(&self, repository: &Repository, descriptor: &Descriptor) -> Result<bool, Error>;

    /// Mounts a blob from another repository of the same registry, with credentials for both. `false` if the registry did not: then it must be
    /// uploaded. An upload session opened instead is cancelled or used by the next upload.
    async fn mount_blob(&self, repository: &Repository, descriptor: &Descriptor, from: &Repository) -> Result<bool, Error>;

    /// Uploads a blob: in one request if small, else in resumable chunks. `uploaded` is called with the offset reached.
    ///
    /// # Errors
    /// Integrity if the registry says that the bytes do not match the digest; NoSpace for 413 and quota answers; Denied, Unsupported (a read-only
    /// registry), Unreachable, TimedOut.
    async fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: Arc<dyn UploadSource>,
        uploaded: Uploaded,
    ) -> Result<(), Error>;

    /// Puts a manifest by digest or under a tag. Sends exactly `manifest.raw`.
    ///
    /// # Errors
    /// Invalid if the registry refuses the manifest, with its message. After a lost answer the caller checks with [`Pull::resolve`].
    async fn push_manifest(&self, repository: &Repository, version: &Version, manifest: &Manifest) -> Result<(), Error>;

    /// Deletes a tag and no other tag of the same manifest. `digest` is what the tag holds now. NotFound if the tag does not exist.
    async fn delete_tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<TagDeletion, Error>;

    /// Deletes a manifest and all its tags. In a layout, what only it needed goes too. NotFound if it does not exist.
    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), Error>;

    /// Deletes a blob, even if manifests refer to it. NotFound if it does not exist; a layout refuses with Conflict while a manifest needs it.
    async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Error>;

    /// Drops an untagged manifest and what only it needed, in a layout, which has no garbage collector.
    async fn tidy(&self, _repository: &Repository, _digest: &Digest) -> Result<(), Error> {
        Ok(())
    }

    /// Records that a manifest refers to `subject` in the fallback tag, if the registry has no referrers API. Does nothing if the registry said
    /// (`OCI-Subject`) that it did so itself.
    async fn link_referrer(&self, repository: &Repository, subject: &Digest, referrer: &Descriptor) -> Result<(), Error>;

    /// Undoes [`Push::link_referrer`] for a deleted manifest.
    async fn unlink_referrer(&self, _repository: &Repository, _subject: &Digest, _referrer: &Digest) -> Result<(), Error> {
        Ok(())
    }

    /// Whether blobs may be pushed to a repository. Opens and cancels an upload if that is the only way to tell.
    ///
    /// # Errors
    /// Denied, or why else a push would fail.
    async fn may_push(&self, repository: &Repository) -> Result<(), Error>;

    /// Makes writes visible, in an archive, where they become visible together. Called last, and again after an error.
    async fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A file as the source of an upload.
pub struct FileSource {
    file: Arc<File>,
    length: u64,
}

impl FileSource {
    /// This many bytes of an open file, from its start.
    pub fn new(file: File, length: u64) -> Self {
        Self { file: Arc::new(file), length }
    }
}

#[async_trait]
impl UploadSource for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let rest = self.length.saturating_sub(offset);
        let length = length.min(usize::try_from(rest).unwrap_or(usize::MAX)).min(4 << 20);
        let read = spawn_blocking(move || {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, offset)?;
            Ok(Bytes::from(piece))
        });
        read.await.map_err(io::Error::other)?
    }
}
