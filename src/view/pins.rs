//! Files of a view that are open through handles from before its tag had edits.
//!
//! Edits know nothing of such a handle until it is used. So that it can still be used when the file has lost its last name meanwhile,
//! what is staged of the file is kept for as long as the handle.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{View, ViewNode};

/// How many such handles each file has. Held for map operations only.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<ViewNode, u32>>);

impl Pins {
    /// Whether a file has any.
    pub fn has(&self, node: ViewNode) -> bool {
        self.0.lock().contains_key(&node)
    }

    fn add(&self, node: ViewNode) {
        *self.0.lock().entry(node).or_default() += 1;
    }

    /// Whether it was the last one.
    fn remove(&self, node: ViewNode) -> bool {
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

/// A handle on a file, for as long as this lives.
pub struct Pin {
    view: Arc<View>,
    node: ViewNode,
}

impl View {
    /// Notes that a file is open. To be called before it is looked whether the view has edits.
    pub fn pin(self: &Arc<Self>, node: ViewNode) -> Pin {
        self.pins.add(node);
        Pin { view: Arc::clone(self), node }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.view.pins.remove(self.node)
            && let Some(overlay) = self.view.overlay()
        {
            overlay.unpinned(self.node);
        }
    }
}
