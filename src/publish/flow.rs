//! One publish from start to end: finish an interrupted one, freeze, survey, check safety, build, send, move the tag, commit.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::kinds;
use super::kinds::new_artifact::NewArtifact;
use super::kinds::work::{Built, Work};
use super::pack::made::Made;
use super::pack::produce;
use super::pack::store::Used;
use super::plan::guess::Guess;
use super::plan::survey::{Survey, Terms, survey};
use super::progress::Progress;
use super::push::deliver::Delivery;
use super::push::join_cache;
use super::push::tag::{Expected, RemoteTag};
use super::push::upload::{Counts, Uploader};
use super::source::rebased::Rebased;
use super::source::without::Without;
use super::{Event, Listener, Next, Options, Outcome, Publisher, Report};
use crate::artifact::{Artifact, ViewMode};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, Repository, Tag};
use crate::staging::{Binding, Journal, TagKey};
use crate::view::TreeSnapshot;
use crate::view::snapshot::Snapshot;
use crate::view::{Frozen, Overlay};

/// Added to conflicts of the edited tag.
const WAYS_OUT: &str = " and all edits are kept. Choose: --as TAG publishes them elsewhere, --rebase applies them to the current version, \
                        --theirs drops them, --force overwrites the tag";

/// One publish.
pub(super) struct Publish<'a> {
    pub(super) publisher: &'a Publisher,
    pub(super) overlay: &'a Arc<Overlay>,
    pub(super) options: &'a Options,
    tag_key: TagKey,
    pub(super) repository: Repository,
    /// The tag that was edited.
    pub(super) tag: Tag,
    /// The tag that is published.
    pub(super) target: Tag,
    pub(super) reference: String,
    pub(super) progress: Arc<Progress>,
}

/// The two sides of a comparison, and the state of the target tag.
pub(super) struct Baseline {
    /// The digests that the edits are bound to.
    pub binding: Binding,
    /// The digest that the edited tag holds upstream.
    pub upstream: Option<Digest>,
    /// The digest that the published tag holds upstream.
    pub at_target: Option<Digest>,
    /// The artifact that the edits apply to: the expected one, or with `--rebase` the current upstream one.
    pub base: Option<Arc<Artifact>>,
    /// A tag that an interrupted publish had already moved.
    pub finished: Option<(Option<Digest>, Digest)>,
}

impl Publisher {
    /// Publishes one tag. Dropping the future stops it; the next publish reuses what was packed and sent.
    ///
    /// # Errors
    /// Why the tag was not published; the upper is intact.
    pub async fn publish(&self, overlay: &Arc<Overlay>, options: &Options, listener: &Listener) -> Result<(Report, Next), Error> {
        Publish::begin(self, overlay, options, listener)?.run().await
    }

    /// The artifact that the tag would become, for comparison; sends nothing. `None` if nothing differs or the tag would be deleted.
    ///
    /// # Errors
    /// Those of [`Publisher::publish`].
    pub async fn preview(&self, overlay: &Arc<Overlay>, options: &Options) -> Result<Option<Digest>, Error> {
        let options = Options { dry_run: true, ..options.clone() };
        let (report, _) = self.publish(overlay, &options, &(Arc::new(|_| {}) as Listener)).await?;
        Ok(match report.outcome {
            Outcome::Published { digest, .. } => Digest::parse(&digest).ok(),
            _ => None,
        })
    }
}

impl<'a> Publish<'a> {
    pub fn begin(publisher: &'a Publisher, overlay: &'a Arc<Overlay>, options: &'a Options, listener: &Listener) -> Result<Self, Error> {
        let tag_key = overlay.tag_key();
        let invalid = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Invalid, error.to_string());
        let repository = Repository::parse(&tag_key.repository).map_err(|error| invalid(&error))?;
        let tag = Tag::parse(&tag_key.tag).map_err(|error| invalid(&error))?;
        let target = match &options.as_tag {
            Some(other) => Tag::parse(other).map_err(|error| invalid(&error))?,
            None => tag.clone(),
        };
        let reference = format!("{}:{target}", publisher.context.authority.reference(Some(&repository)));
        let progress = Progress::new(reference.clone(), Arc::clone(listener));
        Ok(Self { publisher, overlay, options, tag_key, repository, tag, target, reference, progress })
    }

    pub async fn run(self) -> Result<(Report, Next), Error> {
        self.progress.tell(Event::Begin { reference: self.reference.clone(), dry_run: self.options.dry_run });
        let (report, next) = self.publish().await.map_err(|error| error.context(&self.reference))?;
        self.progress.tell(Event::End { report: report.clone() });
        Ok((report, next))
    }

    pub(super) fn target<'b>(&'b self, tag: &'b Tag) -> RemoteTag<'b> {
        RemoteTag { push: &*self.publisher.push, repository: &self.repository, tag, ways_out: WAYS_OUT }
    }

    pub(super) fn goes_elsewhere(&self) -> bool {
        self.target != self.tag
    }

    async fn publish(&self) -> Result<(Report, Next), Error> {
        let upstream = self.target(&self.tag).now().await?;
        let finished = self.finish_interrupted(upstream)?;
        let binding = self.overlay.binding();
        if binding.deleted {
            return self.delete(binding, upstream).await;
        }
        let moved = upstream != binding.expected;
        if moved && self.options.theirs {
            return self.drop_edits().await;
        }
        let rebases = moved && self.options.rebase && upstream.is_some() && !self.goes_elsewhere();
        // A renamed tag is an edit of the artifact under its old name.
        let based_on = if rebases { upstream } else { binding.expected.or(binding.under) };
        let base = match based_on {
            Some(digest) => Some(self.artifact(&digest).await?),
            None => None,
        };
        let at_target = if self.goes_elsewhere() { self.target(&self.target).now().await? } else { upstream };
        let baseline = Baseline { binding, upstream, at_target, base, finished };
        let frozen = self.freeze(rebases).await?;
        let result = if rebases { self.rebase(baseline, frozen).await } else { self.edit(baseline, frozen).await };
        // A stopped reader may take a moment; until then the next publish would find the tag frozen.
        self.overlay.thawed().await;
        result
    }

    /// Finishes a publish that was killed: if its tag was moved, only the commit is missing.
    fn finish_interrupted(&self, upstream: Option<Digest>) -> Result<Option<(Option<Digest>, Digest)>, Error> {
        let upper = self.overlay.upper();
        let Some(journal) = upper.journal()? else { return Ok(None) };
        let published = Digest::parse(&journal.digest).ok().filter(|digest| Some(*digest) == upstream);
        let Some(digest) = published else {
            // Any other digest is treated like that of any other tag.
            return Ok(None);
        };
        let before = journal.expected.as_deref().and_then(|digest| Digest::parse(digest).ok());
        let binding = Binding { expected: Some(digest), ..upper.binding() };
        upper.change(|change| change.bind(binding))?;
        upper.set_journal(None)?;
        Ok(Some((before, digest)))
    }

    async fn freeze(&self, alone: bool) -> Result<Arc<Frozen>, Error> {
        if alone && self.overlay.has_writers() {
            return Err(self.busy());
        }
        let overlay = Arc::clone(self.overlay);
        blocking(move || overlay.freeze()).await
    }

    pub(super) fn busy(&self) -> Error {
        Error::new(ErrorKind::Busy, "files are open for writing: close them first")
    }

    async fn artifact(&self, digest: &Digest) -> Result<Arc<Artifact>, Error> {
        let strict = self.publisher.context.meaning.strict;
        self.publisher.context.artifacts.artifact(&self.repository, digest, ViewMode::Merged, strict).await
    }

    fn tree(&self, artifact: &Arc<Artifact>, reading: &Arc<dyn Snapshot>) -> Arc<dyn Snapshot> {
        Arc::new(TreeSnapshot { artifact: Arc::clone(artifact), reading: Arc::clone(reading) })
    }

    async fn survey(&self, snapshot: &Arc<dyn Snapshot>, base: Option<&Arc<Artifact>>) -> Result<Survey, Error> {
        let defaults = self.publisher.identity_defaults();
        let old = base.map(|base| self.tree(base, snapshot));
        let remember = kinds::remembers(base.map(|base| &**base));
        let secrets = self.secrets().await;
        let known = base.and_then(|base| kinds::settled_layers(&self.publisher.context.artifacts, base, &self.publisher.identities));
        let guess = base.zip(known).map(|(base, known)| Guess::new(&base.tree, self.publisher.sizes, known));
        let terms = Terms {
            no_ignore: self.options.no_ignore,
            defaults: &defaults,
            remember,
            sizes: self.publisher.sizes,
            secrets: &secrets,
            guess,
        };
        let survey = survey(snapshot, old, terms).await?;
        survey.notes.iter().for_each(|note| self.progress.note(note.clone()));
        Ok(survey)
    }

    /// Publishes the edits of a tag on top of their base.
    async fn edit(&self, baseline: Baseline, frozen: Arc<Frozen>) -> Result<(Report, Next), Error> {
        let snapshot: Arc<dyn Snapshot> = frozen.clone();
        let survey = self.survey(&snapshot, baseline.base.as_ref()).await?;
        if survey.changes == (0, 0, 0) && baseline.base.is_some() {
            drop(snapshot);
            return self.nothing_differs(&baseline, survey, frozen).await;
        }
        let known = self.known_tree(&baseline, &survey).await?;
        self.refuse_moved(&baseline, known.as_ref().map(|manifest| manifest.digest))?;
        self.check_safety(&baseline, &survey)?;
        if let Some(base) = &baseline.base {
            kinds::check(base)?;
        }
        let (built, counts, report) = self.make(&baseline, survey, known, snapshot).await?;
        if self.options.dry_run {
            return Ok((report, Next::Continues { clean: false }));
        }
        if baseline.base.as_ref().is_some_and(|base| base.manifest.digest == built.top.digest) && !self.goes_elsewhere() {
            // The differences cannot be published: they are ignored, or no archive of this kind can represent them.
            let base = baseline.base.clone().ok_or_else(|| Error::other("a tag without a base"))?;
            let clean = self.commit(frozen, base).await?;
            return Ok((Report { outcome: Outcome::Unchanged, ..report }, Next::Continues { clean }));
        }
        self.confirm(&baseline, frozen.generation(), &built, self.expected(&baseline)).await?;
        let artifact = self.learn(&built).await?;
        if self.goes_elsewhere() {
            let tag_key = TagKey { tag: self.target.to_string(), ..self.tag_key.clone() };
            self.overlay.upper().move_to(&tag_key)?;
        }
        let clean = self.commit(frozen, artifact).await?;
        self.overlay.upper().set_journal(None)?;
        self.note_signatures(&baseline).await;
        let next = if self.goes_elsewhere() { Next::Moved(self.target.clone()) } else { Next::Continues { clean } };
        Ok((self.counted(report, counts), next))
    }

    /// Publishes the edits rebased onto the current upstream. The current view cannot show the result, so it ends.
    async fn rebase(&self, baseline: Baseline, frozen: Arc<Frozen>) -> Result<(Report, Next), Error> {
        let (built, counts, report) = self.mix(&baseline, frozen.clone()).await?;
        if self.options.dry_run {
            return Ok((report, Next::Continues { clean: false }));
        }
        if let Some(built) = built {
            self.confirm(&baseline, frozen.generation(), &built, Expected::Exactly(baseline.upstream)).await?;
            self.learn(&built).await?;
            self.overlay.upper().set_journal(None)?;
        }
        self.end_view(frozen).await?;
        Ok((self.counted(report, counts), Next::NewView))
    }

    /// Builds the merged artifact; `None` if it equals upstream. The frozen state is no longer read when this returns.
    async fn mix(&self, baseline: &Baseline, ours: Arc<dyn Snapshot>) -> Result<(Option<Built>, Counts, Report), Error> {
        let Some(theirs) = baseline.base.clone() else { return Err(Error::other("there is nothing to rebase on")) };
        kinds::check(&theirs)?;
        let before = match &baseline.binding.expected.or(baseline.binding.under) {
            Some(digest) => Some(self.tree(&self.artifact(digest).await?, &ours)),
            None => None,
        };
        let upstream = self.tree(&theirs, &ours);
        let rebased = Rebased::new(&ours, before, &upstream).await.map_err(|error| self.ways_out(error))?;
        let mixed: Arc<dyn Snapshot> = Arc::new(rebased);
        let survey = self.survey(&mixed, Some(&theirs)).await?;
        self.check_safety(baseline, &survey)?;
        if survey.changes == (0, 0, 0) {
            return Ok((None, Counts::default(), self.report(&survey, Outcome::Unchanged)));
        }
        let known = self.known_tree(baseline, &survey).await?;
        let (built, counts, report) = self.make(baseline, survey, known, mixed).await?;
        Ok((Some(built), counts, report))
    }

    fn ways_out(&self, error: Error) -> Error {
        let ways = "nothing was published and all edits are kept. Choose: --as TAG, --theirs drops the edits, --force overwrites the tag";
        if error.kind == ErrorKind::Conflict { error.append(format_args!("; {ways}")) } else { error }
    }

    /// Removes the upper, whose edits are published in a tree that it is not based on.
    async fn end_view(&self, frozen: Arc<Frozen>) -> Result<(), Error> {
        let late = || {
            let message = "the tag was edited during the rebase: the earlier edits are published, the later ones are kept; sync again";
            Error::new(ErrorKind::Conflict, message)
        };
        let overlay = Arc::clone(self.overlay);
        if blocking(move || overlay.remove_if_unchanged(frozen)).await? { Ok(()) } else { Err(late()) }
    }

    /// Everything except moving the tag. `known` is an artifact with exactly the same tree.
    async fn make(
        &self,
        baseline: &Baseline,
        survey: Survey,
        known: Option<Arc<Manifest>>,
        snapshot: Arc<dyn Snapshot>,
    ) -> Result<(Built, Counts, Report), Error> {
        let report = self.report(&survey, Outcome::Unchanged);
        let published = |manifest: &Manifest, known: bool| Outcome::Published {
            before: baseline.at_target.map(|digest| digest.to_string()),
            digest: manifest.digest.to_string(),
            known,
        };
        if let Some(manifest) = known {
            let outcome = published(&manifest, true);
            let built = Built { top: manifest, before: Vec::new(), referrers: Vec::new(), made: Vec::new() };
            match self.delivery().manifests(&built).await {
                Ok(()) => return Ok((built, Counts::default(), Report { outcome, ..report })),
                // Its blobs are gone: pack it like any other.
                Err(error) if matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        self.keep_secret(baseline, &survey).await?;
        let mut work = self.work(baseline, survey, &snapshot);
        let built = self.delivery().send(&mut work).await?;
        let counts = work.uploader.as_ref().map(|uploader| uploader.counts()).unwrap_or_default();
        let outcome = published(&built.top, false);
        Ok((built, counts, Report { outcome, ..report }))
    }

    fn work(&self, baseline: &Baseline, survey: Survey, snapshot: &Arc<dyn Snapshot>) -> Work {
        let concurrency: NonZeroUsize = self.options.concurrency.unwrap_or(self.publisher.concurrency);
        let snapshot = Without::trees(snapshot, &survey.left_out);
        let uploader = (!self.options.dry_run).then(|| {
            let push = Arc::clone(&self.publisher.push);
            Arc::new(Uploader::new(push, self.repository.clone(), concurrency, Arc::clone(&self.progress)))
        });
        Work {
            artifacts: self.publisher.context.artifacts.clone(),
            repository: self.repository.clone(),
            base: baseline.base.clone(),
            platform: self.publisher.context.artifacts.platform().clone(),
            snapshot,
            survey,
            store: self.overlay.upper().packs(),
            used: Used::default(),
            uploader,
            progress: Arc::clone(&self.progress),
            doubtful: false,
            known: None,
            identities: Arc::clone(&self.publisher.identities),
            attach_index: self.publisher.attach_index,
            new: NewArtifact::of_kind(self.options.as_kind.unwrap_or(self.publisher.kind)),
        }
    }

    fn delivery(&self) -> Delivery<'_> {
        Delivery { publisher: self.publisher, repository: &self.repository, progress: &self.progress, dry_run: self.options.dry_run }
    }

    /// Writes the journal, then moves and confirms the tag.
    async fn confirm(&self, baseline: &Baseline, generation: u64, built: &Built, expected: Expected) -> Result<(), Error> {
        let journal =
            Journal { generation, expected: baseline.at_target.map(|digest| digest.to_string()), digest: built.top.digest.to_string() };
        let upper = self.overlay.upper();
        self.target(&self.target).put(&built.top, expected, || upper.set_journal(Some(&journal))).await
    }

    pub(super) fn expected(&self, baseline: &Baseline) -> Expected {
        match (self.options.force, self.goes_elsewhere()) {
            (true, _) => Expected::Anything,
            (false, true) => Expected::Exactly(None),
            (false, false) => Expected::Exactly(baseline.binding.expected),
        }
    }

    /// Registers the new artifact in this process, so that nothing of it is fetched.
    async fn learn(&self, built: &Built) -> Result<Arc<Artifact>, Error> {
        let artifacts = &self.publisher.context.artifacts;
        for manifest in built.before.iter().chain(built.referrers.iter().map(|(_, referrer)| referrer)) {
            artifacts.learned_manifest(&self.repository, Arc::clone(manifest));
        }
        artifacts.published(&self.repository, &self.target, Arc::clone(&built.top));
        produce::adopt(artifacts, &self.repository, &built.made).await?;
        let artifact = self.artifact(&built.top.digest).await?;
        // The packed layers are removed, and the cache gets their budget back.
        built.made.iter().for_each(Made::give_room_back);
        join_cache::join_cache(artifacts, &artifact, &built.made, &self.publisher.push).await;
        Ok(artifact)
    }

    pub(super) async fn commit(&self, frozen: Arc<Frozen>, artifact: Arc<Artifact>) -> Result<bool, Error> {
        let overlay = Arc::clone(self.overlay);
        blocking(move || overlay.commit_publish(frozen, &artifact)).await
    }
}
