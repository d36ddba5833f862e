//! How an edited tag differs from upstream: a cheap answer per node, and a comparison of all paths.

use std::sync::Arc;

use async_trait::async_trait;

use crate::artifact::{Artifact, Kind, ViewMode};
use crate::error::Error;
use crate::layer::owned_xattrs;
use crate::staging::{Content, Node, NodeKey, ORIGIN, TreeNode};
use crate::view::compare::{Comparison, Pair, Verdict};
use crate::view::overlay::Overlay;
use crate::view::overlay::bytes::lower::Blobs;
use crate::view::overlay::names::merged::{Seen, without_own};
use crate::view::overlay::names::unedited::TreeSnapshot;
use crate::view::overlay::names::walk::Place;
use crate::view::overlay::plain::{Difference, PathState};
use crate::view::snapshot::{Nothing, Snapshot, Walk};
use crate::view::{Reader, TreeEntry, ViewNode};

/// The state of a tag that may be edited meanwhile.
struct Live(Arc<Overlay>);

#[async_trait]
impl Snapshot for Live {
    fn walk(self: Arc<Self>) -> Walk {
        let mut place = Place::default();
        Box::new(std::iter::from_fn(move || place.next(self.0.merged(), &self.0.trees).transpose()))
    }

    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        self.0.hash_entry(self.0.upper().rows(), entry).await
    }

    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error> {
        self.0.open_entry(self.0.upper().rows(), entry).await
    }
}

impl Overlay {
    /// How a node differs from upstream (`user.ocifs.state`). Cheap: nodes moved or created here and published since may still
    /// count as added until nothing at all is left to publish.
    ///
    /// # Errors
    /// Gone for a node that does not exist.
    pub fn state(&self, node: ViewNode) -> Result<PathState, Error> {
        let row = match self.merged().see(node)? {
            Seen::Lower(..) => return Ok(PathState::Clean),
            Seen::Row(row) => row,
        };
        if row.links == 0 {
            return Ok(PathState::Removed);
        }
        if !self.is_edited() {
            return Ok(PathState::Clean);
        }
        match &row.content {
            Content::Tree(tree) => self.state_of_tree(node, &row, tree),
            Content::Data(_) if self.merged().xattrs(node)?.iter().any(|(name, _)| name == ORIGIN) => Ok(PathState::Changed),
            Content::None if node == 0 => Ok(PathState::Clean),
            Content::Data(_) | Content::None => Ok(PathState::Added),
        }
    }

    fn state_of_tree(&self, key: NodeKey, row: &Node, tree: &TreeNode) -> Result<PathState, Error> {
        if self.merged().find(&tree.path)? != Some(key) {
            return Ok(PathState::Added);
        }
        let there = self.trees.get(&tree.manifest).and_then(|artifact| {
            let node = artifact.tree.node(tree.node)?;
            Some((node.metadata, without_own(owned_xattrs(artifact.tree.xattrs(tree.node)))))
        });
        let Some((mut there, xattrs)) = there else { return Ok(PathState::Changed) };
        if row.kind == Kind::Directory {
            there.mtime = row.metadata.mtime;
        }
        let same = row.metadata == there && without_own(self.merged().xattrs(key)?) == xattrs;
        Ok(if same { PathState::Clean } else { PathState::Changed })
    }

    /// All differences from the expected tree, by path: the changes that a publish would send.
    ///
    /// # Errors
    /// Errors of the disk; errors of the registry if bytes must be compared.
    pub async fn differences(self: &Arc<Self>) -> Result<Vec<Difference>, Error> {
        let expected = self.fetch_expected().await?;
        let live: Arc<dyn Snapshot> = Arc::new(Live(Arc::clone(self)));
        let new = if self.binding().deleted { Arc::new(Nothing) } else { Arc::clone(&live) };
        let old = expected.map(|artifact| Arc::new(TreeSnapshot { artifact, reading: live }) as Arc<dyn Snapshot>);
        let mut comparison = Comparison::new(&new, old.as_ref(), |_| false);
        let mut differences = Vec::new();
        while let Some((pair, verdict)) = comparison.next().await? {
            differences.extend(difference(pair, verdict));
        }
        Ok(differences)
    }

    /// Opens the expected tree unless already open: the tag may have been bound to another digest.
    ///
    /// # Errors
    /// Errors of fetching the artifact.
    pub async fn fetch_expected(&self) -> Result<Option<Arc<Artifact>>, Error> {
        let Some(digest) = self.binding().expected else { return Ok(None) };
        if let Some(artifact) = self.trees.get(&digest) {
            return Ok(Some(artifact));
        }
        let Blobs { artifacts, repository, strict } = &self.blobs;
        let artifact = artifacts.artifact(repository, &digest, ViewMode::Merged, *strict).await?;
        self.trees.keep(&artifact);
        Ok(Some(artifact))
    }
}

/// One line of a list of differences. Omits directories that differ in time only (it changes with every name), and the tag's own directory if added or removed.
fn difference(pair: Pair, verdict: Verdict) -> Option<Difference> {
    let state = match verdict {
        Verdict::Same | Verdict::DirectoryTime => return None,
        Verdict::Added => PathState::Added,
        Verdict::Changed => PathState::Changed,
        Verdict::Removed => PathState::Removed,
    };
    let bytes = |entry: &TreeEntry| (entry.kind == Kind::File).then_some(entry.size);
    let (before, after) = (pair.old.as_ref().and_then(bytes), pair.new.as_ref().and_then(bytes));
    let TreeEntry { path, kind, .. } = pair.new.or(pair.old)?;
    (verdict == Verdict::Changed || !path.is_empty()).then_some(Difference { path, state, kind, before, after })
}
