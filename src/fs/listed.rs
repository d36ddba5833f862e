//! The content of an open directory at the time it was opened.

use std::sync::Arc;

use super::location::Location;
use super::names::Names;
use crate::oci::Repository;
use crate::view::{Name, View, ViewNode};

/// The content of an open directory.
pub(super) struct Listed {
    /// The directory's inode number.
    pub(super) number: u64,
    pub(super) parent: u64,
    pub(super) source: ListingSource,
}

pub(super) enum ListingSource {
    /// A registry, prefix or repository at one moment.
    Namespace(Option<Repository>, Arc<Names>),
    /// `.oci/repos`
    Repositories(Option<Repository>, Arc<Names>),
    /// `.oci/tags`
    Tags(Repository, Arc<Names>),
    /// `.oci`
    Window(Vec<(&'static str, Location)>),
    /// A directory of metadata at one moment.
    Metadata(Arc<View>, Vec<Name>),
    /// A directory of the files of an artifact, with the edits of the tag if any.
    Files(Arc<View>, ViewNode),
}
