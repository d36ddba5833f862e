//! Counts of edits, derived from the rows of an upper alone.

use std::collections::HashSet;

use super::{Content, Named, Node, NodeKey, NodeKind, STAGED, Upper};
use crate::error::Error;

/// Counts of edits. A file replaced by another of the same name counts as added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names created.
    pub added: u64,
    /// Files of the tree below that were modified.
    pub changed: u64,
    /// Names removed.
    pub removed: u64,
    /// Bytes staged.
    pub bytes: u64,
}

impl Upper {
    /// Counts edits without the tree below, for when that cannot be fetched.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn counts(&self) -> Result<Counts, Error> {
        let (mut counts, mut moved, mut altered) = (Counts::default(), HashSet::new(), Vec::new());
        self.count_names(0, &mut counts, &mut moved)?;
        self.rows().each_node(&mut |key, node| {
            if node.kind == NodeKind::Directory {
                return if key == 0 { Ok(()) } else { self.count_names(key, &mut counts, &mut moved) };
            }
            if node.links > 0 {
                counts.bytes = counts.bytes.saturating_add(self.staged_bytes(&node)?);
                altered.extend((key < STAGED).then_some(key));
            }
            Ok(())
        })?;
        counts.changed = altered.iter().filter(|key| !moved.contains(*key)).count() as u64;
        Ok(counts)
    }

    fn count_names(&self, directory: NodeKey, counts: &mut Counts, moved: &mut HashSet<NodeKey>) -> Result<(), Error> {
        self.rows().each_name(directory, 0, &mut |row| {
            match row.named {
                Named::Whiteout => counts.removed += 1,
                Named::Node(key) if key >= STAGED && self.is_published(key)? => {}
                Named::Node(key) => {
                    counts.added += 1;
                    moved.insert(key);
                }
            }
            Ok(true)
        })
    }

    /// Whether a node created here is in the artifact that the tag now holds.
    fn is_published(&self, key: NodeKey) -> Result<bool, Error> {
        let expected = self.binding().expected;
        Ok(self.rows().node(key)?.is_some_and(|node| matches!(&node.content, Content::Tree(tree) if Some(tree.manifest) == expected)))
    }

    fn staged_bytes(&self, node: &Node) -> Result<u64, Error> {
        match node.content {
            Content::Data(id) => Ok(self.rows().data_attributes(id)?.size),
            Content::None | Content::Tree(_) => Ok(0),
        }
    }
}
