//! Content of encrypted artifacts opened here, so that a copy is recognised and none of their files is published unencrypted without a request.
//!
//! In memory only: digests of encrypted files are as secret as their names.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::identity::NOTHING;
use super::kept::Key;
use super::tree::{Kind, Tree};
use super::{Identity, ViewMode};
use crate::oci::{Digest, Repository};

/// An opened encrypted artifact.
pub(super) struct Opened {
    repository: Repository,
    manifest: Digest,
    /// Identity of its tree, if that was shown in full.
    identity: Option<Identity>,
    /// Prefixes of the SHA-256 of its files, sorted. A chance collision of 64 bits only causes a needless refusal.
    files: Box<[u64]>,
    /// Sizes of files with unknown SHA-256, sorted.
    sizes: Box<[u64]>,
}

/// All opened encrypted artifacts.
#[derive(Default)]
pub(super) struct OpenedHere(Mutex<HashMap<Digest, Arc<Opened>>>);

impl OpenedHere {
    pub(super) fn all(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Opened>>> {
        self.0.lock()
    }

    /// Whether an artifact is among them.
    pub fn contains(&self, manifest: &Digest) -> bool {
        self.all().contains_key(manifest)
    }

    /// Records the tree of an encrypted artifact. Blocks: walks all of it.
    pub fn remember(&self, key: &Key, tree: &Tree) {
        let is_whole = key.view == ViewMode::Merged && key.layer.is_none();
        // Other views show the same files, but not their place in the tree.
        if self.all().get(&key.manifest).is_some_and(|known| known.identity.is_some() || !is_whole) {
            return;
        }
        let (mut files, mut sizes) = (Vec::new(), Vec::new());
        tree.walk(&mut |_, number| {
            let Some(node) = tree.node(number).filter(|node| node.kind == Kind::File && node.size > 0) else { return };
            match tree.content(number).and_then(|content| content.sha256) {
                Some(sha256) => files.push(beginning(&sha256)),
                None => sizes.push(node.size),
            }
        });
        for numbers in [&mut files, &mut sizes] {
            numbers.sort_unstable();
            numbers.dedup();
        }
        let identity = is_whole.then(|| tree.identity(&NOTHING));
        let (repository, manifest) = (key.repository.clone(), key.manifest);
        self.all().insert(manifest, Arc::new(Opened { repository, manifest, identity, files: files.into(), sizes: sizes.into() }));
    }

    /// The identity of an artifact's tree.
    pub fn identity(&self, manifest: &Digest) -> Option<Identity> {
        self.all().get(manifest)?.identity
    }
}

fn beginning(sha256: &[u8; 32]) -> u64 {
    sha256.first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default()
}

/// The files of encrypted artifacts, for many queries.
#[derive(Clone, Default)]
pub struct Secrets(pub(super) Vec<Arc<Opened>>);

impl Secrets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The artifact with a file of this size (in bytes) and SHA-256, as `repository@digest`. `None` for empty files.
    pub fn holder(&self, size: u64, sha256: &[u8; 32]) -> Option<String> {
        let holds = |opened: &&Arc<Opened>| {
            size > 0 && (opened.files.binary_search(&beginning(sha256)).is_ok() || opened.sizes.binary_search(&size).is_ok())
        };
        self.0.iter().find(holds).map(|opened| format!("{}@{}", opened.repository, opened.manifest))
    }
}
