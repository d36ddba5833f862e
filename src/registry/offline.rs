//! The `--offline` stand-in for a source: it sends no request.

use std::ops::Range;

use async_trait::async_trait;

use super::{BlobStream, Page, Pull, Resolved, Trust};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version};

/// Fails every request with `Unreachable`. Only name and trust are those of the source.
pub struct Offline {
    origin: String,
    trust: Trust,
}

impl Offline {
    /// Stands in for a source.
    pub fn new(place: &dyn Pull) -> Self {
        Self { origin: place.origin().to_owned(), trust: place.trust() }
    }

    fn refuse<T>(&self, what: impl std::fmt::Display) -> Result<T, Error> {
        let origin = self.origin.escape_default();
        Err(Error::new(ErrorKind::Unreachable, format!("{what} is not cached (--offline: not asking {origin})")))
    }
}

#[async_trait]
impl Pull for Offline {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn trust(&self) -> Trust {
        self.trust
    }

    async fn ping(&self, _about: Option<&Repository>) -> Result<(), Error> {
        self.refuse("an answer to a ping")
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.refuse(named(repository, version))
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        self.refuse(named(repository, version))
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, _range: Range<u64>) -> Result<BlobStream, Error> {
        self.refuse(format_args!("the blob {repository}@{}", descriptor.digest))
    }

    async fn tags(&self, repository: &Repository, _after: Option<&str>) -> Result<Page, Error> {
        self.refuse(format_args!("the list of tags of {repository}"))
    }

    async fn repositories(&self, _after: Option<&str>) -> Result<Page, Error> {
        self.refuse("the list of repositories")
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.refuse(format_args!("the list of referrers of {repository}@{subject}"))
    }
}

fn named(repository: &Repository, version: &Version) -> String {
    match version {
        Version::Tag(tag) => format!("{repository}:{tag}"),
        Version::Digest(digest) => format!("{repository}@{digest}"),
    }
}
