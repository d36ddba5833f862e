//! A tree file whose bytes lie below staged ones.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::artifact::{Artifact, Artifacts, NodeId};
use crate::error::{Error, ErrorKind};
use crate::oci::Repository;
use crate::view::Reader;

/// Bytes of a tree file, opened when first requested.
pub(in crate::view::overlay) struct Lower {
    pub artifact: Arc<Artifact>,
    pub node: NodeId,
    pub size: u64,
    reader: OnceCell<Reader>,
}

/// Where the bytes of trees are fetched from.
#[derive(Clone)]
pub(in crate::view::overlay) struct Blobs {
    pub artifacts: Artifacts,
    pub repository: Repository,
    pub strict: bool,
}

impl Blobs {
    /// A reader of a regular tree file.
    pub async fn open(&self, artifact: &Arc<Artifact>, node: NodeId) -> Result<Reader, Error> {
        Reader::of_tree(&self.artifacts, &self.repository, artifact, node, self.strict).await
    }
}

impl Lower {
    pub fn new(artifact: Arc<Artifact>, node: NodeId) -> Self {
        let size = artifact.tree.node(node).map_or(0, |node| node.size);
        Self { artifact, node, size, reader: OnceCell::new() }
    }

    /// The reader, if already opened.
    pub fn opened(&self) -> Option<&Reader> {
        self.reader.get()
    }

    pub async fn reader(&self, from: &Blobs) -> Result<&Reader, Error> {
        self.reader.get_or_try_init(|| from.open(&self.artifact, self.node)).await
    }

    /// All bytes of a range, which must be inside the file.
    pub async fn read_exactly(&self, blobs: &Blobs, offset: u64, length: u64) -> Result<Bytes, Error> {
        let bytes = self.reader(blobs).await?.read(offset, u32::try_from(length).unwrap_or(u32::MAX)).await?;
        if bytes.len() as u64 != length {
            return Err(Error::new(ErrorKind::Integrity, "a file of the tree is shorter than its archive says"));
        }
        Ok(bytes)
    }

    /// SEEK_DATA and SEEK_HOLE.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let extents = self.artifact.tree.content(self.node).map(|content| content.extents).unwrap_or_default();
        let ranges = extents.iter().map(|extent| (extent.file, extent.file.saturating_add(extent.length).min(self.size)));
        seek(ranges, self.size, offset, data)
    }
}

/// SEEK_DATA and SEEK_HOLE over byte ranges in file order.
fn seek(ranges: impl Iterator<Item = (u64, u64)>, size: u64, offset: u64, data: bool) -> Option<u64> {
    if offset >= size {
        return None;
    }
    let mut hole = offset;
    for (start, end) in ranges.filter(|(start, end)| start < end) {
        if data && end > offset {
            return Some(start.max(offset));
        }
        if !data && start <= hole && hole < end {
            hole = end;
        }
    }
    if data { None } else { Some(hole.min(size)) }
}
