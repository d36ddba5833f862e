//! What a daemon that is gone left staged: found in the state directory, compared, published and taken back without a mount.
//!
//! Works on what nobody holds; tags of a running mount are its daemon's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::config::File;
use super::environment::Environment;
use super::exit::Failure;
use super::flags::{ContentFlags, Reaching};
use super::subjects::{Wanted, inside, is_wanted};
use super::wiring::{self, Reading};
use super::{answers, escape, reference, root};
use crate::artifact::ViewMode;
use crate::control::Difference;
use crate::error::ErrorKind;
use crate::fs::StagedTag;
use crate::oci::{Registry, Repository, Source};
use crate::publish::{Listener, Options, Outcome, Publisher, Report, Sizes};
use crate::registry::Push;
use crate::seal::Passphrase;
use crate::staging::{Listed, Subject, Uppers};
use crate::view::{Authority, Context, Overlay};

/// What is found in a state directory.
pub struct Left {
    uppers: Arc<Uppers>,
    listed: Vec<Listed>,
    /// Why others cannot be read at all.
    pub unreadable: Vec<String>,
}

/// How the places are reached where they were staged from.
pub struct Reach<'command> {
    /// Flags, with the storage completed.
    pub flags: &'command Reaching,
    /// Passphrases in order.
    pub passphrases: Vec<Passphrase>,
    /// Never ask a registry.
    pub offline: bool,
    /// The configuration file.
    pub file: &'command File,
    /// Directories.
    pub environment: &'command Environment,
}

/// One registry or layout, ready to use.
struct Place {
    context: Arc<Context>,
    push: Arc<dyn Push>,
}

/// The reference of a tag.
pub fn reference_of(subject: &Subject) -> String {
    if subject.authority.starts_with("oci:") {
        return format!("{}:{}", subject.authority, subject.tag);
    }
    format!("{}/{}:{}", subject.authority, subject.repository, subject.tag)
}

/// The registry or layout of a tag, by its reference.
pub fn source(reference: &str) -> String {
    match Source::parse(reference) {
        Ok(Source::Registry { registry, .. } | Source::Artifact { registry, .. }) => registry.to_string(),
        Ok(Source::Layout { directory, .. }) => format!("oci:{}", directory.display()),
        Err(_) => reference.to_owned(),
    }
}

/// Whether anything that is wanted is left. What cannot be listed counts as nothing: the command that works on it says why.
pub fn is_any(state_directory: Option<&Path>, wanted: &Wanted) -> bool {
    Left::find(state_directory, wanted).is_ok_and(|left| left.is_some_and(|left| !left.listed.is_empty()))
}

impl Left {
    /// Looks for tags that nobody holds; `None` where nothing was ever staged. Opens none of them and changes nothing.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn find(state_directory: Option<&Path>, wanted: &Wanted) -> Result<Option<Self>, Failure> {
        let Some(state) = state_directory.filter(|state| state.join("uppers").is_dir()) else { return Ok(None) };
        let uppers = wiring::uppers(state, None)?;
        let (mut listed, mut unreadable) = (Vec::new(), Vec::new());
        for one in uppers.list()? {
            match one {
                Ok(one) if one.holder.is_none() && is_wanted(wanted, &reference_of(&one.subject)) => listed.push(one),
                Ok(_) => {}
                Err(error) => unreadable.push(error.message),
            }
        }
        listed.sort_by_key(|one| reference_of(&one.subject));
        Ok(Some(Self { uppers, listed, unreadable }))
    }

    /// References of the tags.
    pub fn references(&self) -> Vec<String> {
        self.listed.iter().map(|one| reference_of(&one.subject)).collect()
    }

    /// The tags with what was changed in them.
    pub async fn staged(&self, reach: &Reach<'_>) -> Vec<StagedTag> {
        let mut tags = Vec::new();
        for (subject, place) in self.places(reach) {
            let tag = match self.open(&subject, place).await {
                Ok(Some((place, overlay))) => crate::fs::staged_tag(&place.context, &overlay).await,
                Ok(None) => continue,
                Err(failure) => StagedTag { reference: reference_of(&subject), error: Some(failure.message), ..StagedTag::default() },
            };
            if tag.edited || tag.error.is_some() {
                tags.push(tag);
            }
        }
        tags
    }

    /// Publishes the tags one after another.
    pub async fn sync(&self, reach: &Reach<'_>, options: &Options, listener: &Listener) -> Vec<Report> {
        let mut reports = Vec::new();
        for (subject, place) in self.places(reach) {
            let published = match self.open(&subject, place).await {
                Ok(Some((place, overlay))) => publish(&place, &overlay, options, listener).await,
                Ok(None) => continue,
                Err(failure) => Err(failure),
            };
            reports.push(published.unwrap_or_else(|failure| failed(&subject, failure)));
        }
        reports
    }

    /// What differs from upstream.
    ///
    /// # Errors
    /// A tag cannot be read, or what is upstream cannot be compared with.
    pub async fn differences(&self, reach: &Reach<'_>, wanted: &Wanted) -> Result<Vec<Difference>, Failure> {
        let mut rows = Vec::new();
        for (subject, place) in self.places(reach) {
            let reference = reference_of(&subject);
            let context = |failure: Failure| failure.context(escape::terminal(&reference));
            let Some((place, overlay)) = self.open(&subject, place).await.map_err(context)? else { continue };
            let found = overlay.differences(&place.context).await.map_err(|error| context(error.into()))?;
            let below = inside(wanted, &reference);
            let found = found.into_iter().filter(|one| Path::new(&*String::from_utf8_lossy(&one.path)).starts_with(below));
            rows.extend(found.map(|one| answers::difference(&reference, one)));
        }
        Ok(rows)
    }

    /// Takes edits back: whole tags without asking anybody, or what lies below a path in one.
    ///
    /// # Errors
    /// Somebody holds the tag now, or it cannot be changed.
    pub async fn discard(&self, reach: &Reach<'_>, wanted: &Wanted) -> Result<Vec<String>, Failure> {
        let mut references = Vec::new();
        for (subject, place) in self.places(reach) {
            let reference = reference_of(&subject);
            let context = |failure: Failure| failure.context(escape::terminal(&reference));
            let below = inside(wanted, &reference);
            if below.is_empty() {
                // Not opened: this is also the way out for what cannot be.
                self.uppers.give_up(&subject).map_err(|error| context(error.into()))?;
            } else if let Some((_, overlay)) = self.open(&subject, place).await.map_err(context)? {
                overlay.fetch_expected().await.map_err(|error| context(error.into()))?;
                overlay.discard(below.as_bytes()).map_err(|error| context(error.into()))?;
            }
            references.push(reference);
        }
        Ok(references)
    }

    /// Each tag with its place, or why that cannot be reached.
    fn places(&self, reach: &Reach<'_>) -> Vec<(Subject, Result<Arc<Place>, Failure>)> {
        let mut known: BTreeMap<String, Result<Arc<Place>, Failure>> = BTreeMap::new();
        let with_place = |one: &Listed| {
            let place = known.entry(one.subject.authority.clone()).or_insert_with(|| reach.place(&one.subject, &self.uppers).map(Arc::new));
            (one.subject.clone(), place.clone())
        };
        self.listed.iter().map(with_place).collect()
    }

    /// Opens a tag; `None` if it is gone meanwhile.
    async fn open(&self, subject: &Subject, place: Result<Arc<Place>, Failure>) -> Result<Option<(Arc<Place>, Arc<Overlay>)>, Failure> {
        let place = place?;
        let Some(upper) = self.uppers.find(subject)? else { return Ok(None) };
        let overlay = Overlay::open(&place.context, upper).await?;
        Ok(Some((place, overlay)))
    }
}

async fn publish(place: &Place, overlay: &Arc<Overlay>, options: &Options, listener: &Listener) -> Result<Report, Failure> {
    let push = Arc::clone(&place.push);
    let publisher = Publisher {
        context: Arc::clone(&place.context),
        push,
        kind: options.as_kind.unwrap_or_default(),
        concurrency: wiring::CONCURRENCY,
        sizes: Sizes::default(),
    };
    let (report, _) = publisher.publish(overlay, options, listener).await?;
    Ok(report)
}

fn failed(subject: &Subject, failure: Failure) -> Report {
    let kind = ErrorKind::from(failure.code).name().to_owned();
    Report {
        reference: reference_of(subject),
        outcome: Outcome::Failed { kind, message: failure.message },
        sent: (0, 0),
        reused: (0, 0),
        changes: (0, 0, 0),
        ignored: 0,
        notes: Vec::new(),
    }
}

impl Reach<'_> {
    /// Builds what a tag's place needs, as a mount of it would.
    fn place(&self, subject: &Subject, uppers: &Arc<Uppers>) -> Result<Place, Failure> {
        let source = source_of(subject)?;
        let mut registry = self.flags.registry.clone();
        self.file.complete_registry(&mut registry, reference::registry(&source), self.environment)?;
        let content = ContentFlags::default();
        let reading =
            Reading { flags: &content, offline: self.offline, by_digest: false, begins: true, passphrases: self.passphrases.clone() };
        let parts = wiring::build(&source, reading, &registry, &self.flags.storage, self.environment)?;
        let options = parts.artifacts.options();
        let context = Context {
            mode: ViewMode::Merged,
            platform: options.platform.clone(),
            strict: options.strict,
            defaults: root::defaults(std::time::Duration::ZERO),
            authority: authority(&subject.authority),
            tag_ttl: options.tag_ttl,
            staging: Some(Arc::clone(uppers)),
            artifacts: parts.artifacts,
        };
        Ok(Place { context: Arc::new(context), push: parts.push })
    }
}

fn authority(name: &str) -> Authority {
    if name.starts_with("oci:") { Authority::Layout(name.to_owned()) } else { Authority::Registry(name.to_owned()) }
}

/// The repository or layout that a tag was staged for.
fn source_of(subject: &Subject) -> Result<Source, Failure> {
    if let Some(directory) = subject.authority.strip_prefix("oci:") {
        return Ok(Source::Layout { directory: directory.into(), name: None });
    }
    let registry = Registry::parse(&subject.authority)?;
    Ok(Source::Registry { registry, prefix: Some(Repository::parse(&subject.repository)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(authority: &str, repository: &str) -> Subject {
        let tag = "v1".to_owned();
        Subject { origin: String::new(), authority: authority.into(), repository: repository.into(), tag }
    }

    #[test]
    fn a_subject_has_the_reference_that_a_person_would_write() {
        for (subject, reference, source) in [
            (subject("reg.io", "team/app"), "reg.io/team/app:v1", "reg.io/team/app"),
            (subject("oci:/srv/layout", "layout"), "oci:/srv/layout:v1", "oci:/srv/layout"),
        ] {
            assert_eq!(reference_of(&subject), reference);
            assert_eq!(source_of(&subject).unwrap().to_string(), source);
        }
    }

    #[test]
    fn without_a_state_directory_nothing_is_left_and_none_is_made() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Left::find(Some(directory.path()), &Wanted::All).unwrap().is_none());
        assert!(Left::find(None, &Wanted::All).unwrap().is_none());
        assert!(!is_any(Some(directory.path()), &Wanted::All));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
