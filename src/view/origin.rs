//! The key of a view, and where its content comes from. Plain data.

use std::sync::Arc;

use crate::oci::{Digest, Manifest, Repository, Tag};

/// The key of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The files of a tag.
    Tag(Repository, Tag),
    /// The files of a manifest by digest. The name is the path component that leads to it.
    Digest(Repository, Digest),
    /// A name of a layout that is not a tag, as it is shown, and its target: when that changes, it is another view.
    Odd(String, Digest),
    /// The metadata of a tag.
    Metadata(Repository, Tag),
    /// A directory of another view that is a view of its own: the other's number and the name of the member.
    Member(u32, Member),
}

/// Which directory of a metadata view is a view of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// A layer by its number.
    Layer(u32),
    /// A platform of an index by its number in the index.
    Platform(u32),
    /// An attachment.
    Referrer(Digest),
}

/// Where the content of a view comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The binding of a tag when it is entered.
    Tag(Repository, Tag),
    /// A manifest by digest.
    Digest(Repository, Digest),
    /// Metadata of the digest that a tag names when it is entered.
    TagMetadata(Repository, Tag),
    /// About a manifest; `depth` directories lie between it and the repository's.
    DigestMetadata {
        /// The repository.
        repository: Repository,
        /// The manifest.
        digest: Digest,
        /// Directories up to that of the repository.
        depth: usize,
    },
    /// One layer alone.
    Layer {
        /// The repository.
        repository: Repository,
        /// The image manifest that names it.
        manifest: Arc<Manifest>,
        /// Its number there.
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
    /// The repository that everything is asked from.
    pub fn repository(&self) -> &Repository {
        match self {
            Self::Tag(repository, _) | Self::Digest(repository, _) | Self::TagMetadata(repository, _) => repository,
            Self::DigestMetadata { repository, .. } | Self::Layer { repository, .. } | Self::Platform { repository, .. } => repository,
        }
    }

    /// Whether the user named a digest, so that nothing else is to be trusted.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self, Self::Digest(..))
    }
}
