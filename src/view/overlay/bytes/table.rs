//! The open regular files of a tag, by node, including those without a name.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::staging::NodeKey;

struct Inner<File> {
    files: HashMap<NodeKey, Weak<File>>,
    orphans: HashSet<NodeKey>,
}

/// Open files. Its lock is held for map operations only; a file is never dropped under it, since the drop may need it again.
pub(in crate::view::overlay) struct Table<File>(Mutex<Inner<File>>);

impl<File> Default for Table<File> {
    fn default() -> Self {
        Self(Mutex::new(Inner { files: HashMap::new(), orphans: HashSet::new() }))
    }
}

impl<File> Table<File> {
    /// The open file of a node.
    pub fn get(&self, node: NodeKey) -> Option<Arc<File>> {
        self.0.lock().files.get(&node).and_then(Weak::upgrade)
    }

    /// Adds an open file; the caller made sure that there is none.
    pub fn insert(&self, node: NodeKey, file: &Arc<File>, is_orphan: bool) {
        let mut inner = self.0.lock();
        inner.files.insert(node, Arc::downgrade(file));
        if is_orphan {
            inner.orphans.insert(node);
        }
    }

    /// Called when a node lost its last name: returns whether it is open and so lives until it is closed.
    pub fn orphan(&self, node: NodeKey) -> bool {
        let mut inner = self.0.lock();
        let open = inner.files.get(&node).is_some_and(|file| file.strong_count() > 0);
        if open {
            inner.orphans.insert(node);
        }
        open
    }

    /// Whether a node is open.
    pub fn is_open(&self, node: NodeKey) -> bool {
        self.0.lock().files.get(&node).is_some_and(|file| file.strong_count() > 0)
    }

    /// Called when a file was closed for the last time: returns whether its node has no name any more.
    pub fn closed(&self, node: NodeKey) -> bool {
        let mut inner = self.0.lock();
        if inner.files.get(&node).is_some_and(|file| file.strong_count() > 0) {
            // Opened again meanwhile.
            return false;
        }
        inner.files.remove(&node);
        inner.orphans.remove(&node)
    }

    /// All open files. Drop them with no lock of the overlay held.
    pub fn all(&self) -> Vec<Arc<File>> {
        self.0.lock().files.values().filter_map(Weak::upgrade).collect()
    }
}
