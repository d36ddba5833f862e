//! The rows of nodes last read or stored: the kernel sends several requests about a new file one after the other, which then need no query.
//!
//! Belongs to a connection and is accessed under its lock. [`super::Change`] keeps it up to date; whatever else writes nodes clears it.

use super::{Node, NodeKey};

/// Nodes kept, each in the place that its number determines: a directory stays while as many files are created in it.
const PLACES: usize = 64;

/// Rows as they are in the database, seen through the connection that they belong to.
pub(super) struct Recent {
    places: Vec<Option<Known>>,
}

struct Known {
    key: NodeKey,
    node: Node,
    /// It has no extended attributes.
    is_bare: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| None).collect() }
    }
}

impl Recent {
    fn place(&mut self, key: NodeKey) -> Option<&mut Option<Known>> {
        self.places.get_mut(usize::try_from(key % PLACES as u64).unwrap_or(0))
    }

    fn known(&self, key: NodeKey) -> Option<&Known> {
        let place = self.places.get(usize::try_from(key % PLACES as u64).unwrap_or(0));
        place.and_then(Option::as_ref).filter(|known| known.key == key)
    }

    /// The row of a node, if it is known.
    pub fn node(&self, key: NodeKey) -> Option<&Node> {
        self.known(key).map(|known| &known.node)
    }

    /// Whether a node is known to have no extended attributes.
    pub fn is_bare(&self, key: NodeKey) -> bool {
        self.known(key).is_some_and(|known| known.is_bare)
    }

    /// Keeps the row of a node.
    pub fn keep(&mut self, key: NodeKey, node: &Node) {
        let is_bare = self.is_bare(key);
        if let Some(place) = self.place(key) {
            *place = Some(Known { key, node: node.clone(), is_bare });
        }
    }

    /// Records whether a node, if its row is known, has no extended attributes.
    pub fn set_bare(&mut self, key: NodeKey, is_bare: bool) {
        if let Some(Some(known)) = self.place(key)
            && known.key == key
        {
            known.is_bare = is_bare;
        }
    }

    /// Forgets a node.
    pub fn forget(&mut self, key: NodeKey) {
        if self.known(key).is_some()
            && let Some(place) = self.place(key)
        {
            *place = None;
        }
    }

    /// Forgets all nodes.
    pub fn clear(&mut self) {
        self.places.fill_with(|| None);
    }
}
