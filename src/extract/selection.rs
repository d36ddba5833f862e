//! Selects the names to extract: all, or those matching a glob, with everything below them.

use crate::error::{Error, ErrorKind};
use crate::view::glob;

/// Globs over whole paths, or one path. Empty selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    globs: Vec<Vec<u8>>,
    path: Option<Vec<u8>>,
}

impl Selection {
    /// Takes globs over paths of the tree; leading `./` and leading or trailing slashes are ignored.
    ///
    /// # Errors
    /// Invalid if a glob is empty.
    pub fn new(globs: &[String]) -> Result<Self, Error> {
        let clean = |text: &String| {
            let text = text.strip_prefix("./").unwrap_or(text).trim_matches('/');
            if text.is_empty() {
                return Err(Error::new(ErrorKind::Invalid, "a path to pull is empty; leave it out to pull everything"));
            }
            Ok(text.as_bytes().to_vec())
        };
        Ok(Self { globs: globs.iter().map(clean).collect::<Result<_, _>>()?, path: None })
    }

    /// Selects one path and everything below it; the empty path selects everything.
    pub fn at(path: &[u8]) -> Self {
        Self { globs: Vec::new(), path: (!path.is_empty()).then(|| path.to_vec()) }
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.globs.is_empty() && self.path.is_none()
    }

    /// Whether a path itself matches a glob.
    pub(super) fn names(&self, path: &[u8]) -> bool {
        self.path.as_deref() == Some(path) || self.globs.iter().any(|pattern| glob(pattern, path))
    }
}
