//! The most recently removed nodes: the kernel may still request the attributes of one, or write back its times.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::staging::{Content, Node, NodeKey};

/// Number of nodes kept.
const REMEMBERED: usize = 4096;

#[derive(Default)]
struct Inner {
    nodes: HashMap<NodeKey, Node>,
    order: VecDeque<NodeKey>,
}

/// Removed nodes, without their bytes. Numbers are never reused, so none of them can come back.
#[derive(Default)]
pub(in crate::view::overlay) struct Removed(Mutex<Inner>);

impl Removed {
    /// Notes a node that is being removed.
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

    /// A removed node, if still known.
    pub fn get(&self, key: NodeKey) -> Option<Node> {
        self.0.lock().nodes.get(&key).cloned()
    }
}
