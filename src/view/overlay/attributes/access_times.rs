//! Access times that were set explicitly. Artifacts store none, so they live in memory only.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::view::ViewNode;

/// Number of access times kept.
const ACCESS_TIMES: usize = 4096;

/// The most recently set access times.
#[derive(Default)]
pub(in crate::view::overlay) struct AccessTimes(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    times: HashMap<ViewNode, (i64, u32)>,
    /// Nodes in the order in which they were first set.
    order: VecDeque<ViewNode>,
}

impl AccessTimes {
    pub fn get(&self, node: ViewNode) -> Option<(i64, u32)> {
        self.0.lock().times.get(&node).copied()
    }

    pub fn set(&self, node: ViewNode, time: (i64, u32)) {
        let mut inner = self.0.lock();
        if inner.times.insert(node, time).is_none() {
            inner.order.push_back(node);
        }
        while inner.order.len() > ACCESS_TIMES {
            if let Some(oldest) = inner.order.pop_front() {
                inner.times.remove(&oldest);
            }
        }
    }
}
