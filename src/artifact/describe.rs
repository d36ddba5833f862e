//! Describes an artifact from its manifests alone: fetches no layer.

use std::sync::Arc;

use super::build::source_of;
use super::dialect::{self, manifests};
use super::outline::{Outline, Reader};
use super::{Artifacts, Dialect, ViewMode};
use crate::content::BlobSource;
use crate::error::Error;
use crate::oci::{Digest, Manifest, Platform, Repository};

/// A description of an artifact.
#[derive(Clone, Debug)]
pub struct Description {
    /// The manifest that the tag or digest refers to.
    pub manifest: Arc<Manifest>,
    /// The image manifest that would be shown: the same one, or the platform's member of an index.
    pub shown: Arc<Manifest>,
    /// The dialect that would apply.
    pub dialect: Dialect,
    /// The platform chosen from an index.
    pub platform: Option<Platform>,
    /// Its blobs, as they would be read. Empty for sealed artifacts, whose layers are secret.
    pub sources: Vec<BlobSource>,
    /// Those of the sources that are manifests and no blobs.
    pub manifests: Vec<Digest>,
    /// Parts that cannot be shown as they are; known only for artifacts opened before.
    pub warnings: Vec<String>,
}

impl Description {
    /// Whether a key is needed to read it.
    pub fn is_encrypted(&self) -> bool {
        dialect::is_encrypted(self.dialect, &self.sources)
    }

    /// Total size of the layers as stored, in bytes.
    pub fn size(&self) -> u64 {
        let layers = self.shown.image().filter(|_| self.sources.is_empty()).map(|image| image.layers.iter());
        let sizes = layers.into_iter().flatten().chain(self.sources.iter().map(|source| &source.descriptor));
        sizes.fold(0, |total, layer| total.saturating_add(layer.size))
    }
}

impl Artifacts {
    /// Describes the artifact of a manifest.
    ///
    /// # Errors
    /// The manifest cannot be fetched or parsed.
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
                manifests: Vec::new(),
                warnings: Vec::new(),
            });
        }
        let mut reader = Reader::new(&self.inner, repository, (ViewMode::Merged, &self.platform), true);
        let outline = reader.outline(Arc::clone(&manifest)).await?;
        let Outline { shown, platform, mut plan, .. } = outline;
        let key = self.key(repository, *digest, ViewMode::Merged, None);
        if key.referred {
            self.inner.refer(&mut plan, &shown, repository).await;
        }
        let strict = self.options().strict;
        let mut sources: Vec<BlobSource> = plan.steps.iter().map(|step| source_of(step, repository, strict)).collect();
        let warnings = self.inner.known_warnings(&key, &shown, &mut plan, &mut sources);
        let manifests = manifests(&plan.steps);
        Ok(Description { manifest, shown, dialect: plan.dialect, platform, sources, manifests, warnings })
    }

    /// An artifact's creation time in seconds since 1970: from its manifest, else from an image's config.
    ///
    /// # Errors
    /// The config of an image cannot be read.
    pub async fn created(&self, repository: &Repository, description: &Description) -> Result<Option<i64>, Error> {
        let annotated =
            [&description.manifest, &description.shown].into_iter().find_map(|manifest| dialect::created(manifest.annotations()));
        if annotated.is_some() || description.dialect != Dialect::Image {
            return Ok(annotated);
        }
        let Some(image) = description.shown.image() else { return Ok(None) };
        let reader = Reader::new(&self.inner, repository, (ViewMode::Merged, &self.platform), true);
        let config: Option<Config> = serde_json::from_slice(&reader.config(image).await?).ok();
        Ok(config.and_then(|config| dialect::time_of(&config.created?)))
    }
}

/// The fields read from an image config.
#[derive(serde::Deserialize)]
struct Config {
    created: Option<String>,
}

impl Dialect {
    /// The name used in `user.oci.view`.
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
