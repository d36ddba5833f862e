//! One handle on a file from before its tag had edits; see [`Pins`](super::pins::Pins).

use std::sync::Arc;

use super::{View, ViewNode};

/// Keeps a file pinned while this value lives.
pub struct Pin {
    view: Arc<View>,
    node: ViewNode,
}

impl View {
    /// Notes that a file is open. Call before checking whether the view has edits.
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
