//! Counts the requests and bytes of an upstream.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;

use super::metrics::UpstreamMetrics;
use crate::error::Error;
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version};
use crate::registry::{BlobStream, Page, Pull, Resolved, Trust};

/// Wraps a registry and counts what is requested from it.
pub(super) struct Metered {
    pull: Arc<dyn Pull>,
    metrics: UpstreamMetrics,
}

impl Metered {
    pub(super) fn new(pull: Arc<dyn Pull>, metrics: UpstreamMetrics) -> Self {
        Self { pull, metrics }
    }

    fn note<T>(&self, operation: &'static str, answer: Result<T, Error>) -> Result<T, Error> {
        self.metrics.asked(operation, answer.as_ref().err().map(|error| error.kind));
        answer
    }
}

#[async_trait]
impl Pull for Metered {
    fn origin(&self) -> &str {
        self.pull.origin()
    }

    fn trust(&self) -> Trust {
        self.pull.trust()
    }

    async fn ping(&self, about: Option<&Repository>) -> Result<(), Error> {
        self.note("ping", self.pull.ping(about).await)
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.note("resolve", self.pull.resolve(repository, version).await)
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        let manifest = self.note("manifest", self.pull.manifest(repository, version).await)?;
        self.metrics.received(manifest.raw.len() as u64);
        Ok(manifest)
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let stream = self.note("blob", self.pull.blob(repository, descriptor, range).await)?;
        let metrics = self.metrics.clone();
        Ok(Box::pin(stream.inspect(move |piece| match piece {
            Ok(bytes) => metrics.received(bytes.len() as u64),
            Err(error) => metrics.asked("transfer", Some(error.kind)),
        })))
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        self.note("blob-size", self.pull.blob_size(repository, digest).await)
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.note("tags", self.pull.tags(repository, after).await)
    }

    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error> {
        self.note("repositories", self.pull.repositories(after).await)
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.note("referrers", self.pull.referrers(repository, subject).await)
    }

    fn away_since(&self) -> Option<Instant> {
        self.pull.away_since()
    }

    fn unanswered(&self) -> Option<Error> {
        self.pull.unanswered()
    }

    fn throttled(&self) -> Option<Duration> {
        self.pull.throttled()
    }

    fn ignores_ranges(&self) -> bool {
        self.pull.ignores_ranges()
    }

    async fn odd_names(&self, repository: &Repository) -> Result<Vec<(String, Descriptor)>, Error> {
        self.pull.odd_names(repository).await
    }
}
