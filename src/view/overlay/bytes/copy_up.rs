//! The target of a write: staged bytes that may be written, else a new staged file over the current one.
//!
//! This copies nothing. Choosing the target, storing the choice and writing all happen under one lock of the open file, so that no write
//! goes to bytes that are replaced a moment later.

use std::sync::Arc;

use crate::error::Error;
use crate::oci::Digest;
use crate::staging::{Below, Content, Node, NodeKey, ORIGIN, STAGED, TreeNode};
use crate::view::overlay::bytes::layered::Layered;
use crate::view::overlay::bytes::lower::Lower;
use crate::view::overlay::names::merged::gone;
use crate::view::overlay::{ByteSource, OpenFile};

/// How much of the file its new content keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::view::overlay) enum Keep {
    All,
    Nothing,
}

/// The target of a write.
pub(in crate::view::overlay) enum WriteTarget {
    /// The bytes to write to, until the turn ends.
    Ready(Arc<Layered>),
    /// Too many files are stacked: this one must be filled in first.
    Deep(Arc<Layered>),
}

impl OpenFile {
    /// The bytes to write to. Call this, and use the result, under the freeze lock and in the file's turn.
    pub fn target(&self, keep: Keep) -> Result<WriteTarget, Error> {
        let (below, lower) = match self.source() {
            ByteSource::Data(layered) => {
                if layered.data.needs_filling()? && keep == Keep::All {
                    return Ok(WriteTarget::Deep(layered));
                }
                if !layered.data.is_fixed() {
                    return Ok(WriteTarget::Ready(layered));
                }
                (Below::Data(layered.data.clone()), None)
            }
            ByteSource::Lower(lower) => (Below::Tree(self.tree_node(&lower)?), Some(lower)),
        };
        let upper = self.overlay.upper();
        let data = if keep == Keep::All { upper.new_over(&below)? } else { upper.new_data()? };
        self.overlay.change(|edit| {
            let now = edit.now;
            let mut origin = None;
            let under = edit.base.artifact().map(|artifact| artifact.manifest.digest);
            edit.update(self.node, |node| {
                origin = origin_of(self.node, node, under);
                node.content = Content::Data(data.id());
                node.ctime = now;
            })?;
            if keep == Keep::All {
                edit.change.lay(&data, &below)?;
            }
            match origin {
                Some(path) => edit.change.put_xattr(self.node, ORIGIN, Some(&path)),
                None => Ok(()),
            }
        })?;
        let layered = Arc::new(Layered::over(data, lower));
        self.set_source(ByteSource::Data(Arc::clone(&layered)));
        self.overlay.wake_filler();
        Ok(WriteTarget::Ready(layered))
    }

    /// The tree node that an open file shows.
    fn tree_node(&self, lower: &Lower) -> Result<TreeNode, Error> {
        let overlay = &self.overlay;
        let row = match overlay.merged().row(self.node)? {
            Some(row) => row,
            None => overlay.base.row(lower.node, (0, 0)).ok_or_else(gone)?,
        };
        match row.content {
            // Perhaps a node of a newer tree, with the same bytes.
            Content::Tree(tree) => Ok(tree),
            Content::Data(_) | Content::None => Err(gone()),
        }
    }
}

/// The path in a tree of a row's content, if it must be noted. A node of the tree below is found again by
/// its path there; that stays noted even if the node now refers to a newer tree.
fn origin_of(key: NodeKey, node: &Node, under: Option<Digest>) -> Option<Vec<u8>> {
    match &node.content {
        Content::Tree(tree) if key >= STAGED || Some(tree.manifest) == under => Some(tree.path.clone()),
        Content::Tree(_) | Content::Data(_) | Content::None => None,
    }
}
