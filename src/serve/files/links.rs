//! Where a path of an artifact leads. Links are followed as inside a root directory, and one that leads out of it leads nowhere. Pure.

use crate::artifact::{Kind, NodeId, Tree};

/// Links on the way to one file, as many as Linux follows.
const LINKS: usize = 40;

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// A name does not exist, or what it is below is no directory.
    Missing,
    /// A link leads out of the artifact.
    Outside,
    /// Links lead to each other.
    Loop,
}

/// The node of a path, links followed, the last one too.
pub(super) fn find(tree: &Tree, path: &[Vec<u8>]) -> Result<NodeId, Lost> {
    let mut way: Vec<NodeId> = vec![0];
    let mut rest: Vec<&[u8]> = path.iter().rev().map(Vec::as_slice).collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let at = way.last().copied().unwrap_or(0);
        if tree.node(at).is_none_or(|node| node.kind != Kind::Directory) {
            return Err(Lost::Missing);
        }
        match name {
            b"" | b"." => {}
            b".." if way.len() > 1 => drop(way.pop()),
            b".." => return Err(Lost::Outside),
            name => {
                let node = tree.lookup(at, name).ok_or(Lost::Missing)?;
                let Some(target) = tree.target(node) else {
                    way.push(node);
                    continue;
                };
                links += 1;
                if links > LINKS {
                    return Err(Lost::Loop);
                }
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                rest.extend(target.split(|byte| *byte == b'/').rev());
            }
        }
    }
    Ok(way.last().copied().unwrap_or(0))
}
