//! The store as a single source to read from, like an upstream.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::Store;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version};
use crate::registry::{BlobStream, Layout, Page, Pull, Resolved, Trust};

/// All repositories of a store. A missing one is empty.
pub(crate) struct StorePull {
    store: Arc<Store>,
    origin: String,
}

impl StorePull {
    /// The repositories of a store.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let origin = format!("store:{}", store.root.display());
        Self { store, origin }
    }

    fn layout(&self, repository: &Repository) -> Result<Arc<Layout>, Error> {
        self.store.existing(repository).map_err(|problem| Error::new(ErrorKind::NotFound, problem.message))
    }
}

#[async_trait]
impl Pull for StorePull {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn trust(&self) -> Trust {
        Trust::Digest
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn ping(&self, _about: Option<&Repository>) -> Result<(), Error> {
        Ok(())
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.layout(repository)?.resolve(repository, version).await
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        self.layout(repository)?.manifest(repository, version).await
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        self.layout(repository)?.blob(repository, descriptor, range).await
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        self.layout(repository)?.blob_size(repository, digest).await
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.layout(repository)?.tags(repository, after).await
    }

    async fn repositories(&self, _after: Option<&str>) -> Result<Page, Error> {
        let store = Arc::clone(&self.store);
        let names = blocking(move || store.repositories().map_err(|error| Error::other(format!("the store: {}", error.kind())))).await?;
        Ok(Page { names: names.iter().map(ToString::to_string).collect(), next: None })
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.layout(repository)?.referrers(repository, subject).await
    }
}
