//! From a manifest to its plan: chooses the platform of an index, or lists its members.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use super::artifacts::Inner;
use super::dialect::{self, Plan, Shape, Step, Title, Wanted};
use super::error::of_blob;
use super::merge::RawFile;
use super::{Dialect, ViewMode};
use crate::content::{BlobSource, Sealing};
use crate::error::{Error, ErrorKind};
use crate::layer::Form;
use crate::oci::{ImageManifest, Index, Manifest, Platform, Repository, media_type};
use crate::path::join;

/// Deepest nesting of indexes.
const DEPTH: usize = 4;
/// Most members shown of one index.
const MEMBERS: usize = 1000;
/// Most manifests fetched for one artifact.
const FETCHES: usize = 4096;
/// Largest config read to distinguish an image from titled files, in bytes.
const CONFIG_LIMIT: u64 = 4 << 20;

/// The outline of an artifact: its plan and the manifests it came from.
pub(super) struct Outline {
    pub shown: Arc<Manifest>,
    pub platform: Option<Platform>,
    pub plan: Plan,
    /// Directories that exist even if empty.
    pub directories: Vec<Vec<u8>>,
    /// False if a member could not be read for the moment: then the tree is not stored.
    pub whole: bool,
}

/// The context for outlining one artifact.
pub(super) struct Reader<'a> {
    pub inner: &'a Arc<Inner>,
    pub repository: &'a Repository,
    pub view: ViewMode,
    pub platform: &'a Platform,
    pub strict: bool,
    /// Manifests that may still be fetched.
    pub budget: usize,
}

type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

impl<'a> Reader<'a> {
    pub fn new(inner: &'a Arc<Inner>, repository: &'a Repository, (view, platform): (ViewMode, &'a Platform), strict: bool) -> Self {
        Self { inner, repository, view, platform, strict, budget: FETCHES }
    }

    /// The outline of a manifest.
    pub async fn outline(&mut self, manifest: Arc<Manifest>) -> Result<Outline, Error> {
        let Some(index) = manifest.index() else {
            return self.image(Arc::clone(&manifest), None).await;
        };
        self.check_seal(&manifest)?;
        if let Some((member, platform)) = self.choose(index, DEPTH).await? {
            return self.image(member, Some(platform)).await;
        }
        let plan = Plan { dialect: Dialect::Members, steps: Vec::new() };
        let mut outline = Outline { shown: Arc::clone(&manifest), platform: None, plan, directories: Vec::new(), whole: true };
        self.members(index, &mut outline, b"", DEPTH).await?;
        Ok(outline)
    }

    async fn image(&mut self, shown: Arc<Manifest>, platform: Option<Platform>) -> Result<Outline, Error> {
        self.check_seal(&shown)?;
        let plan = self.plan(&shown, b"").await?;
        Ok(Outline { plan, shown, platform, directories: Vec::new(), whole: true })
    }

    fn check_seal(&self, manifest: &Manifest) -> Result<(), Error> {
        if dialect::is_sealed(manifest) && self.view != ViewMode::Blobs {
            return Err(Error::new(
                ErrorKind::KeyMissing,
                format!("{}@{} is sealed, and this version cannot open sealed artifacts", self.repository, manifest.digest),
            ));
        }
        Ok(())
    }

    /// The plan of an image manifest, with its config if only that identifies it.
    pub async fn plan(&self, manifest: &Manifest, base: &[u8]) -> Result<Plan, Error> {
        let config = match manifest.image() {
            Some(image) if self.view != ViewMode::Blobs && dialect::needs_config(image) => Some(self.config(image).await?),
            _ => None,
        };
        dialect::plan(manifest, config.as_deref(), self.view, base)
            .ok_or_else(|| broken(manifest, "is an index, where an image manifest belongs"))
    }

    /// The config of an image; empty if it is too large to be one.
    pub async fn config(&self, image: &ImageManifest) -> Result<Vec<u8>, Error> {
        if image.config.size > CONFIG_LIMIT {
            return Ok(Vec::new());
        }
        let source = BlobSource {
            repository: self.repository.clone(),
            descriptor: image.config.clone(),
            form: Form::Raw,
            sealing: Sealing::None,
            strict: self.strict,
            guide: None,
        };
        let stream = self.inner.contents.open(&source).await.map_err(|error| of_blob("config", &image.config, error))?;
        let bytes = stream.read(0..image.config.size).await.map_err(|error| of_blob("config", &image.config, error))?;
        Ok(bytes.to_vec())
    }

    async fn fetch(&mut self, digest: &crate::oci::Digest) -> Result<Arc<Manifest>, Error> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("an index of {} has more than {FETCHES} members in all", self.repository))
        })?;
        self.inner.registry_cache.named_manifest(self.repository, digest).await
    }

    /// The member for the wanted platform, also from nested indexes without a platform.
    fn choose<'b>(&'b mut self, index: &'b Index, depth: usize) -> Waiting<'b, Option<(Arc<Manifest>, Platform)>> {
        Box::pin(async move {
            for candidate in dialect::candidates(index, self.platform) {
                let member = match (self.fetch(&candidate.descriptor.digest).await, candidate.rank) {
                    (Ok(member), _) => member,
                    // The member labelled for this platform decides, good or bad.
                    (Err(error), Some(_)) => return Err(error),
                    (Err(error), None) if passes(error.kind) => return Err(error),
                    (Err(error), None) => {
                        tracing::warn!("skipping member {} of an index: {error}", candidate.descriptor.digest);
                        continue;
                    }
                };
                match (member.index(), &candidate.descriptor.platform) {
                    (Some(inner), _) if depth > 1 => {
                        if let Some(found) = self.choose(inner, depth - 1).await? {
                            return Ok(Some(found));
                        }
                    }
                    (None, Some(platform)) => return Ok(Some((Arc::clone(&member), platform.clone()))),
                    _ => {}
                }
            }
            self.unsaid(index).await
        })
    }

    /// The only member without a platform, if its config names a matching one.
    async fn unsaid(&mut self, index: &Index) -> Result<Option<(Arc<Manifest>, Platform)>, Error> {
        let Some(descriptor) = dialect::only_without_platform(index) else { return Ok(None) };
        let member = match self.fetch(&descriptor.digest).await {
            Ok(member) => member,
            Err(error) if passes(error.kind) => return Err(error),
            // It appears as an empty directory, with a warning.
            Err(_) => return Ok(None),
        };
        let Some(image) = member.image().filter(|image| media_type::is_image_config(&image.config.media_type)) else { return Ok(None) };
        let platform = Platform::of_config(&self.config(image).await?).filter(|platform| self.platform.rank(platform).is_some());
        Ok(platform.map(|platform| (member, platform)))
    }

    /// A directory for each member. An unreadable one is empty, and never hides the others.
    fn members<'b>(&'b mut self, index: &'b Index, outline: &'b mut Outline, base: &'b [u8], depth: usize) -> Waiting<'b, ()> {
        Box::pin(async move {
            let mut taken = BTreeSet::new();
            for descriptor in dialect::members(index).take(MEMBERS) {
                let name = dialect::member_name(descriptor, |name| taken.contains(name));
                if !taken.insert(name.clone()) {
                    continue;
                }
                let at = join(base, name.as_bytes());
                outline.directories.push(at.clone());
                let added = match self.fetch(&descriptor.digest).await {
                    Ok(member) => self.member(&member, outline, &at, depth).await,
                    Err(error) => Err(error),
                };
                match added {
                    Err(error) if passes(error.kind) => return Err(error),
                    Err(error) => {
                        tracing::warn!("showing member {} of an index as empty: {error}", descriptor.digest);
                        outline.whole = false;
                    }
                    Ok(()) => {}
                }
            }
            if dialect::members(index).count() > MEMBERS {
                tracing::warn!("an index of {} has more than {MEMBERS} members; the rest can be opened by digest", self.repository);
            }
            Ok(())
        })
    }

    async fn member(&mut self, member: &Manifest, outline: &mut Outline, at: &[u8], depth: usize) -> Result<(), Error> {
        self.check_seal(member)?;
        if let Some(inner) = member.index() {
            if depth <= 1 {
                return Err(broken(member, "is nested too deeply in other indexes"));
            }
            return self.members(inner, outline, at, depth - 1).await;
        }
        let plan = self.plan(member, at).await?;
        outline.plan.steps.extend(plan.steps.into_iter().map(|step| beside_others(step, at)));
        Ok(())
    }
}

/// A layer that cannot be unpacked appears as a file, instead of failing the other members.
fn beside_others(mut step: Step, at: &[u8]) -> Step {
    if let Shape::Archive { instead: instead @ None, .. } = &mut step.shape {
        let raw = RawFile { size: step.descriptor.size, ..RawFile::default() };
        *instead = Some(Wanted { base: at.to_vec(), title: Title::none(), raw });
    }
    step
}

/// Whether a retry may succeed: such errors end the outline instead of skipping something.
fn passes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Denied | ErrorKind::Interrupted | ErrorKind::NoSpace)
}

fn broken(manifest: &Manifest, what: &str) -> Error {
    Error::new(ErrorKind::Integrity, format!("manifest {} {what}", manifest.digest))
}
