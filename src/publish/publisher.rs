//! Settings shared by all publishes to one registry or layout.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::Sizes;
use super::plan::identity::LayerIdentities;
use crate::artifact::IdentityDefaults;
use crate::registry::Push;
use crate::view::{ArtifactKind, Context};

/// Publishes edited tags to one registry or layout.
#[derive(Clone)]
pub struct Publisher {
    /// State shared by views: artifacts, keys, platform.
    pub context: Arc<Context>,
    /// The registry to publish to.
    pub push: Arc<dyn Push>,
    /// Kind of new artifacts, unless the options name one.
    pub kind: ArtifactKind,
    /// Concurrent uploads, unless the options say otherwise.
    pub concurrency: NonZeroUsize,
    /// How trees are split into layers.
    pub sizes: Sizes,
    /// Whether to attach layer indexes of images and oci-sync artifacts as referrers.
    pub attach_index: bool,
    /// Identities of layers computed so far.
    pub identities: Arc<LayerIdentities>,
}

impl Publisher {
    /// The owner assumed for trees without one, for their identity.
    pub(super) fn identity_defaults(&self) -> IdentityDefaults {
        let defaults = &self.context.defaults;
        IdentityDefaults { owner: (defaults.uid, defaults.gid) }
    }
}
