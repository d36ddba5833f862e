//! Resolves paths inside an artifact. Symlinks are followed as in a chroot, except that one leading outside is an error. Pure.

use crate::artifact::{Kind, NodeId, Tree};

/// Most links followed on the way to a file, as on Linux.
const LINKS: usize = 40;

/// Why a path cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// A name does not exist, or its parent is not a directory.
    Missing,
    /// A link leads outside the artifact.
    Outside,
    /// Links form a loop.
    Loop,
}

impl Lost {
    /// What to say of the path.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Missing => "does not exist",
            Self::Outside => "is a link that leads outside the artifact",
            Self::Loop => "is part of a link loop",
        }
    }
}

/// The node at a path; links are followed, including the last one.
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
