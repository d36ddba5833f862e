//! Resolves paths in a layer: through directories, and through links earlier in the same layer.
//!
//! This is how tar, umoci and podman read a layer. A link of a lower layer is never followed, and one that dangles, loops or leaves the tree leads
//! nowhere: an entry below such a link replaces it.

use super::Placing;
use super::graph::Graph;
use crate::artifact::tree::{Kind, Tree};
use crate::path::{below, components};

/// Most link components that one path may pass through. Real layers need far fewer.
const STEPS: usize = 256;

/// A directory (last) and its parents, root first.
pub(super) type Way = Vec<u32>;

/// Names that map to nodes: a tree, or one being merged. Node 0 is the root.
pub(in crate::artifact) trait NodeNames {
    /// The node of a name in a directory.
    fn child(&self, directory: u32, name: &[u8]) -> Option<u32>;
    /// Whether a node is a directory.
    fn is_directory(&self, node: u32) -> bool;
    /// The target of a link.
    fn target(&self, node: u32) -> Option<&[u8]>;
}

impl NodeNames for Tree {
    fn child(&self, directory: u32, name: &[u8]) -> Option<u32> {
        self.lookup(directory, name)
    }
    fn is_directory(&self, node: u32) -> bool {
        self.node(node).is_some_and(|node| node.kind == Kind::Directory)
    }
    fn target(&self, node: u32) -> Option<&[u8]> {
        self.target(node)
    }
}

/// The existing directory at a path, resolved through the links that `enters` permits.
pub(in crate::artifact) fn find_directory(
    names: &impl NodeNames,
    path: &[u8],
    placing: &Placing,
    enters: impl Fn(u32) -> bool,
) -> Option<u32> {
    let mut way = vec![Graph::ROOT];
    for component in components(path) {
        let node = names.child(*way.last()?, component)?;
        if names.is_directory(node) {
            way.push(node);
        } else {
            way = through(names, Some(node).filter(|node| enters(*node))?, &way, placing)?;
        }
    }
    way.last().copied()
}

/// The directory that a link points to. `way` contains the link.
pub(super) fn through(names: &impl NodeNames, link: u32, way: &[u32], placing: &Placing) -> Option<Way> {
    let mut root = vec![Graph::ROOT];
    for component in components(&placing.at) {
        root.push(names.child(*root.last()?, component).filter(|node| names.is_directory(*node))?);
    }
    follow(names, link, way.to_vec(), &root, placing, &mut { STEPS })
}

fn follow(names: &impl NodeNames, link: u32, mut way: Way, root: &[u32], placing: &Placing, steps: &mut usize) -> Option<Way> {
    let target = names.target(link)?;
    let mut rest = target;
    if let Some(absolute) = target.strip_prefix(b"/") {
        way = root.to_vec();
        rest = below(absolute, &placing.strip).unwrap_or(absolute);
    }
    for component in rest.split(|byte| *byte == b'/') {
        *steps = steps.checked_sub(1)?;
        match component {
            b"" | b"." => {}
            b".." if way.len() > root.len() => drop(way.pop()),
            b".." => return None,
            name => {
                let node = names.child(*way.last()?, name)?;
                if names.is_directory(node) {
                    way.push(node);
                } else {
                    way = follow(names, node, way, root, placing, steps)?;
                }
            }
        }
    }
    Some(way)
}
