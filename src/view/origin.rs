//! The key of a view, and the source of its content. Plain data.

use std::sync::Arc;

use crate::oci::{Digest, Manifest, Repository, Tag};

/// The key of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The files of a tag.
    Tag(Repository, Tag),
    /// The files of a manifest by digest, named by the path component that leads to it.
    Digest(Repository, Digest),
    /// A name of a layout that is not a tag, as shown, and its target; a new target is a new view.
    Odd(String, Digest),
    /// The metadata of a tag.
    Metadata(Repository, Tag),
    /// A directory of another view that is itself a view: the other's number and the member's name.
    Member(u32, Member),
}

/// Which directory of a metadata view is itself a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// A layer, by its index.
    Layer(u32),
    /// A platform of an index, by its position in the index.
    Platform(u32),
    /// An attachment.
    Referrer(Digest),
}

/// The source of a view's content.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The digest of a tag at the time it is entered.
    Tag(Repository, Tag),
    /// A manifest by digest.
    Digest(Repository, Digest),
    /// Metadata of the digest that a tag has at the time it is entered.
    TagMetadata(Repository, Tag),
    /// Metadata of a manifest; `depth` directories lie between it and the repository's.
    DigestMetadata {
        /// The repository.
        repository: Repository,
        /// The manifest.
        digest: Digest,
        /// Directories up to that of the repository.
        depth: usize,
    },
    /// A single layer.
    Layer {
        /// The repository.
        repository: Repository,
        /// The image manifest that lists it.
        manifest: Arc<Manifest>,
        /// Its index there.
        number: usize,
    },
    /// One member of an index.
    Platform {
        /// The repository.
        repository: Repository,
        /// The member's manifest.
        digest: Digest,
    },
}

impl Origin {
    /// The repository that all requests go to.
    pub fn repository(&self) -> &Repository {
        match self {
            Self::Tag(repository, _) | Self::Digest(repository, _) | Self::TagMetadata(repository, _) => repository,
            Self::DigestMetadata { repository, .. } | Self::Layer { repository, .. } | Self::Platform { repository, .. } => repository,
        }
    }

    /// Whether the user gave a digest, so that nothing else may be trusted.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self, Self::Digest(..))
    }
}
