//! The tree of an artifact without edits, walked in the form and order of an edited tag.

use std::sync::Arc;

use async_trait::async_trait;

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind};
use crate::layer::Xattrs;
use crate::staging::{DataAttributes, DataFile, DataId, EntryRow, NameRow, Named, Node, NodeKey, Rows};
use crate::view::overlay::names::base::Base;
use crate::view::overlay::names::merged::{Merged, fault};
use crate::view::overlay::names::trees::Trees;
use crate::view::overlay::names::walk::Place;
use crate::view::snapshot::{Snapshot, Walk};
use crate::view::{Reader, TreeEntry};

/// The tree of an artifact as a snapshot, read through another one.
pub struct TreeSnapshot {
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Reads its bytes.
    pub reading: Arc<dyn Snapshot>,
}

#[async_trait]
impl Snapshot for TreeSnapshot {
    fn walk(self: Arc<Self>) -> Walk {
        Box::new(tree_entries(&self.artifact))
    }

    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        self.reading.sha256(entry).await
    }

    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error> {
        self.reading.open(entry).await
    }
}

/// The entries of an artifact's tree in order.
pub fn tree_entries(artifact: &Arc<Artifact>) -> impl Iterator<Item = Result<TreeEntry, Error>> + Send + use<> {
    let base = Base::new(Some(Arc::clone(artifact)));
    let trees = Trees::new([Arc::clone(artifact)]);
    let mut place = Place::default();
    std::iter::from_fn(move || place.next(Merged { rows: &NoRows, base: &base }, &trees).transpose())
}

/// An empty upper.
struct NoRows;

impl Rows for NoRows {
    fn node(&self, _key: NodeKey) -> Result<Option<Node>, Error> {
        Ok(None)
    }

    fn nodes(&self, _after: Option<NodeKey>, _limit: usize) -> Result<Vec<(NodeKey, Node)>, Error> {
        Ok(Vec::new())
    }

    fn name(&self, _directory: NodeKey, _name: &[u8]) -> Result<Option<Named>, Error> {
        Ok(None)
    }

    fn names(&self, _directory: NodeKey, _after: u64, _limit: usize) -> Result<Vec<NameRow>, Error> {
        Ok(Vec::new())
    }

    fn entries(&self, _directory: NodeKey, _after: &[u8], _limit: usize) -> Result<Vec<EntryRow>, Error> {
        Ok(Vec::new())
    }

    fn xattrs(&self, _key: NodeKey) -> Result<Xattrs, Error> {
        Ok(Vec::new())
    }

    fn open_data(&self, _id: DataId) -> Result<DataFile, Error> {
        Err(fault(ErrorKind::Gone, "a tree has no staged bytes"))
    }

    fn data_attributes(&self, _id: DataId) -> Result<DataAttributes, Error> {
        Err(fault(ErrorKind::Gone, "a tree has no staged bytes"))
    }
}
