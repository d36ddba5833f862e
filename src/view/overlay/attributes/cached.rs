//! How much of an edited tag is on this machine.

use std::collections::BTreeSet;

use crate::artifact::{CachedBytes, Kind};
use crate::error::{Error, ErrorKind};
use crate::staging::{Content, DataId, Held};
use crate::view::ViewNode;
use crate::view::overlay::Overlay;
use crate::view::overlay::names::merged::Seen;

impl Overlay {
    /// How much of a file, or of all files below a directory, is on this machine: staged bytes are. Blocks on the disk.
    ///
    /// # Errors
    /// Gone for a node that does not exist; errors of the disk.
    pub fn cached(&self, node: ViewNode) -> Result<CachedBytes, Error> {
        let mut cached = CachedBytes::new(&self.blobs.artifacts, &self.blobs.repository);
        let (mut rest, mut counted) = (vec![node], BTreeSet::new());
        while let Some(next) = rest.pop() {
            if next != node && !counted.insert(next) {
                continue;
            }
            match self.count(next, &mut rest, &mut cached) {
                // Removed meanwhile.
                Err(error) if error.kind == ErrorKind::Gone && next != node => {}
                counted => counted?,
            }
        }
        Ok(cached)
    }

    /// Counts a file, or adds what is in a directory to the rest.
    fn count(&self, node: ViewNode, rest: &mut Vec<ViewNode>, cached: &mut CachedBytes) -> Result<(), Error> {
        let seen = self.merged().see(node)?;
        if seen.kind() != Kind::Directory {
            return self.count_file(&seen, cached);
        }
        self.children(node, 0, &mut |_, _, child| {
            rest.push(child);
            true
        })
    }

    fn count_file(&self, seen: &Seen, cached: &mut CachedBytes) -> Result<(), Error> {
        match seen {
            Seen::Lower(id, _) => {
                if let Some(artifact) = self.base.artifact() {
                    cached.add(artifact, *id);
                }
                Ok(())
            }
            Seen::Row(row) => match &row.content {
                Content::None => Ok(()),
                Content::Tree(tree) => {
                    let artifact = self.trees.of(tree, ErrorKind::Other)?;
                    cached.add_range(&artifact, tree.node, &(0..tree.size));
                    Ok(())
                }
                Content::Data(id) => self.count_staged(*id, cached),
            },
        }
    }

    fn count_staged(&self, id: DataId, cached: &mut CachedBytes) -> Result<(), Error> {
        let data = self.upper().data(id)?;
        let (mut at, end) = (0, data.length()?);
        while at < end {
            let segment = data.segment(at, end)?;
            match segment.held {
                Held::Here(_) => cached.add_local(segment.range.end - segment.range.start),
                Held::Tree(node) => {
                    let artifact = self.trees.of(&node, ErrorKind::Other)?;
                    cached.add_range(&artifact, node.node, &segment.range);
                }
            }
            at = segment.range.end;
        }
        Ok(())
    }
}
