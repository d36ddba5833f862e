//! The trait [`Push`] over HTTP, delegating to the files that implement it.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::{Push, TagDeletion, UploadSource, Uploaded};
use super::session::Uploads;
use super::{HttpRegistry, delete, mount, put, referrer, upload};
use crate::error::Error;
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag, Version};

#[async_trait]
impl Push for HttpRegistry {
    async fn has_blob(&self, repository: &Repository, descriptor: &Descriptor) -> Result<bool, Error> {
        mount::has(&self.http, repository, descriptor, self.http.exchange.attempts_to_write()).await
    }

    async fn mount_blob(&self, repository: &Repository, descriptor: &Descriptor, from: &Repository) -> Result<bool, Error> {
        mount::mount(&self.http, repository, descriptor, from).await
    }

    async fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: Arc<dyn UploadSource>,
        uploaded: Uploaded,
    ) -> Result<(), Error> {
        upload::push(&self.http, repository, descriptor, source, uploaded).await
    }

    async fn push_manifest(&self, repository: &Repository, version: &Version, manifest: &Manifest) -> Result<(), Error> {
        put::manifest(&self.http, repository, version, manifest).await
    }

    async fn delete_tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<TagDeletion, Error> {
        delete::tag(self, repository, tag, digest).await
    }

    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        delete::manifest(&self.http, repository, digest).await
    }

    async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        delete::blob(&self.http, repository, digest).await
    }

    async fn link_referrer(&self, repository: &Repository, subject: &Digest, referrer: &Descriptor) -> Result<(), Error> {
        referrer::link(&self.http, repository, subject, referrer).await
    }

    async fn unlink_referrer(&self, repository: &Repository, subject: &Digest, referrer: &Digest) -> Result<(), Error> {
        referrer::unlink(&self.http, repository, subject, referrer).await
    }

    async fn may_push(&self, repository: &Repository) -> Result<(), Error> {
        let uploads = Uploads { http: &self.http, repository, what: format!("an upload to {}/{repository}", self.http.registry) };
        let session = uploads.begin().await?;
        uploads.cancel(session).await;
        Ok(())
    }
}
