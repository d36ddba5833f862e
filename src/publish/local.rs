//! Pushes local files as a new artifact, under tags that may already exist.
//!
//! The order is that of every publish: blobs, the manifest by digest, then each tag: compared with its initial digest, moved, confirmed.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use super::kinds::new_artifact::{NewArtifact, NewKind, Own};
use super::kinds::work::Work;
use super::pack::store::Used;
use super::plan::survey::{Remember, Survey, Terms, survey};
use super::progress::Progress;
use super::push::deliver::Delivery;
use super::push::tag::{Expected, RemoteTag};
use super::push::upload::Uploader;
use super::secrecy;
use super::source::directory::{DirectorySnapshot, Keeping, unreadable};
use super::source::without::Without;
use super::{ArtifactKind, Event, Input, Listener, Metadata, Outcome, Publisher, Report};
use crate::artifact::{Artifact, ViewMode};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, Repository, Tag};
use crate::view::snapshot::Snapshot;

/// Added to conflicts of a tag that moved during the push.
const WAYS_OUT: &str = ": push again to replace it";

/// A push of local files.
#[derive(Clone, Debug)]
pub struct Pushing {
    /// The repository.
    pub repository: Repository,
    /// Tags to set; empty to push by digest only.
    pub tags: Vec<Tag>,
    /// Files and directories.
    pub inputs: Vec<Input>,
    /// The kind of artifact.
    pub kind: NewKind,
    /// Manifest fields set by the user.
    pub metadata: Metadata,
    /// Owner and group of all entries, instead of the local ones.
    pub owner: Option<(u32, u32)>,
    /// Later file times are clamped to this, in seconds since 1970.
    pub newest: Option<i64>,
    /// The directory for packed layers of this push alone. The next push uses what an interrupted one left.
    pub packs: PathBuf,
    /// Concurrent uploads.
    pub concurrency: NonZeroUsize,
    /// Report the result without sending anything.
    pub dry_run: bool,
    /// Publish content of encrypted artifacts unencrypted.
    pub plaintext: bool,
    /// Also publish ignored files: editor leftovers and `.ocifsignore` matches.
    pub no_ignore: bool,
}

/// The result of a push.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The report, under the first reference.
    pub report: Report,
    /// The manifest.
    pub manifest: Arc<Manifest>,
}

impl Publisher {
    /// Pushes local files as one artifact. Dropping the future stops it; the next push uses what was packed.
    ///
    /// # Errors
    /// Conflict if a tag moved meanwhile; errors of the disk and the registry. No tag is set on an incomplete artifact.
    pub async fn push(&self, pushing: &Pushing, listener: &Listener) -> Result<Pushed, Error> {
        let authority = self.context.authority.reference(Some(&pushing.repository));
        let reference = pushing.tags.first().map_or_else(|| authority.clone(), |tag| format!("{authority}:{tag}"));
        let progress = Progress::new(reference.clone(), Arc::clone(listener));
        progress.tell(Event::Begin { reference: reference.clone(), dry_run: pushing.dry_run });
        let pushed = Push { publisher: self, pushing, progress: &progress }.run().await.map_err(|error| error.context(&reference))?;
        progress.tell(Event::End { report: pushed.report.clone() });
        Ok(pushed)
    }
}

struct Push<'a> {
    publisher: &'a Publisher,
    pushing: &'a Pushing,
    progress: &'a Arc<Progress>,
}

impl Push<'_> {
    async fn run(&self) -> Result<Pushed, Error> {
        self.check()?;
        let mut before = Vec::new();
        for tag in &self.pushing.tags {
            before.push(self.target(tag).now().await?);
        }
        let (inputs, kind, keeping) = (self.pushing.inputs.clone(), self.pushing.kind, self.keeping());
        let scan = move || Ok((own(&inputs, kind)?, DirectorySnapshot::new(inputs, keeping)?));
        let (own, directory) = blocking(scan).await?;
        let new = NewArtifact { kind, own, implied: directory.implied(), metadata: self.pushing.metadata.clone() };
        let snapshot: Arc<dyn Snapshot> = Arc::new(directory);
        let survey = self.survey(&snapshot).await?;
        let (changes, ignored) = (survey.changes, survey.ignored);
        let mut work = self.work(snapshot, survey, new, before.iter().flatten().next()).await;
        let delivery = Delivery {
            publisher: self.publisher,
            repository: &self.pushing.repository,
            progress: self.progress,
            dry_run: self.pushing.dry_run,
        };
        let built = delivery.send(&mut work).await?;
        if !self.pushing.dry_run {
            for (tag, before) in self.pushing.tags.iter().zip(&before) {
                self.target(tag).put(&built.top, Expected::Exactly(*before), || Ok(())).await?;
            }
        }
        let counts = work.uploader.as_ref().map(|uploader| uploader.counts()).unwrap_or_default();
        let outcome = Outcome::Published {
            before: before.first().copied().flatten().map(|digest| digest.to_string()),
            digest: built.top.digest.to_string(),
            known: false,
        };
        let (reference, notes) = (self.progress.reference().to_owned(), self.progress.notes());
        let report = Report { reference, outcome, sent: counts.sent, reused: counts.reused, changes, ignored, notes };
        Ok(Pushed { report, manifest: built.top })
    }

    /// Rejects options that do not fit the kind, before anything is read.
    fn check(&self) -> Result<(), Error> {
        let (metadata, inputs) = (&self.pushing.metadata, &self.pushing.inputs);
        metadata.check()?;
        let invalid = |text: &str| Err(Error::new(ErrorKind::Invalid, text.to_owned()));
        let is_typed = inputs.iter().any(|input| input.media_type.is_some());
        let says = metadata.artifact_type.is_some() || metadata.config.is_some() || metadata.image_spec != Default::default();
        match self.pushing.kind {
            NewKind::Editable(kind @ (ArtifactKind::Image | ArtifactKind::OciSync)) => {
                let name = if kind == ArtifactKind::Image { "an image" } else { "an oci-sync artifact" };
                if is_typed || says || !metadata.layer_annotations.is_empty() {
                    return invalid(&format!(
                        "{name} has one layer and fixed types: a media type, artifact type, config or image spec cannot be chosen"
                    ));
                }
                if kind == ArtifactKind::OciSync && metadata.subject.is_some() {
                    return invalid("an oci-sync artifact has no subject");
                }
                if inputs.is_empty() {
                    return invalid("nothing to push: name files or directories");
                }
            }
            NewKind::Editable(ArtifactKind::Files) | NewKind::Oras => {}
        }
        Ok(())
    }

    fn keeping(&self) -> Keeping {
        let is_oras = self.pushing.kind == NewKind::Oras;
        let owner = if is_oras { Some((0, 0)) } else { self.pushing.owner };
        Keeping { owner, newest: self.pushing.newest, hard_links: !is_oras }
    }

    fn target<'b>(&'b self, tag: &'b Tag) -> RemoteTag<'b> {
        RemoteTag { push: &*self.publisher.push, repository: &self.pushing.repository, tag, ways_out: WAYS_OUT }
    }

    async fn survey(&self, snapshot: &Arc<dyn Snapshot>) -> Result<Survey, Error> {
        let defaults = self.publisher.identity_defaults();
        let secrets = match self.pushing.plaintext {
            true => Default::default(),
            false => secrecy::secrets(&self.publisher.context.artifacts, &self.pushing.repository).await,
        };
        let terms = Terms {
            no_ignore: self.pushing.no_ignore,
            defaults: &defaults,
            remember: Remember::Nothing,
            sizes: self.publisher.sizes,
            secrets: &secrets,
            guess: None,
        };
        let survey = survey(snapshot, None, terms).await?;
        survey.notes.iter().for_each(|note| self.progress.note(note.clone()));
        if !survey.secret.is_empty() && !self.is_encrypted() {
            let secret = survey.secret.iter().collect();
            secrecy::refuse(&self.publisher.context.artifacts, &self.pushing.repository, secret).await?;
        }
        Ok(survey)
    }

    fn is_encrypted(&self) -> bool {
        self.pushing.kind == NewKind::Editable(ArtifactKind::OciSync) && self.publisher.context.meaning.encrypted
    }

    async fn work(&self, snapshot: Arc<dyn Snapshot>, survey: Survey, new: NewArtifact, before: Option<&Digest>) -> Work {
        let pushing = self.pushing;
        let artifacts = self.publisher.context.artifacts.clone();
        let known = match before {
            Some(digest) => self.known(digest).await,
            None => None,
        };
        let snapshot = Without::trees(&snapshot, &survey.left_out);
        let uploader = (!pushing.dry_run).then(|| {
            let push = Arc::clone(&self.publisher.push);
            Arc::new(Uploader::new(push, pushing.repository.clone(), pushing.concurrency, Arc::clone(self.progress)))
        });
        Work {
            platform: artifacts.platform().clone(),
            artifacts,
            repository: pushing.repository.clone(),
            base: None,
            snapshot,
            survey,
            store: pushing.packs.clone(),
            used: Used::default(),
            uploader,
            progress: Arc::clone(self.progress),
            doubtful: false,
            known,
            identities: Arc::clone(&self.publisher.identities),
            new,
            attach_index: self.publisher.attach_index,
        }
    }

    /// The artifact that a tag holds now, whose layers may be reused. An unreadable one is ignored.
    async fn known(&self, digest: &Digest) -> Option<Arc<Artifact>> {
        let artifacts = &self.publisher.context.artifacts;
        match artifacts.artifact(&self.pushing.repository, digest, ViewMode::Merged, false).await {
            Ok(artifact) => Some(artifact),
            Err(error) => {
                tracing::debug!("ignoring layers of {digest}: {error}");
                None
            }
        }
    }
}

/// The paths with their own layers, in command-line order: files, and with the ORAS kind everything.
///
/// # Errors
/// Errors of the disk; Invalid for a media type on a path without its own layer.
fn own(inputs: &[Input], kind: NewKind) -> Result<Vec<Own>, Error> {
    let mut own = Vec::new();
    for input in inputs {
        let metadata = std::fs::metadata(&input.disk).map_err(|error| unreadable("cannot read", &input.disk, &error))?;
        let is_own = match kind {
            NewKind::Oras => true,
            NewKind::Editable(ArtifactKind::Files) => !metadata.is_dir(),
            NewKind::Editable(_) => false,
        };
        if is_own {
            own.push(Own { path: input.path.clone(), media_type: input.media_type.clone() });
        } else if input.media_type.is_some() {
            let text = format!(
                "{} becomes several layers, so its media type cannot be chosen; use --as-kind oras for a single one",
                input.disk.display()
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
    }
    Ok(own)
}
