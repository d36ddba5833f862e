//! What an artifact is, told from its manifests alone: no layer is fetched.

use std::sync::Arc;

use super::build::source_of;
use super::dialect;
use super::outline::{Outline, Reader};
use super::{Artifacts, Dialect, Error, ViewMode};
use crate::content::BlobSource;
use crate::oci::{Digest, Manifest, Platform, Repository};

/// What an artifact is.
#[derive(Clone, Debug)]
pub struct Description {
    /// What the tag or digest names.
    pub manifest: Arc<Manifest>,
    /// The image manifest that would be shown: the same, or the platform's member of an index.
    pub shown: Arc<Manifest>,
    /// The rule by which it would be shown.
    pub dialect: Dialect,
    /// The platform that was chosen from an index.
    pub platform: Option<Platform>,
    /// Its blobs, as they would be read. Empty for sealed artifacts, whose layers are secret.
    pub sources: Vec<BlobSource>,
    /// Parts that cannot be shown as they are; known only for artifacts opened before.
    pub warnings: Vec<String>,
}

impl Artifacts {
    /// Describes the artifact of a manifest.
    ///
    /// # Errors
    /// A manifest that cannot be fetched or read.
    pub async fn describe(&self, repository: &Repository, digest: &Digest) -> Result<Description, Error> {
        let manifest = self.manifest(repository, digest).await?;
        if dialect::is_sealed(&manifest) {
            let shown = Arc::clone(&manifest);
            return Ok(Description {
                manifest,
                shown,
                dialect: Dialect::Sealed,
                platform: None,
                sources: Vec::new(),
                warnings: Vec::new(),
            });
        }
        let mut reader = Reader::new(&self.inner, repository, (ViewMode::Merged, &self.platform), true);
        let outline = reader.outline(Arc::clone(&manifest)).await?;
        let Outline { shown, platform, mut plan, .. } = outline;
        let mut sources: Vec<BlobSource> = plan.steps.iter().map(|step| source_of(step, repository, true)).collect();
        let key = self.key(repository, *digest, ViewMode::Merged, None);
        let warnings = self.inner.known_warnings(&key, &shown, &mut plan, &mut sources);
        Ok(Description { manifest, shown, dialect: plan.dialect, platform, sources, warnings })
    }
}

impl Dialect {
    /// The word for it, as in `user.oci.view`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OciSync => "oci-sync",
            Self::Sealed => "sealed",
            Self::Members => "index",
            Self::Image => "image",
            Self::Files => "files",
            Self::Archive => "archive",
            Self::Blobs => "blobs",
        }
    }
}
