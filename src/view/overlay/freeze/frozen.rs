//! A frozen generation of an edited tag, merged with its tree, ready to publish.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::artifact::{Artifact, Kind, NodeId};
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::staging::{Binding, DataId, FrozenUpper, NodeKey, STAGED, TreeNode};
use crate::view::overlay::bytes::content::{hash_file, unreadable};
use crate::view::overlay::names::merged::Merged;
use crate::view::overlay::names::walk::Place;
use crate::view::overlay::{GENERATIONS, Overlay};
use crate::view::snapshot::{Snapshot, Walk};
use crate::view::{EntryContent, Reader, TreeEntry};

/// A frozen generation, merged with its tree.
pub struct Frozen {
    overlay: Arc<Overlay>,
    upper: FrozenUpper,
    /// Returned when the generation is dropped.
    _permit: OwnedSemaphorePermit,
}

impl Overlay {
    /// Freezes a generation for publishing. Blocks on the disk.
    ///
    /// # Errors
    /// NoSpace and errors of the disk.
    pub fn freeze(self: &Arc<Self>) -> Result<Arc<Frozen>, Error> {
        let prepared = self.upper().prepare_freeze()?;
        let busy = |_| Error::new(ErrorKind::Busy, "the tag is being published already");
        let (marked, permit) = {
            // Writers pause for this moment only, whatever the size.
            let _gate = self.freeze_lock.write();
            let permit = Arc::clone(&self.generations).try_acquire_owned().map_err(busy)?;
            let marked = prepared.mark()?;
            self.next_epoch();
            (marked, permit)
        };
        Ok(Arc::new(Frozen { overlay: Arc::clone(self), upper: marked.finish()?, _permit: permit }))
    }

    /// Waits until no generation is frozen: readers that were stopped may still hold one briefly.
    pub async fn thawed(&self) {
        // The semaphore is never closed.
        let _ = self.generations.acquire_many(GENERATIONS).await;
    }

    /// After the confirmation: makes clean files refer to the tree of `artifact`, whose digest the tag is now expected to hold. Returns whether nothing
    /// is left to publish. Blocks on the disk. `frozen` is no longer read.
    ///
    /// # Errors
    /// Errors of the disk; the edits are then intact and are published again.
    pub fn commit_publish(&self, frozen: Arc<Frozen>, artifact: &Arc<Artifact>) -> Result<bool, Error> {
        let frozen = frozen.unread()?;
        let References { alike, others } = frozen.references(artifact)?;
        let mut referred = frozen.upper.manifests()?;
        let Frozen { upper, _permit, .. } = frozen;
        self.trees.keep(artifact);
        let mut others = others.into_iter();
        // Few at a time, so that no writer waits long.
        while self.alone(|is_open| self.upper().refer_some(&upper, &mut others, is_open))? {}
        for (old, except) in alike {
            let digests = (old, artifact.manifest.digest);
            let mut after = None;
            while let Some(last) = self.alone(|_| self.upper().refer_alike(digests, &except, after))? {
                after = Some(last);
            }
        }
        let clean = self.alone(|_| {
            let clean = self.upper().commit_publish(upper, artifact.manifest.digest);
            self.next_epoch();
            clean
        })?;
        self.upper().collect()?;
        // Newer rows refer to trees of the frozen state, to the tree below, or to the expected one.
        let binding = self.upper().binding();
        referred.extend(binding.under.into_iter().chain(binding.expected));
        self.trees.retain(&referred);
        // An open writer may write at any time.
        Ok(clean && !self.has_writers())
    }

    /// Runs `work` while no file is opened or written; it learns which bytes are open.
    fn alone<T>(&self, work: impl FnOnce(&dyn Fn(DataId) -> bool) -> T) -> T {
        let names = self.names.lock();
        let freeze_lock = self.freeze_lock.write();
        let open = self.table.all();
        let busy: HashSet<DataId> = open.iter().filter_map(|file| file.data_id()).collect();
        let result = work(&|id| busy.contains(&id));
        drop((freeze_lock, names));
        // Files are closed with no lock held.
        drop(open);
        result
    }
}

/// The nodes of the upper that will refer to the published tree.
struct References {
    /// Trees with the same files under the same numbers: all references to their nodes move, except those listed.
    alike: Vec<(Digest, Vec<NodeId>)>,
    /// Other nodes, one by one.
    others: Vec<(NodeKey, TreeNode)>,
}

/// Most exceptions to a move.
const EXCEPT: usize = 1000;

impl Frozen {
    /// The generation.
    pub fn generation(&self) -> u64 {
        self.upper.generation()
    }

    /// The digests that the tag was bound to.
    pub fn binding(&self) -> Binding {
        self.upper.binding()
    }

    fn unread(self: Arc<Self>) -> Result<Self, Error> {
        Arc::into_inner(self).ok_or_else(|| Error::new(ErrorKind::Busy, "the frozen state is still being read"))
    }

    pub(in crate::view::overlay) fn into_upper(self: Arc<Self>) -> Result<FrozenUpper, Error> {
        Ok(self.unread()?.upper)
    }

    fn next(&self, place: &mut Place) -> Result<Option<TreeEntry>, Error> {
        place.next(Merged { rows: self.upper.rows(), base: &self.overlay.base }, &self.overlay.trees)
    }

    /// All names, parents before children, names of a directory in byte order, the tag's own directory first with
    /// an empty path. Memory is bounded by one directory. Local, blocking.
    pub fn entries(self: &Arc<Self>) -> impl Iterator<Item = Result<TreeEntry, Error>> + Send + use<> {
        let (frozen, mut place) = (Arc::clone(self), Place::default());
        std::iter::from_fn(move || frozen.next(&mut place).transpose())
    }

    /// The location of each file of this generation in the tree published from it.
    fn references(&self, artifact: &Artifact) -> Result<References, Error> {
        let mut others = Vec::new();
        let mut alike: HashMap<Digest, Option<Vec<NodeId>>> = HashMap::new();
        let mut last_of_links = HashSet::new();
        let mut place = Place::default();
        while let Some(entry) = self.next(&mut place)? {
            let known = match &entry.content {
                EntryContent::None | EntryContent::Disk => continue,
                EntryContent::Tree(of, node) => {
                    // Unchanged nodes of the tree below keep referring to it: their numbers are found again by their paths there.
                    let is_below = entry.node < STAGED && Some(of.manifest.digest) == self.upper.binding().under;
                    if is_below || of.manifest.digest == artifact.manifest.digest {
                        continue;
                    }
                    let compare = || of.tree.differing_files(&artifact.tree).filter(|differing| differing.len() <= EXCEPT);
                    let differing = alike.entry(of.manifest.digest).or_insert_with(compare);
                    if entry.node >= STAGED && differing.as_ref().is_some_and(|differing| differing.binary_search(node).is_err()) {
                        continue;
                    }
                    entry.sha256
                }
                EntryContent::Data(id) => self.upper.sha256(*id)?,
            };
            if entry.links > 1 && !last_of_links.insert(entry.node) {
                continue;
            }
            others.extend(reference(artifact, entry, known));
        }
        let alike = alike.into_iter().filter_map(|(digest, except)| Some((digest, except?))).collect();
        Ok(References { alike, others })
    }
}

#[async_trait]
impl Snapshot for Frozen {
    fn walk(self: Arc<Self>) -> Walk {
        Box::new(self.entries())
    }

    /// Computed if unknown, and remembered.
    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        let EntryContent::Data(id) = entry.content else { return self.overlay.hash_entry(self.upper.rows(), entry).await };
        if let Some(known) = self.upper.sha256(id)? {
            return Ok(known);
        }
        let sha256 = self.overlay.hash_entry(self.upper.rows(), entry).await?;
        self.upper.keep_sha256(&[(id, sha256)])?;
        Ok(sha256)
    }

    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error> {
        self.overlay.open_entry(self.upper.rows(), entry).await
    }

    fn sha256_here(&self, entries: &[&TreeEntry]) -> Result<Vec<Option<[u8; 32]>>, Error> {
        let staged = |entry: &&TreeEntry| match entry.content {
            EntryContent::Data(id) => Some(id),
            _ => None,
        };
        let ids: Vec<DataId> = entries.iter().filter_map(staged).collect();
        let mut digests = self.upper.known_sha256(&ids)?;
        let mut computed = Vec::new();
        for id in ids {
            if !digests.contains_key(&id)
                && let Some(file) = self.upper.rows().open_data(id)?.whole_file()?
            {
                computed.push((id, hash_file(file).map_err(unreadable)?));
            }
        }
        self.upper.keep_sha256(&computed)?;
        digests.extend(computed);
        Ok(entries.iter().map(|entry| digests.get(&staged(entry)?).copied()).collect())
    }

    fn bytes_here(&self, entry: &TreeEntry) -> Result<Option<Bytes>, Error> {
        let EntryContent::Data(id) = entry.content else { return Ok(None) };
        let Some(file) = self.upper.rows().open_data(id)?.whole_file()? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(entry.size + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(Some(bytes.into()))
    }
}

/// The tree node that holds exactly a frozen file.
fn reference(artifact: &Artifact, entry: TreeEntry, known: Option<[u8; 32]>) -> Option<(NodeKey, TreeNode)> {
    let node = artifact.tree.find(&entry.path)?;
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
