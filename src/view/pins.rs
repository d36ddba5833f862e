//! Files of a view that are open through handles older than the tag's edits.
//!
//! The edits do not know such a handle until it is used. So that it still works after the file has lost its last name,
//! the staged bytes of the file are kept for as long as the handle.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::staging::NodeKey;

/// Number of such handles per file. Held for map operations only.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<NodeKey, u32>>);

impl Pins {
    /// Whether a file has any.
    pub fn has(&self, node: NodeKey) -> bool {
        self.0.lock().contains_key(&node)
    }

    pub fn add(&self, node: NodeKey) {
        *self.0.lock().entry(node).or_default() += 1;
    }

    /// Returns whether it was the last one.
    pub fn remove(&self, node: NodeKey) -> bool {
        let mut pins = self.0.lock();
        let Some(count) = pins.get_mut(&node) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            pins.remove(&node);
        }
        is_last
    }
}
