//! Artifacts kept in memory for a while after their last use.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::loaded::Artifact;
use super::options::ViewMode;
use crate::content::trim;
use crate::oci::{Digest, Platform, Repository};

/// Unused artifacts kept.
const KEPT: usize = 32;

/// Everything that determines the shape of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub repository: Repository,
    pub manifest: Digest,
    pub view: ViewMode,
    /// The platform to choose from an index.
    pub platform: Arc<Platform>,
    /// A single layer of it, by position in the manifest.
    pub layer: Option<usize>,
    /// Whether indexes are used that only referrers name.
    pub referred: bool,
}

/// Artifacts in memory, most recent last.
#[derive(Default)]
pub(super) struct Kept(Mutex<VecDeque<(Key, Arc<Artifact>)>>);

impl Kept {
    pub fn get(&self, key: &Key) -> Option<Arc<Artifact>> {
        let mut kept = self.0.lock();
        let at = kept.iter().position(|(other, _)| other == key)?;
        let found = kept.remove(at)?;
        let artifact = Arc::clone(&found.1);
        kept.push_back(found);
        Some(artifact)
    }

    /// Removes and returns all kept artifacts.
    pub fn take(&self) -> VecDeque<(Key, Arc<Artifact>)> {
        std::mem::take(&mut self.0.lock())
    }

    /// Keeps an artifact. `memory` bounds the bytes of in-memory trees.
    pub fn put(&self, key: Key, artifact: Arc<Artifact>, memory: u64) {
        let mut kept = self.0.lock();
        kept.retain(|(other, _)| *other != key);
        kept.push_back((key, artifact));
        trim(&mut kept, KEPT, memory, |(_, artifact)| artifact.memory());
    }
}

impl Artifact {
    /// Memory taken by its tree, in bytes: an unsealed stored tree is mapped.
    fn memory(&self) -> u64 {
        if self.is_encrypted() { self.tree.as_bytes().len() as u64 } else { 0 }
    }
}
