//! A frozen generation of an edited tag, merged: what is published.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::Overlay;
use super::base::{Base, find};
use super::copy_up::blocking;
use super::file::Blobs;
use super::merged::{Merged, fault};
use super::walk::Walk;
use crate::artifact::{Artifact, Artifacts, Kind, NodeId};
use crate::error::ErrorKind;
use crate::staging::{
    Binding, DataAttributes, DataFile, DataId, Error as Fault, FrozenUpper, NameRow, Named, Node, NodeKey, Rows, STAGED, TreeNode,
};
use crate::view::{Context, Error, Reader, ViewNode};

/// Bytes that are hashed at a time.
const CHUNK: u32 = 1 << 20;
/// Of a staged file, which may be one of very many small ones.
const FILE_CHUNK: usize = 64 << 10;

/// A frozen generation, merged: what is published.
pub struct Frozen {
    overlay: Arc<Overlay>,
    upper: FrozenUpper,
    _outstanding: Outstanding,
}

/// Counts a frozen generation while it lives.
struct Outstanding(Arc<AtomicU64>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One name of the frozen state.
#[derive(Clone, Debug)]
pub struct FrozenEntry {
    /// Path; empty for the tag's own directory.
    pub path: Vec<u8>,
    /// The node: further names of a hard-linked file have the same.
    pub node: ViewNode,
    /// Kind.
    pub kind: Kind,
    /// Permission bits, `None` where neither user nor archive set any.
    pub mode: Option<u32>,
    /// Owner and group, as mode.
    pub owner: Option<(u32, u32)>,
    /// Modification time, as mode.
    pub mtime: Option<(i64, u32)>,
    /// Bytes of a regular file.
    pub size: u64,
    /// Names of the node.
    pub links: u32,
    /// Major and minor.
    pub device: (u32, u32),
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Extended attributes by name, own names and `user.oci.*` left out.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of a regular file.
    pub content: FrozenContent,
}

/// Where the bytes of a frozen file are.
#[derive(Clone, Debug)]
pub enum FrozenContent {
    /// No regular file.
    None,
    /// In a tree.
    Tree {
        /// The artifact.
        artifact: ArtifactOf,
        /// The node there.
        node: NodeId,
        /// SHA-256 where known.
        sha256: Option<[u8; 32]>,
    },
    /// Staged.
    Data(DataId),
    /// In a directory of this machine that is published as it is.
    Disk,
}

/// An artifact that is compared by its manifest's digest.
#[derive(Clone)]
pub struct ArtifactOf(pub Arc<Artifact>);

impl PartialEq for ArtifactOf {
    fn eq(&self, other: &Self) -> bool {
        self.0.manifest.digest == other.0.manifest.digest
    }
}

impl Eq for ArtifactOf {}

impl std::fmt::Debug for ArtifactOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("ArtifactOf").field(&self.0.manifest.digest).finish()
    }
}

impl Overlay {
    /// Freezes a generation for publishing. Blocks on the disk.
    ///
    /// # Errors
    /// NoSpace and errors of the disk.
    pub fn freeze(self: &Arc<Self>) -> Result<Frozen, Error> {
        let prepared = self.upper().prepare_freeze()?;
        let (marked, outstanding) = {
            // Writers stop for this moment only, however much there is.
            let _gate = self.freeze_lock.write();
            let marked = prepared.mark()?;
            self.frozen.fetch_add(1, Ordering::AcqRel);
            self.next_epoch();
            (marked, Outstanding(Arc::clone(&self.frozen)))
        };
        Ok(Frozen { overlay: Arc::clone(self), upper: marked.finish()?, _outstanding: outstanding })
    }

    /// After the confirmation: clean files refer to the tree of `artifact`, the tag is expected to hold its digest. Returns whether nothing is left to publish.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Errors of the disk; the edits are intact then and are published once more.
    pub fn commit_publish(&self, frozen: Frozen, artifact: &Arc<Artifact>) -> Result<bool, Error> {
        let references = frozen.references(artifact)?;
        let mut referred = frozen.upper.manifests()?;
        let Frozen { upper, _outstanding, .. } = frozen;
        self.keep_artifact(artifact);
        let mut references = references.into_iter();
        // Few at a time, so that no writer waits for long.
        while self.alone(|is_open| self.upper().refer_some(&upper, &mut references, is_open))? {}
        let clean = self.alone(|_| {
            let clean = self.upper().commit_publish(upper, artifact.manifest.digest);
            self.next_epoch();
            clean
        })?;
        self.upper().collect()?;
        // Rows that were made meanwhile refer to what those of the frozen state did, to the tree below, or to what is expected.
        let binding = self.upper().binding();
        referred.extend(binding.under.into_iter().chain(binding.expected));
        self.keep_artifacts(&referred);
        // What is open for writing may be written at any time.
        Ok(clean && !self.has_writers())
    }

    /// Runs `work` while no file is opened or written, knowing which bytes are open.
    fn alone<T>(&self, work: impl FnOnce(&dyn Fn(DataId) -> bool) -> T) -> T {
        let names = self.names.lock();
        let freeze_lock = self.freeze_lock.write();
        let open = self.table.all();
        let busy: HashSet<DataId> = open.iter().filter_map(|file| file.data_id()).collect();
        let result = work(&|id| busy.contains(&id));
        drop((freeze_lock, names));
        // Files are closed where no lock is held.
        drop(open);
        result
    }
}

impl Frozen {
    /// The generation.
    pub fn generation(&self) -> u64 {
        self.upper.generation()
    }

    /// To what the tag was bound.
    pub fn binding(&self) -> Binding {
        self.upper.binding()
    }

    pub(super) fn into_upper(self) -> FrozenUpper {
        self.upper
    }

    fn walker(&self) -> Walk<'_> {
        Walk::new(Merged { rows: self.upper.rows(), base: &self.overlay.base }, &self.overlay.artifacts)
    }

    /// All names, parents before children, names of a directory in the order of their bytes, the tag's own directory first with
    /// an empty path. Memory is bounded by one directory. Local, blocking.
    ///
    /// # Errors
    /// Errors of the database and of `visit`.
    pub fn walk(&self, visit: &mut dyn FnMut(FrozenEntry) -> Result<(), Error>) -> Result<(), Error> {
        let mut walk = self.walker();
        while let Some(entry) = walk.next()? {
            visit(entry)?;
        }
        Ok(())
    }

    /// SHA-256 of a file, computed (and kept) where it is not known.
    ///
    /// # Errors
    /// Invalid for anything but a regular file; errors of reading.
    pub async fn sha256(&self, artifacts: &Artifacts, entry: &FrozenEntry) -> Result<[u8; 32], Error> {
        match &entry.content {
            FrozenContent::None | FrozenContent::Disk => Err(Error::new(ErrorKind::Invalid, "only a regular file of the tag has content")),
            FrozenContent::Tree { sha256: Some(sha256), .. } => Ok(*sha256),
            FrozenContent::Tree { artifact, node, .. } => {
                let blobs = Blobs { artifacts: artifacts.clone(), ..self.overlay.blobs.clone() };
                hash_reader(blobs.open(&artifact.0, *node).await?).await
            }
            FrozenContent::Data(id) => {
                if let Some(known) = self.upper.sha256(*id)? {
                    return Ok(known);
                }
                let blobs = Blobs { artifacts: artifacts.clone(), ..self.overlay.blobs.clone() };
                let sha256 = hash_data(&self.overlay, self.upper.rows().open_data(*id)?, blobs).await?;
                self.upper.keep_sha256(*id, sha256)?;
                Ok(sha256)
            }
        }
    }

    /// A reader of a frozen file's bytes.
    ///
    /// # Errors
    /// Invalid for anything but a regular file; errors of the disk or the registry.
    pub async fn open(&self, context: &Context, entry: &FrozenEntry) -> Result<Reader, Error> {
        match &entry.content {
            FrozenContent::None | FrozenContent::Disk => Err(Error::new(ErrorKind::Invalid, "only a regular file of the tag has content")),
            FrozenContent::Tree { artifact, node, .. } => {
                let blobs = Blobs { artifacts: context.artifacts.clone(), ..self.overlay.blobs.clone() };
                blobs.open(&artifact.0, *node).await
            }
            FrozenContent::Data(id) => {
                let blobs = Blobs { artifacts: context.artifacts.clone(), ..self.overlay.blobs.clone() };
                Ok(self.overlay.reader_of(self.upper.rows().open_data(*id)?, blobs)?)
            }
        }
    }

    /// Where each file of this generation lies in the tree that it became.
    fn references(&self, artifact: &Artifact) -> Result<Vec<(NodeKey, TreeNode)>, Fault> {
        let mut references = Vec::new();
        let mut last_of_links = HashSet::new();
        let mut walk = self.walker();
        while let Some(entry) = walk.next()? {
            let known = match &entry.content {
                FrozenContent::None | FrozenContent::Disk => continue,
                FrozenContent::Tree { artifact: of, sha256, .. } => {
                    // What is as in the tree below keeps referring to it: its number is found again by its path there.
                    let is_below = entry.node < STAGED && Some(of.0.manifest.digest) == self.upper.binding().under;
                    if is_below || of.0.manifest.digest == artifact.manifest.digest {
                        continue;
                    }
                    *sha256
                }
                FrozenContent::Data(id) => self.upper.sha256(*id)?,
            };
            if entry.links > 1 && !last_of_links.insert(entry.node) {
                continue;
            }
            references.extend(reference(artifact, entry, known));
        }
        Ok(references)
    }
}

/// The node of a tree that holds exactly a frozen file.
fn reference(artifact: &Artifact, entry: FrozenEntry, known: Option<[u8; 32]>) -> Option<(NodeKey, TreeNode)> {
    let node = find(&artifact.tree, &entry.path)?;
    let there = artifact.tree.node(node).filter(|there| there.kind == Kind::File && there.size == entry.size)?;
    let sha256 = artifact.tree.content(node).and_then(|content| content.sha256);
    if let (Some(one), Some(other)) = (known, sha256)
        && one != other
    {
        return None;
    }
    let manifest = artifact.manifest.digest;
    Some((entry.node, TreeNode { manifest, node, path: entry.path, sha256: sha256.or(known), size: there.size }))
}

/// SHA-256 of staged bytes that do not change meanwhile.
pub(super) async fn hash_data(overlay: &Arc<Overlay>, data: DataFile, blobs: Blobs) -> Result<[u8; 32], Error> {
    match data.whole_file()? {
        Some(file) => {
            let unreadable = |error| Error::new(ErrorKind::Other, format!("staged bytes cannot be read: {error}"));
            blocking(move || hash_file(file).map_err(unreadable)).await
        }
        None => hash_reader(overlay.reader_of(data, blobs)?).await,
    }
}

/// SHA-256 of a file from where it stands to its end. Blocks on the disk.
///
/// # Errors
/// Errors of the disk.
pub fn hash_file(file: File) -> std::io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut BufReader::with_capacity(FILE_CHUNK, file), &mut Hashing(&mut hasher))?;
    Ok(hasher.finalize().into())
}

/// A hash as something that is written to.
struct Hashing<'hasher>(&'hasher mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// SHA-256 of all that a reader has, computed on other threads than the network's.
pub(super) async fn hash_reader(reader: Reader) -> Result<[u8; 32], Error> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < reader.size() {
        let bytes: Bytes = reader.read(at, CHUNK).await?;
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Integrity, "a file ended before its size"));
        }
        at += bytes.len() as u64;
        hasher = blocking(move || {
            hasher.update(&bytes);
            Ok(hasher)
        })
        .await?;
    }
    Ok(hasher.finalize().into())
}

/// The tree of an artifact walked in the same form and order as a frozen state, so that the two can be compared.
///
/// # Errors
/// Errors of `visit`.
pub fn walk_tree(artifact: &Arc<Artifact>, visit: &mut dyn FnMut(FrozenEntry) -> Result<(), Error>) -> Result<(), Error> {
    let base = Base::new(Some(Arc::clone(artifact)));
    let artifacts = RwLock::new([(artifact.manifest.digest, Arc::clone(artifact))].into());
    let mut walk = Walk::new(Merged { rows: &NoRows, base: &base }, &artifacts);
    while let Some(entry) = walk.next()? {
        visit(entry)?;
    }
    Ok(())
}

/// An upper that says nothing.
pub(super) struct NoRows;

impl Rows for NoRows {
    fn node(&self, _key: NodeKey) -> Result<Option<Node>, Fault> {
        Ok(None)
    }

    fn nodes(&self, _after: Option<NodeKey>, _limit: usize) -> Result<Vec<(NodeKey, Node)>, Fault> {
        Ok(Vec::new())
    }

    fn name(&self, _directory: NodeKey, _name: &[u8]) -> Result<Option<Named>, Fault> {
        Ok(None)
    }

    fn names(&self, _directory: NodeKey, _after: u64, _limit: usize) -> Result<Vec<NameRow>, Fault> {
        Ok(Vec::new())
    }

    fn xattrs(&self, _key: NodeKey) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Fault> {
        Ok(Vec::new())
    }

    fn open_data(&self, _id: DataId) -> Result<DataFile, Fault> {
        Err(fault(ErrorKind::Gone, "a tree has no staged bytes"))
    }

    fn data_attributes(&self, _id: DataId) -> Result<DataAttributes, Fault> {
        Err(fault(ErrorKind::Gone, "a tree has no staged bytes"))
    }
}
