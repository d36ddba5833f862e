//! From an edited tag to a new digest under that tag: plan, pack, push, journal.
//!
//! The order is the promise: blobs, then the manifest by digest, then the tag compared with what it was expected to hold, then
//! the tag, then its confirmation; only then are staged bytes given up. It never overwrites what it did not expect and never
//! deletes a sibling. It knows no mount: `fs` and the command line hand it edited tags.

mod compare;
mod deliver;
mod directory;
mod flow;
mod ignore;
mod join;
mod kinds;
mod manifest;
mod metadata;
mod options;
mod outcomes;
mod packing;
mod packs;
mod plan;
mod produce;
mod push;
mod rebase;
mod report;
mod seal;
mod secrecy;
mod snapshot;
mod store;
mod survey;
mod tag;
#[cfg(test)]
mod tests;
mod upload;

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::registry::Push;
pub use crate::view::ArtifactKind;
use crate::view::{Context, Overlay};
use crate::{artifact, layer, oci, registry, seal as envelope, staging, view};

pub use directory::Input;
pub use ignore::{IGNORE_FILE, IGNORE_LIMIT, LeftOut};
pub use kinds::NewKind;
pub use metadata::{Config, ImageSpec, Metadata};
pub use options::{Options, Sizes};
pub use packs::Packs;
pub use push::{Pushed, Pushing};
pub use report::{Event, Listener, Next, Outcome, Report};

/// Why a tag was not published. Everything staged is still there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Conflict where the tag moved, Skipped where safety said no, else what the registry or the disk said.
    pub kind: ErrorKind,
    /// The failure, the tag it concerns, and the ways out.
    pub message: String,
}

/// Publishes edited tags of one place.
#[derive(Clone)]
pub struct Publisher {
    /// State shared by views: artifacts, keys, platform.
    pub context: Arc<Context>,
    /// Where to.
    pub push: Arc<dyn Push>,
    /// Kind of new artifacts where neither options nor the base say.
    pub kind: ArtifactKind,
    /// Blobs sent at a time where the options do not say.
    pub concurrency: NonZeroUsize,
    /// How trees are cut into layers.
    pub sizes: Sizes,
    /// Whether indexes of the layers of images and oci-sync artifacts are attached as referrers.
    pub attach_index: bool,
}

impl Publisher {
    /// Publishes one tag. Dropping the future stops it; what was packed and sent is taken up by the next one.
    ///
    /// # Errors
    /// Why it was not published; the upper is whole.
    pub async fn publish(&self, overlay: &Arc<Overlay>, options: &Options, listener: &Listener) -> Result<(Report, Next), Error> {
        flow::Publish::begin(self, overlay, options, listener)?.run().await
    }

    /// The artifact that the tag would become, for comparing; nothing is sent. `None` if nothing differs or the tag would be deleted.
    ///
    /// # Errors
    /// Those of [`Publisher::publish`].
    pub async fn preview(&self, overlay: &Arc<Overlay>, options: &Options) -> Result<Option<Digest>, Error> {
        let options = Options { dry_run: true, ..options.clone() };
        let (report, _) = self.publish(overlay, &options, &(Arc::new(|_| {}) as Listener)).await?;
        Ok(match report.outcome {
            Outcome::Published { digest, .. } => Digest::parse(&digest).ok(),
            _ => None,
        })
    }
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    /// A failure of the disk.
    fn disk(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::io(&format!("{doing} {}", path.display()), error)
    }

    fn io(doing: &str, error: &io::Error) -> Self {
        let message = format!("{doing}: {error}");
        if crate::durable::is_full(error) { Self::full(&message) } else { Self::other(message) }
    }

    /// The disk on which layers are packed is full.
    fn full(message: &str) -> Self {
        let ways = "the disk that holds the state directory is full; all edits are kept: free some space, then sync again";
        Self::new(ErrorKind::NoSpace, format!("{message}; {ways}"))
    }

    /// The same, with the object that it happened to in front.
    fn about(self, what: &str) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }
}

impl From<view::Error> for Error {
    fn from(error: view::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<crate::content::Error> for Error {
    fn from(error: crate::content::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<artifact::Error> for Error {
    fn from(error: artifact::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<staging::Error> for Error {
    fn from(error: staging::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<layer::Error> for Error {
    fn from(error: layer::Error) -> Self {
        // Nothing but a packed layer is written through it.
        if error.kind == ErrorKind::NoSpace { Self::full(&error.message) } else { Self::new(error.kind, error.message) }
    }
}

impl From<envelope::Error> for Error {
    fn from(error: envelope::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<oci::InvalidManifest> for Error {
    fn from(error: oci::InvalidManifest) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}
