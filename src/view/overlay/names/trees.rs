//! The trees that rows of an upper refer to, and files in them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::staging::TreeNode;
use crate::view::overlay::bytes::lower::Lower;

/// Artifacts by the digest of their manifest. The lock is held for map operations only.
pub(in crate::view::overlay) struct Trees(RwLock<HashMap<Digest, Arc<Artifact>>>);

impl Trees {
    pub fn new(artifacts: impl IntoIterator<Item = Arc<Artifact>>) -> Self {
        Self(RwLock::new(artifacts.into_iter().map(|artifact| (artifact.manifest.digest, artifact)).collect()))
    }

    pub fn get(&self, digest: &Digest) -> Option<Arc<Artifact>> {
        self.0.read().get(digest).cloned()
    }

    pub fn keep(&self, artifact: &Arc<Artifact>) {
        self.0.write().insert(artifact.manifest.digest, Arc::clone(artifact));
    }

    /// Drops all but these.
    pub fn retain(&self, referred: &BTreeSet<Digest>) {
        self.0.write().retain(|digest, _| referred.contains(digest));
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.read().len()
    }

    /// The artifact of a node that a row refers to; an error of kind `missing` if its tree is not open.
    pub fn of(&self, node: &TreeNode, missing: ErrorKind) -> Result<Arc<Artifact>, Error> {
        self.get(&node.manifest).ok_or_else(|| {
            let message = format!("the tree of {} that a staged file refers to is not open", node.manifest);
            Error::new(missing, message)
        })
    }

    /// The file that a row refers to.
    ///
    /// # Errors
    /// Gone if its tree is not open.
    pub fn lower(&self, node: &TreeNode) -> Result<Lower, Error> {
        Ok(Lower::new(self.of(node, ErrorKind::Gone)?, node.node))
    }
}
