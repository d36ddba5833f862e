//! The latest nodes that were removed for good: the kernel may still ask for the attributes of one, or hand in the times that it kept for it.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::staging::{Content, Node, NodeKey};

/// Nodes that are remembered.
const REMEMBERED: usize = 4096;

#[derive(Default)]
struct Inner {
    nodes: HashMap<NodeKey, Node>,
    order: VecDeque<NodeKey>,
}

/// Removed nodes, without their bytes. Numbers are never used again, so that none of them can come back.
#[derive(Default)]
pub(in crate::view::overlay) struct Removed(Mutex<Inner>);

impl Removed {
    /// Notes a node that is removed now.
    pub fn note(&self, key: NodeKey, node: Node) {
        let mut inner = self.0.lock();
        if inner.nodes.insert(key, Node { links: 0, content: Content::None, ..node }).is_none() {
            inner.order.push_back(key);
        }
        while inner.order.len() > REMEMBERED {
            if let Some(oldest) = inner.order.pop_front() {
                inner.nodes.remove(&oldest);
            }
        }
    }

    /// The remains of a node.
    pub fn get(&self, key: NodeKey) -> Option<Node> {
        self.0.lock().nodes.get(&key).cloned()
    }
}
