//! Builds artifacts: outlines them, indexes their layers, and builds the tree once or maps it from the cache.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::artifacts::Inner;
use super::compose::compose;
use super::dialect::{self, Plan, Shape, Step};
use super::error::of_blob;
use super::kept::Key;
use super::options::ViewMode;
use super::outline::{Outline, Reader};
use super::tracks::{PACKED, RAW, SequentialOpens};
use super::tree::{self, Tree};
use super::{Artifact, Dialect};
use crate::blocking::spawn_blocking;
use crate::cache::Protection;
use crate::content::{BlobSource, Guide, Sealing, Use};
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex};
use crate::oci::{Digest, Manifest, Repository};

/// Layers of one artifact indexed in parallel. The cost of each is bounded elsewhere.
const PARALLEL: usize = 8;
/// Size of a tree in memory, with its inputs and its sealed form, as a multiple of the layers' indexes.
const TREE_COPIES: u64 = 3;
impl Inner {
    /// The artifact of a key, built if not in memory yet.
    pub async fn build(self: &Arc<Self>, key: &Key, strict: bool) -> Result<Arc<Artifact>, Error> {
        let manifest = self.registry_cache.named_manifest(&key.repository, &key.manifest).await?;
        let mut reader = Reader::new(self, &key.repository, (key.view, &key.platform), strict);
        let outline = match key.layer {
            None => reader.outline(Arc::clone(&manifest)).await?,
            Some(number) => one_layer(&reader, Arc::clone(&manifest), number).await?,
        };
        let (artifact, whole) = self.realise(key, manifest, outline, strict).await?;
        let artifact = Arc::new(artifact);
        if whole {
            self.kept.put(key.clone(), Arc::clone(&artifact), self.contents.budget().kept());
        }
        Ok(artifact)
    }

    /// The artifact, and whether it is complete, so that a retry would find no more.
    async fn realise(
        self: &Arc<Self>,
        key: &Key,
        manifest: Arc<Manifest>,
        outline: Outline,
        strict: bool,
    ) -> Result<(Artifact, bool), Error> {
        let Outline { shown, platform, mut plan, directories, mut whole } = outline;
        if key.referred {
            self.refer(&mut plan, &shown, &key.repository).await;
        }
        let mut sources: Vec<BlobSource> = plan.steps.iter().map(|step| source_of(step, &key.repository, strict)).collect();
        let dropped = self.drop_distrusted(&mut plan.steps, &mut sources);
        let protection = self.protection(&sources).await?;
        let is_encrypted = !matches!(protection, Protection::Plain);
        let name = self.document_name(key, &shown, &plan, &dropped);
        let stored = if whole { self.stored_tree(&name, &protection) } else { None };
        let (tree, steps) = match stored {
            Some(tree) => (tree, plan.steps.into()),
            None => {
                let mut indexes = self.indexes(&plan.steps, &sources, key).await?;
                drop_unused(&mut plan.steps, &mut sources, &indexes);
                let name = self.document_name(key, &shown, &plan, &dropped);
                whole &= apply(&mut plan.steps, &mut sources, &mut indexes);
                let steps: Arc<[Step]> = plan.steps.into();
                let store = (whole.then_some(name), protection);
                (self.compose(key, Arc::clone(&steps), indexes, directories, store).await?, steps)
            }
        };
        if is_encrypted {
            self.remember_secrets(key, &tree).await?;
        }
        let manifests = dialect::manifests(&steps);
        let (sources, raw_tracks, packed_tracks) =
            (sources.into(), Mutex::new(SequentialOpens::new(RAW)), Mutex::new(SequentialOpens::new(PACKED)));
        // What is not stored cannot be remembered, and paths of layers and blobs are those of no program.
        let is_remembered = key.view == ViewMode::Merged && key.layer.is_none() && self.cache.is_filled();
        let opens = (is_remembered && self.registry_cache.options.access_order).then(Mutex::default);
        let dialect = plan.dialect;
        Ok((Artifact { manifest, shown, dialect, platform, tree, sources, steps, manifests, raw_tracks, packed_tracks, opens }, whole))
    }

    /// Records in memory what an encrypted artifact contains.
    async fn remember_secrets(self: &Arc<Self>, key: &Key, tree: &Tree) -> Result<(), Error> {
        let (me, key, tree) = (Arc::clone(self), key.clone(), tree.clone());
        spawn_blocking(move || me.opened_here.remember(&key, &tree)).await
    }

    /// The warnings of an artifact's tree, if that is cached and needs no key.
    pub fn known_warnings(&self, key: &Key, shown: &Manifest, plan: &mut Plan, sources: &mut [BlobSource]) -> Vec<String> {
        if sources.iter().any(BlobSource::is_sealed) {
            return Vec::new();
        }
        let dropped = self.drop_distrusted(&mut plan.steps, sources);
        let tree = self.stored_tree(&self.document_name(key, shown, plan, &dropped), &Protection::Plain);
        tree.map_or_else(Vec::new, |tree| tree.warnings().map(str::to_owned).collect())
    }

    /// Drops the guides that are not to be followed; returns the layers of those that turned out wrong.
    fn drop_distrusted(&self, steps: &mut [Step], sources: &mut [BlobSource]) -> Vec<Digest> {
        let mut wrong = Vec::new();
        for (step, source) in steps.iter_mut().zip(sources).filter(|(_, source)| !self.contents.follows(source)) {
            wrong.extend((!self.contents.trusts(source)).then_some(step.descriptor.digest));
            (step.guide, source.guide) = (None, None);
        }
        wrong
    }

    /// Builds the tree, and stores it if it has a name. Protected content stays in memory until sealed.
    async fn compose(
        self: &Arc<Self>,
        key: &Key,
        steps: Arc<[Step]>,
        indexes: Vec<Option<LayerIndex>>,
        directories: Vec<Vec<u8>>,
        (name, protection): (Option<String>, Protection),
    ) -> Result<Tree, Error> {
        let (me, key) = (Arc::clone(self), key.clone());
        let is_plain = matches!(protection, Protection::Plain);
        let is_referred = steps.iter().any(|step| step.guide.as_ref().is_some_and(Guide::is_referred));
        let scratch = self.contents.resources(if is_plain { Sealing::None } else { Sealing::OciSync }).scratch;
        let indexed: u64 = indexes.iter().flatten().map(|index| index.as_bytes().len() as u64).sum();
        let memory = if is_plain { 0 } else { indexed.saturating_mul(TREE_COPIES) };
        let memory = self.contents.budget().take(Use::Large, memory).await;
        let _memory = memory?;
        let built = spawn_blocking(move || {
            let shown_as = format!("{}@{}", key.repository, key.manifest);
            let composed = compose(&steps, &indexes, &directories, &scratch)?;
            for warning in &composed.warnings {
                tracing::warn!("{shown_as}: {warning}");
            }
            let Some(name) = name else { return Tree::open(Arc::new(composed.bytes)) };
            if let Err(error) = me.cache.store_document("tree", &name, &composed.bytes, &protection) {
                tracing::warn!("cannot cache the tree of {shown_as}: {error}");
            }
            // The stored form is mapped, so that the bytes do not stay in anonymous memory.
            let tree = match me.stored_tree(&name, &protection) {
                Some(tree) => tree,
                None => Tree::open(Arc::new(composed.bytes))?,
            };
            // Nothing is known to be equal because a stranger says so.
            if matches!(protection, Protection::Plain) && !is_referred {
                me.store_identity(&key, &tree);
            }
            Ok(tree)
        });
        let built = self.contents.working(built).await;
        built.map_err(|error| Error::new(ErrorKind::Other, format!("building a tree: {error}")))?
    }

    /// The indexes of all archives, and of files with an attached one, built several at a time, in step order.
    async fn indexes(self: &Arc<Self>, steps: &[Step], sources: &[BlobSource], key: &Key) -> Result<Vec<Option<LayerIndex>>, Error> {
        let jobs: Vec<_> = steps
            .iter()
            .zip(sources)
            .map(|(step, source)| {
                let (me, source, owner) = (Arc::clone(self), source.clone(), format!("{}@{}", key.repository, key.manifest));
                let archive = match &step.shape {
                    Shape::Archive { instead, .. } => Some(instead.is_some()),
                    Shape::File(_) => None,
                };
                async move {
                    let failed = |error| of_blob(&format!("a layer of {owner}"), &source.descriptor, error);
                    let Some(has_other_form) = archive else { return me.contents.attached_index(&source).await.map_err(failed) };
                    match me.contents.index(&source).await {
                        Ok(index) => Ok(Some(index)),
                        Err(error) if has_other_form && matches!(error.kind, ErrorKind::Integrity | ErrorKind::Unsupported) => {
                            tracing::warn!("{owner}: showing layer {} as stored: {error}", source.descriptor.digest);
                            Ok(None)
                        }
                        Err(error) => Err(failed(error)),
                    }
                }
            })
            .collect();
        stream::iter(jobs).buffered(PARALLEL).try_collect().await
    }

    /// Sealed if any layer is: names are as secret as content.
    pub(super) async fn protection(&self, sources: &[BlobSource]) -> Result<Protection, Error> {
        match sources.iter().find(|source| source.is_sealed()) {
            None => Ok(Protection::Plain),
            Some(source) => self.contents.protection(source).await.map_err(|error| of_blob("a layer", &source.descriptor, error)),
        }
    }

    fn stored_tree(&self, name: &str, protection: &Protection) -> Option<Tree> {
        let bytes = match self.cache.document("tree", name, protection) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!("cannot read a cached tree; rebuilding it: {error}");
                return None;
            }
        };
        match Tree::open(bytes) {
            Ok(tree) => Some(tree),
            Err(error) => {
                tracing::warn!("{error}; rebuilding it");
                // A failure to unlink shows again at the next open.
                let _ = self.cache.forget_document("tree", name);
                None
            }
        }
    }

    /// A short name for everything that determines the bytes of a tree.
    fn document_name(&self, key: &Key, shown: &Manifest, plan: &Plan, dropped: &[Digest]) -> String {
        let platform = if plan.dialect == Dialect::Members { key.platform.to_string() } else { String::new() };
        let mut guided: String = dropped.iter().map(|layer| format!("\n{layer}")).collect();
        // Indexes that the manifest names follow from it.
        let optional = plan.steps.iter().filter_map(|step| step.guide.as_ref()).filter(|guide| !matches!(guide, Guide::Index(_)));
        guided.extend(optional.map(|guide| format!("\nby {}", guide.key())));
        let parts = format!(
            "{}\n{}\n{:?}\n{:?}\n{:?}\n{platform}\n{}{guided}",
            key.manifest,
            shown.digest,
            plan.dialect,
            key.view,
            key.layer,
            tree::VERSION
        );
        Digest::of(parts.as_bytes()).hex()
    }
}

/// Drops the tables of contents of archives that had to be read whole instead.
fn drop_unused(steps: &mut [Step], sources: &mut [BlobSource], indexes: &[Option<LayerIndex>]) {
    for ((step, source), index) in steps.iter_mut().zip(sources).zip(indexes) {
        let is_used = index.as_ref().is_some_and(LayerIndex::is_of_content);
        if !is_used && step.guide.as_ref().is_some_and(Guide::is_table) {
            (step.guide, source.guide) = (None, None);
        }
    }
}

/// Shows archives that cannot be unpacked as stored, and gives files the attributes in their indexes. False if a retry may find more.
fn apply(steps: &mut [Step], sources: &mut [BlobSource], indexes: &mut [Option<LayerIndex>]) -> bool {
    let mut whole = true;
    for ((step, source), index) in steps.iter_mut().zip(sources).zip(indexes) {
        match (&mut step.shape, index.is_some()) {
            (Shape::Archive { .. }, true) => {}
            (Shape::Archive { .. }, false) => {
                (source.form, source.sealing, source.guide, whole) = (Form::Raw, Sealing::None, None, false);
            }
            (Shape::File(wanted), _) => match index.take() {
                Some(index) => wanted.raw.describe(&index),
                None => whole &= step.guide.is_none(),
            },
        }
    }
    whole
}

pub(super) fn source_of(step: &Step, repository: &Repository, strict: bool) -> BlobSource {
    let form = match step.shape {
        Shape::Archive { .. } => Form::Archive,
        Shape::File(_) => Form::Raw,
    };
    BlobSource {
        repository: repository.clone(),
        descriptor: step.descriptor.clone(),
        form,
        sealing: step.sealing,
        strict,
        guide: step.guide.clone(),
    }
}

/// The outline of a single layer; an archive shows its whiteouts.
async fn one_layer(reader: &Reader<'_>, manifest: Arc<Manifest>, number: usize) -> Result<Outline, Error> {
    let absent = || Error::new(ErrorKind::NotFound, format!("manifest {} has no layer {number}", manifest.digest));
    let image = manifest.image().ok_or_else(absent)?;
    let layer = image.layers.get(number).ok_or_else(absent)?;
    let whole = reader.plan(&manifest, b"").await?;
    let plan = dialect::one_layer(&whole, layer);
    Ok(Outline { plan, shown: Arc::clone(&manifest), platform: None, directories: Vec::new(), whole: true })
}
