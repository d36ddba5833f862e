//! Dialects: from a manifest to the tree of an artifact; the memory-mapped tree; what was seen, kept for offline use.

mod merge;
mod tree;

use std::sync::Arc;
use std::time::Duration;

pub use tree::{Child, Content, Kind, Node, NodeId, Tree};

use crate::content::ContentStream;
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository, Tag};

/// Why an artifact cannot be shown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a caller can act on.
    pub kind: ErrorKind,
    /// What happened to which artifact.
    pub message: String,
}

/// Which form of an artifact is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ViewMode {
    /// What its dialect says.
    #[default]
    Merged,
    /// A directory a layer, whiteouts visible.
    Layers,
    /// A file a blob, as stored.
    Blobs,
}

/// The rule by which an artifact is read; shown as `user.oci.view`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// oci-sync, plain or sealed.
    OciSync,
    /// Sealed by `dev.ocifs.seal`: recognised, answers KeyMissing.
    Sealed,
    /// An index without a fitting platform: a directory of its members.
    Members,
    /// Root file system layers.
    Image,
    /// Titled layers.
    Files,
    /// One untitled archive.
    Archive,
    /// Anything else.
    Blobs,
}

/// What does not change during a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a tag's digest or a list is fresh.
    pub tag_ttl: Duration,
    /// The platform chosen from an index.
    pub platform: Platform,
    /// Form of tag and digest directories.
    pub view: ViewMode,
    /// Never ask the registry.
    pub offline: bool,
    /// Digests are what the user trusts (`--verify strict`, or mounted by digest).
    pub strict: bool,
    /// Repositories the user named, for registries without a catalog.
    pub repositories: Vec<Repository>,
}

/// A list of names and whether it is all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Sorted names that follow the grammar.
    pub names: Arc<[String]>,
    /// False where the registry refuses to list, or could not be asked just now.
    pub complete: bool,
}

/// One artifact as a tree: what a view shows. Immutable.
pub struct Artifact {
    /// What the tag or digest names.
    pub manifest: Arc<Manifest>,
    /// The image manifest that is shown: the same, or the platform's member of an index.
    pub shown: Arc<Manifest>,
    /// The rule.
    pub dialect: Dialect,
    /// The platform that was chosen from an index.
    pub platform: Option<Platform>,
    /// Names and nodes.
    pub tree: Tree,
}

/// Artifacts of one registry or layout, and what is known of its tags and lists. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts {
    _inner: Arc<()>,
}

impl Artifacts {
    /// The digest of a tag: known and fresh, else asked for (HEAD), else the last known while the registry is
    /// unreachable. NotFound only if the registry said so within 5 seconds, or offline.
    pub async fn tag(&self, _repository: &Repository, _tag: &Tag) -> Result<Digest, Error> {
        todo!()
    }

    /// The tags of a repository, bookkeeping tags left out. NotFound if the registry knows no such repository.
    pub async fn tags(&self, _repository: &Repository) -> Result<Listing, Error> {
        todo!()
    }

    /// All repositories known at or below a prefix (full names); partial where the registry has no catalog.
    pub async fn repositories(&self, _prefix: Option<&Repository>) -> Result<Listing, Error> {
        todo!()
    }

    /// Notes that a repository turned out to exist.
    pub fn learned(&self, _repository: &Repository) {
        todo!()
    }

    /// A manifest by digest, remembered on disk.
    pub async fn manifest(&self, _repository: &Repository, _digest: &Digest) -> Result<Arc<Manifest>, Error> {
        todo!()
    }

    /// The artifact of a manifest, with its tree built or mapped.
    pub async fn artifact(
        &self,
        _repository: &Repository,
        _digest: &Digest,
        _view: ViewMode,
        _strict: bool,
    ) -> Result<Arc<Artifact>, Error> {
        todo!()
    }

    /// One member of an index, whatever its platform.
    pub async fn layer(
        &self,
        _repository: &Repository,
        _manifest: &Manifest,
        _number: usize,
        _strict: bool,
    ) -> Result<Arc<Artifact>, Error> {
        todo!()
    }

    /// The manifests that refer to a digest.
    pub async fn referrers(&self, _repository: &Repository, _subject: &Digest) -> Result<Arc<[Descriptor]>, Error> {
        todo!()
    }

    /// The stream that a file's content lies in; `blob` is the number that [`Content`] names.
    pub async fn stream(&self, _repository: &Repository, _artifact: &Artifact, _blob: u32, _strict: bool) -> Result<ContentStream, Error> {
        todo!()
    }

    /// Forgets how fresh tags and lists are (all, or of one repository), so that the next use asks.
    pub fn refresh(&self, _repository: Option<&Repository>) {
        todo!()
    }
}
