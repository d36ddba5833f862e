//! Content descriptors: media type, digest, size and annotations of one blob or manifest.

use std::collections::BTreeMap;

use super::{Digest, InvalidManifest, Platform};

/// A validated descriptor. The size is a *claim* of the manifest; never allocate from it.
///
/// <https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type as written; may be unknown.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Claimed size in bytes.
    pub size: u64,
    /// Artifact type, in entries of indexes and referrers lists.
    pub artifact_type: Option<String>,
    /// Annotations, sorted by key.
    pub annotations: BTreeMap<String, String>,
    /// Platform, in entries of an index.
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, artifact_type: None, annotations: BTreeMap::new(), platform: None }
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Validates a descriptor parsed by `oci-spec`.
    ///
    /// # Errors
    /// The digest is malformed. `urls` and `data` are dropped: bytes come from the registry asked, and are verified.
    pub(super) fn from_spec(spec: &oci_spec::image::Descriptor) -> Result<Self, InvalidManifest> {
        Ok(Self {
            media_type: spec.media_type().to_string(),
            digest: Digest::parse(spec.digest().as_ref())?,
            size: spec.size(),
            artifact_type: spec.artifact_type().as_ref().map(ToString::to_string),
            annotations: spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
            platform: spec.platform().as_ref().map(Platform::from_spec),
        })
    }
}
