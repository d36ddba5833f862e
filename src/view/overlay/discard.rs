//! Taking edits back.

use super::Overlay;
use super::plain::Forgotten;
use crate::view::Error;

impl Overlay {
    /// Takes back what was changed below a path (all if empty): names lead to fresh nodes that refer to the tree. Answers the inodes and names that the
    /// kernel must forget.
    pub fn discard(&self, _path: &[u8]) -> Result<Vec<Forgotten>, Error> {
        todo!()
    }
}
