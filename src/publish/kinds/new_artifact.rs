//! The wishes for an artifact that edits nothing.

use crate::publish::ArtifactKind;
use crate::publish::manifest::metadata::Metadata;

/// The kind of a new artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKind {
    /// One that edits can make too.
    Editable(ArtifactKind),
    /// A raw layer a file and an archive a directory, as ORAS makes them.
    Oras,
}

/// A path that is a layer of its own.
#[derive(Clone, Debug)]
pub(in crate::publish) struct Own {
    pub path: Vec<u8>,
    pub media_type: Option<String>,
}

/// How a tree without a base becomes an artifact.
pub(in crate::publish) struct NewArtifact {
    pub kind: NewKind,
    /// Paths that are layers of their own, in the order of the layers.
    pub own: Vec<Own>,
    /// Directories that exist only because a path inside them was named.
    pub implied: Vec<Vec<u8>>,
    pub metadata: Metadata,
}

impl NewArtifact {
    /// One whose layers follow from its tree alone.
    pub fn of_kind(kind: ArtifactKind) -> Self {
        Self { kind: NewKind::Editable(kind), own: Vec::new(), implied: Vec::new(), metadata: Metadata::default() }
    }
}
