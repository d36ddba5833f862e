//! The settings that every publish of one place shares.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::Sizes;
use crate::artifact::IdentityDefaults;
use crate::registry::Push;
use crate::view::{ArtifactKind, Context};

/// Publishes edited tags of one place.
#[derive(Clone)]
pub struct Publisher {
    /// State shared by views: artifacts, keys, platform.
    pub context: Arc<Context>,
    /// The registry that is published to.
    pub push: Arc<dyn Push>,
    /// Kind of new artifacts, unless the options name one.
    pub kind: ArtifactKind,
    /// Blobs sent at a time, unless the options say otherwise.
    pub concurrency: NonZeroUsize,
    /// How trees are cut into layers.
    pub sizes: Sizes,
    /// Whether indexes of the layers of images and oci-sync artifacts are attached as referrers.
    pub attach_index: bool,
}

impl Publisher {
    /// The owner by which trees without one are identified.
    pub(super) fn identity_defaults(&self) -> IdentityDefaults {
        let defaults = &self.context.defaults;
        IdentityDefaults { owner: (defaults.uid, defaults.gid) }
    }
}
