//! The names that one directory of the namespace held at one moment. Plain data.

use std::sync::Arc;
use std::time::Instant;

use crate::oci::Digest;

/// The names of a directory at one moment.
#[derive(Debug)]
pub struct Names {
    /// Tags, sorted.
    pub tags: Arc<[String]>,
    /// Names of a layout that are not tags, as shown, and what they name.
    pub odd: Vec<(String, Digest)>,
    /// Child repositories and prefixes, sorted; those that a tag hides too.
    pub children: Vec<String>,
    /// Whether this is all there is.
    pub complete: bool,
    /// Whether anything says that the directory exists.
    pub exists: bool,
    /// When it was asked for.
    pub taken: Instant,
}

impl Names {
    /// Whether a tag is among the names.
    pub fn has_tag(&self, name: &str) -> bool {
        self.tags.binary_search_by(|tag| tag.as_str().cmp(name)).is_ok()
    }
}
