//! An artifact that was looked up, with the modules that read it.

use std::sync::Arc;

use super::reference;
use super::wiring::Parts;
use crate::artifact::{Artifact, ViewMode};
use crate::cli::exit::Failure;
use crate::oci::{Digest, Repository, Source};

/// An artifact that exists.
pub struct Resolved {
    /// The modules that read it.
    pub parts: Parts,
    /// Its repository.
    pub repository: Repository,
    /// Its digest.
    pub digest: Digest,
}

impl Resolved {
    /// Looks an artifact up.
    ///
    /// # Errors
    /// The artifact does not exist, or the registry does not answer.
    pub async fn find(source: &Source, parts: Parts) -> Result<Self, Failure> {
        let (repository, version) = reference::named(source, parts.pull.as_ref()).await?;
        // This also records the tag for when the registry is unreachable.
        let digest = parts.artifacts.digest(&repository, &version).await?;
        Ok(Self { parts, repository, digest })
    }

    /// The artifact, as a mount shows it by default; `strict` verifies blobs whole.
    ///
    /// # Errors
    /// Its manifest or an index cannot be read.
    pub async fn artifact(&self, strict: bool) -> Result<Arc<Artifact>, Failure> {
        Ok(self.parts.artifacts.artifact(&self.repository, &self.digest, ViewMode::Merged, strict).await?)
    }
}
