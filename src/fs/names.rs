//! The names of one directory of the namespace at one moment. Plain data.

use std::sync::Arc;
use std::time::Instant;

use crate::oci::Digest;

/// The names of a directory at one moment.
#[derive(Debug)]
pub struct Names {
    /// Tags, sorted.
    pub tags: Arc<[String]>,
    /// Names of a layout that are not tags, as shown, and their targets; sorted.
    pub odd: Vec<(String, Digest)>,
    /// Child repositories and prefixes, sorted, including those that a tag hides.
    pub children: Vec<String>,
    /// Whether this is complete.
    pub complete: bool,
    /// Whether there is evidence that the directory exists.
    pub exists: bool,
    /// When it was requested.
    pub taken: Instant,
}

impl Names {
    /// The target of a name of a layout that is not a tag.
    pub fn odd(&self, name: &str) -> Option<Digest> {
        let at = self.odd.binary_search_by(|(shown, _)| shown.as_str().cmp(name)).ok()?;
        self.odd.get(at).map(|(_, digest)| *digest)
    }

    /// Whether a tag is among the names.
    pub fn has_tag(&self, name: &str) -> bool {
        self.tags.binary_search_by(|tag| tag.as_str().cmp(name)).is_ok()
    }
}
