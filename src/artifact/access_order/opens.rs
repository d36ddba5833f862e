//! The files of an artifact that this process opened, and the order that is followed meanwhile. Pure.

use std::collections::HashSet;

use super::follow::Follower;
use crate::artifact::tree::NodeId;
use crate::layer::ACCESS_ORDER_FILES;

/// The files of one artifact that this process opened.
#[derive(Default)]
pub struct Opens {
    /// In the order of their first opens.
    pub opened: Vec<NodeId>,
    seen: HashSet<NodeId>,
    /// Set once the order remembered before is known.
    pub follower: Option<Follower>,
    /// Whether they are waiting to be stored.
    pub are_queued: bool,
}

/// The work that an open calls for.
pub struct Noted {
    /// Files to fetch.
    pub ahead: Vec<NodeId>,
    /// Whether the order foretells what is opened next.
    pub is_foretold: bool,
    pub is_first: bool,
    /// Whether the artifact is to be queued.
    pub to_queue: bool,
}

impl Opens {
    /// Records an open; `None` if nothing follows from it.
    pub fn note(&mut self, node: NodeId) -> Option<Noted> {
        if self.opened.len() >= ACCESS_ORDER_FILES || !self.seen.insert(node) {
            return None;
        }
        self.opened.push(node);
        let ahead = self.follower.as_mut().map(|follower| follower.opened(node)).unwrap_or_default();
        let is_foretold = self.follower.as_ref().is_some_and(|follower| follower.expects(node));
        let to_queue = !std::mem::replace(&mut self.are_queued, true);
        Some(Noted { ahead, is_foretold, is_first: self.opened.len() == 1, to_queue })
    }

    /// Follows an order from here on; returns the files to fetch after those opened meanwhile.
    pub fn follow(&mut self, mut follower: Follower) -> Vec<NodeId> {
        let ahead = self.opened.iter().flat_map(|node| follower.opened(*node)).collect();
        self.follower = Some(follower);
        ahead
    }
}
