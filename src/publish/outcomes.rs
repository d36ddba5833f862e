//! Other outcomes of a publish: no difference, a failed safety check, a moved tag, a known tree, dropped edits, a deleted tag.

use std::sync::Arc;

use super::flow::{Baseline, Publish};
use super::manifest::files as titled;
use super::plan::survey::Survey;
use super::push::upload::Counts;
use super::{Next, Outcome, Report};
use crate::artifact::Dialect;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, Tag, Version};
use crate::path::show;
use crate::registry::TagDeletion;
use crate::staging::Binding;
use crate::view::Frozen;

/// Words that identify artifact types of signatures.
const SIGNATURES: [&str; 4] = ["signature", "cosign", "sigstore", "notary"];

/// Most possibly damaged files named in a message.
const SUSPECTS: usize = 8;

impl Publish<'_> {
    /// The frozen state equals its base: the tag already holds it, or another tag is pointed at it. Sends no blob.
    pub(super) async fn nothing_differs(&self, baseline: &Baseline, survey: Survey, frozen: Arc<Frozen>) -> Result<(Report, Next), Error> {
        let Some(base) = baseline.base.clone() else { return Err(Error::other("a tag without a base")) };
        let mut report = self.report(&survey, Outcome::Unchanged);
        if self.goes_elsewhere() || baseline.binding.expected != Some(base.manifest.digest) {
            report.outcome = Outcome::Published {
                before: baseline.at_target.map(|digest| digest.to_string()),
                digest: base.manifest.digest.to_string(),
                known: true,
            };
            self.refuse_moved(baseline, Some(base.manifest.digest))?;
            if self.options.dry_run {
                return Ok((report, Next::Continues { clean: false }));
            }
            self.target(&self.target).put(&base.manifest, self.expected(baseline), || Ok(())).await?;
            self.publisher.context.artifacts.published(&self.repository, &self.target, Arc::clone(&base.manifest));
            let clean = if self.goes_elsewhere() { true } else { self.commit(frozen, base).await? };
            return Ok((report, Next::Continues { clean }));
        }
        if let Some((before, digest)) = baseline.finished {
            report.outcome =
                Outcome::Published { before: before.map(|digest| digest.to_string()), digest: digest.to_string(), known: false };
            self.publisher.context.artifacts.published(&self.repository, &self.target, Arc::clone(&base.manifest));
        }
        if self.options.dry_run {
            return Ok((report, Next::Continues { clean: true }));
        }
        let clean = self.commit(frozen, base).await?;
        Ok((report, Next::Continues { clean }))
    }

    /// Refuses a tag that no longer holds the digest the edits are based on, before anything is packed. `wanted` is the new digest, if known: a tag
    /// that already holds it was moved by a publish whose answer was lost, or has nothing to lose.
    pub(super) fn refuse_moved(&self, baseline: &Baseline, wanted: Option<Digest>) -> Result<(), Error> {
        if self.options.force || (wanted.is_some() && baseline.at_target == wanted) {
            return Ok(());
        }
        if !self.goes_elsewhere() {
            let Binding { expected, .. } = baseline.binding;
            return if baseline.upstream == expected { Ok(()) } else { Err(self.target(&self.tag).moved(expected, baseline.upstream)) };
        }
        let journal = self.overlay.upper().journal()?;
        let put_before = journal.and_then(|journal| Digest::parse(&journal.digest).ok());
        match baseline.at_target {
            Some(now) if put_before != Some(now) => {
                let message = format!("the tag already exists and holds {now}: use --force to overwrite it; all edits are kept");
                Err(Error::new(ErrorKind::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses changes that are probably mistakes.
    pub(super) fn check_safety(&self, baseline: &Baseline, survey: &Survey) -> Result<(), Error> {
        let skipped = |what: String| Err(Error::new(ErrorKind::Skipped, format!("{what}: nothing was published and all edits are kept")));
        if self.options.force {
            return Ok(());
        }
        let suspects = self.overlay.suspects()?;
        if !suspects.is_empty() {
            let shown: Vec<String> = suspects.iter().take(SUSPECTS).map(|path| format!("`{}`", show(path))).collect();
            let more = if suspects.len() > SUSPECTS { format!(" and {} more", suspects.len() - SUSPECTS) } else { String::new() };
            let what = format!("files written shortly before a power cut may be incomplete: {}{more}", shown.join(", "));
            return skipped(format!("{what} (rewrite or discard them, or use --force to publish them as they are)"));
        }
        if survey.names == 0 {
            let what = if baseline.at_target.is_some() { "the tag would be emptied" } else { "the new tag is empty" };
            return skipped(format!("{what} (use --force to publish anyway)"));
        }
        let (before, now) = survey.files;
        if baseline.at_target.is_some() && before.saturating_sub(now).saturating_mul(2) > before {
            return skipped(format!("only {now} of {before} files would be left, less than half (use --force to publish anyway)"));
        }
        Ok(())
    }

    /// An artifact of the repository with the very same tree. Not for an edit of an artifact with more than a tree (other platforms, a config,
    /// annotations), which must be kept.
    pub(super) async fn known_tree(&self, baseline: &Baseline, survey: &Survey) -> Result<Option<Arc<Manifest>>, Error> {
        if self.options.as_kind.is_some() {
            return Ok(None);
        }
        let defaults = self.publisher.identity_defaults();
        let found = self.publisher.context.artifacts.find_tree(&self.repository, &survey.identity, &defaults).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!("not looking for a known tree: {error}");
                None
            }
        };
        // A copy of an encrypted tag stays encrypted, unless plaintext was requested.
        let found = found.filter(|found| !self.options.plaintext || !self.publisher.context.artifacts.is_secret(&found.digest));
        let Some(base) = &baseline.base else { return Ok(found) };
        Ok(found.filter(|found| {
            let (Some(one), Some(other)) = (found.image(), base.manifest.image()) else { return false };
            let same = (&one.config.digest, &one.artifact_type, &one.annotations, &one.subject)
                == (&other.config.digest, &other.artifact_type, &other.annotations, &other.subject);
            same && base.dialect != Dialect::Image && one.artifact_type.as_deref() == Some(titled::ARTIFACT_TYPE)
        }))
    }

    pub(super) fn report(&self, survey: &Survey, outcome: Outcome) -> Report {
        Report { changes: survey.changes, ignored: survey.ignored, ..self.without_survey(outcome) }
    }

    pub(super) fn counted(&self, report: Report, counts: Counts) -> Report {
        Report { sent: counts.sent, reused: counts.reused, notes: self.progress.notes(), ..report }
    }

    fn without_survey(&self, outcome: Outcome) -> Report {
        Report { notes: self.progress.notes(), ..Report::new(self.reference.clone(), outcome) }
    }

    /// `--theirs`.
    pub(super) async fn drop_edits(&self) -> Result<(Report, Next), Error> {
        if self.overlay.has_writers() {
            return Err(self.busy());
        }
        if self.options.dry_run {
            return Ok((self.without_survey(Outcome::Dropped), Next::Continues { clean: false }));
        }
        self.remove_upper().await?;
        self.publisher.context.artifacts.refresh(Some(&self.repository));
        Ok((self.without_survey(Outcome::Dropped), Next::NewView))
    }

    pub(super) async fn remove_upper(&self) -> Result<(), Error> {
        let overlay = Arc::clone(self.overlay);
        blocking(move || overlay.upper().remove()).await
    }

    /// Deletes the tag upstream, if permitted and it still holds the digest deleted here.
    pub(super) async fn delete(&self, binding: Binding, upstream: Option<Digest>) -> Result<(Report, Next), Error> {
        if self.goes_elsewhere() {
            return Err(Error::new(ErrorKind::Invalid, "the tag was deleted here; a deletion cannot be published under another tag"));
        }
        if !self.options.allow_delete {
            self.progress.note("the tag is kept: deleting tags needs --allow-delete");
            let report = self.without_survey(Outcome::Unchanged);
            if !self.options.dry_run {
                self.remove_upper().await?;
            }
            return Ok((report, if self.options.dry_run { Next::Continues { clean: false } } else { Next::NewView }));
        }
        // The deletion itself judges a tag that moved: it may hold the throw-away manifest of an interrupted deletion.
        let expected = binding.expected.filter(|_| !self.options.force).or(upstream);
        let before = upstream.or(binding.expected).map(|digest| digest.to_string()).unwrap_or_default();
        if self.options.dry_run {
            return Ok((self.without_survey(Outcome::Deleted { before }), Next::Continues { clean: false }));
        }
        let deletion = match expected.filter(|_| upstream.is_some()) {
            Some(digest) => self.target(&self.tag).delete(&digest).await.map_err(|error| match error.kind {
                ErrorKind::Conflict => self.target(&self.tag).moved(binding.expected, upstream),
                _ => error,
            })?,
            None => TagDeletion::Direct,
        };
        if deletion == TagDeletion::ByThrowAway {
            self.progress.note("the registry cannot delete tags: the tag was moved to a throw-away manifest, which was deleted");
        }
        self.publisher.context.artifacts.deleted(&self.repository, &self.tag);
        self.remove_upper().await?;
        Ok((self.without_survey(Outcome::Deleted { before }), Next::NewView))
    }

    /// Notes that existing signatures do not cover the new digest. Failing to find out only loses the note.
    pub(super) async fn note_signatures(&self, baseline: &Baseline) {
        let Some(base) = &baseline.base else { return };
        let digest = base.manifest.digest;
        let artifacts = &self.publisher.context.artifacts;
        let referrers = artifacts.referrers(&self.repository, &digest).await.unwrap_or_default();
        let is_signature = |kind: &str| SIGNATURES.iter().any(|word| kind.contains(word));
        let attached = referrers.iter().any(|referrer| referrer.artifact_type.as_deref().is_some_and(is_signature));
        let cosign = Tag::parse(&format!("{}.sig", digest.path_name())).ok().map(Version::Tag);
        let signed = attached
            || match cosign {
                Some(cosign) => self.publisher.push.resolve(&self.repository, &cosign).await.is_ok(),
                None => false,
            };
        if signed {
            self.progress.note(format!("the signatures of {digest} do not cover the new version: re-sign it"));
        }
    }
}
