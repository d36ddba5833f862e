//! Requests for an artifact without a base.

use crate::publish::ArtifactKind;
use crate::publish::manifest::metadata::Metadata;

/// The kind of a new artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKind {
    /// A kind that edits can also produce.
    Editable(ArtifactKind),
    /// One raw layer per file and one archive per directory, as ORAS makes them.
    Oras,
}

/// A path with its own layer.
#[derive(Clone, Debug)]
pub(in crate::publish) struct Own {
    pub path: Vec<u8>,
    pub media_type: Option<String>,
}

/// How to turn a tree without a base into an artifact.
pub(in crate::publish) struct NewArtifact {
    pub kind: NewKind,
    /// Paths with their own layers, in layer order.
    pub own: Vec<Own>,
    /// Directories that exist only because something inside them was named.
    pub implied: Vec<Vec<u8>>,
    pub metadata: Metadata,
}

impl NewArtifact {
    /// An artifact whose layers follow from its tree alone.
    pub fn of_kind(kind: ArtifactKind) -> Self {
        Self { kind: NewKind::Editable(kind), own: Vec::new(), implied: Vec::new(), metadata: Metadata::default() }
    }
}
