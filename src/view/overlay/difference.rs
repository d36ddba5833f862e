//! How the merged state differs from what the tag holds upstream.

use super::Overlay;
use super::plain::{Difference, State};
use crate::view::{Context, Error, ViewNode};

impl Overlay {
    /// How a node differs from upstream (`user.ocifs.state`).
    pub fn state(&self, _node: ViewNode) -> Result<State, Error> {
        todo!()
    }

    /// All that differs from what the tag is expected to hold, by path.
    pub async fn differences(&self, _context: &Context) -> Result<Vec<Difference>, Error> {
        todo!()
    }
}
