//! A frozen generation of an edited tag, merged with its tree, ready to publish.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::artifact::{Artifact, Kind, NodeId};
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::staging::{Alike, Binding, DataId, FrozenUpper, NodeKey, TreeNode};
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
    /// Its staged files, once a walk has passed all of it, unless they are many.
    staged: OnceLock<Vec<TreeEntry>>,
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
        Ok(Arc::new(Frozen { overlay: Arc::clone(self), upper: marked.finish()?, staged: OnceLock::new(), _permit: permit }))
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
        let mut referred = frozen.upper.manifests()?;
        self.trees.keep(artifact);
        let moves = self.moves(&referred, artifact);
        let is_left = self.refer_alike(&moves, artifact)?;
        let mut others = frozen.references(artifact, &moves, is_left)?.into_iter();
        let Frozen { upper, _permit, .. } = frozen;
        // Few at a time, so that no writer waits long.
        while self.alone(|is_open| self.upper().refer_some(&upper, &mut others, is_open))? {}
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

    /// Where the files of older trees are in a new one. References to the tree below stay: their numbers are found again by their paths there.
    fn moves(&self, referred: &BTreeSet<Digest>, artifact: &Artifact) -> Moves {
        let staying = [self.binding().under, Some(artifact.manifest.digest)];
        let older = referred.iter().filter(|digest| !staying.contains(&Some(**digest))).filter_map(|digest| self.trees.get(digest));
        older.map(|older| (older.manifest.digest, older.tree.same_files(&artifact.tree))).collect()
    }

    /// Makes files that are unchanged at their path in an older tree refer to the new one. Returns whether others refer to an older one.
    fn refer_alike(&self, moves: &Moves, artifact: &Artifact) -> Result<bool, Error> {
        let mut is_left = false;
        for (old, there) in moves {
            let (digests, there) = ((*old, artifact.manifest.digest), |node| twin(there, node));
            let mut after = None;
            loop {
                let Alike { last, left } = self.alone(|_| self.upper().refer_alike(digests, &there, after))?;
                is_left |= left;
                if last.is_none() {
                    break;
                }
                after = last;
            }
        }
        Ok(is_left)
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

/// By older tree, the number of each of its files in a new one; see [`Tree::same_files`](crate::artifact::Tree::same_files).
type Moves = HashMap<Digest, Vec<Option<NodeId>>>;

fn twin(there: &[Option<NodeId>], node: NodeId) -> Option<NodeId> {
    there.get(node as usize).copied().flatten()
}

/// Most staged files of a generation that are remembered from a walk. Few in tests, which have both cases then.
const REMEMBERED: usize = if cfg!(test) { 4 } else { 4096 };

/// The staged files that a walk has come across; `None` if they are too many.
struct Passed(Option<Vec<TreeEntry>>);

impl Passed {
    fn pass(&mut self, entry: &TreeEntry) {
        if matches!(entry.content, EntryContent::Data(_)) {
            self.0 = self.0.take().filter(|passed| passed.len() < REMEMBERED);
            self.0.iter_mut().for_each(|passed| passed.push(entry.clone()));
        }
    }
}

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
        let (frozen, mut place, mut passed) = (Arc::clone(self), Place::default(), Passed(Some(Vec::new())));
        std::iter::from_fn(move || {
            let next = frozen.next(&mut place);
            match &next {
                Ok(Some(entry)) => passed.pass(entry),
                Ok(None) => passed.0.take().into_iter().for_each(|passed| drop(frozen.staged.set(passed))),
                Err(_) => passed.0 = None,
            }
            next.transpose()
        })
    }

    /// The location of staged files of this generation in the tree published from it; with `is_left`, also of files that still refer to an older one.
    fn references(&self, artifact: &Artifact, moves: &Moves, is_left: bool) -> Result<Vec<(NodeKey, TreeNode)>, Error> {
        let mut references = Vec::new();
        let mut last_of_links = HashSet::new();
        let mut add = |entry: TreeEntry| {
            let known = match &entry.content {
                EntryContent::None | EntryContent::Disk => return Ok(()),
                EntryContent::Tree(of, node) => match moves.get(&of.manifest.digest) {
                    Some(there) if twin(there, *node).is_none() => entry.sha256,
                    _ => return Ok(()),
                },
                EntryContent::Data(id) => self.upper.sha256(*id)?,
            };
            if entry.links < 2 || last_of_links.insert(entry.node) {
                references.extend(reference(artifact, entry, known));
            }
            Ok::<_, Error>(())
        };
        match self.staged.get() {
            Some(staged) if !is_left => staged.iter().cloned().try_for_each(add)?,
            _ => {
                let mut place = Place::default();
                while let Some(entry) = self.next(&mut place)? {
                    add(entry)?;
                }
            }
        }
        Ok(references)
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
    let sha256 = artifact.tree.sha256(node);
    if let (Some(one), Some(other)) = (known, sha256)
        && one != other
    {
        return None;
    }
    let manifest = artifact.manifest.digest;
    Some((entry.node, TreeNode { manifest, node, path: entry.path, sha256: sha256.or(known), size: there.size }))
}
