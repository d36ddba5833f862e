//! Staged tags without a daemon: this process builds the same file systems as a mount, without a kernel, and adopts tags that a dead daemon
//! left staged.
//!
//! Tags of running daemons are neither listed nor touched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::exit::Failure;
use crate::cli::settings::flags::{ContentFlags, Storage, WriteFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases::{self, Origin};
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::cli::source::{reference, root};
use crate::cli::staged::edits::Edits;
use crate::cli::terminal::{escape, message};
use crate::control::Difference;
use crate::error::ErrorKind;
use crate::fs::{self, FileSystem, Scope, Selection, StagedTag, TagName};
use crate::oci::Source;
use crate::publish::{Listener, Options, Report};
use crate::seal::Passphrase;
use crate::staging::{TagKey, Uppers};

/// Settings for reaching registries and layouts without a daemon.
pub struct Reach<'command> {
    /// Directories and budgets.
    pub storage: &'command Storage,
    /// Sources of passphrases, read only when needed.
    pub origins: &'command [Origin],
    /// Send no request to a registry. The command then has no registry flags.
    pub offline: bool,
    /// The invocation.
    pub invocation: &'command Invocation,
}

/// The selected tags of a state directory.
#[derive(Clone, Debug)]
pub struct StagedSelection {
    /// The source of their registry, layout or dead mount; any if `None`.
    pub source: Option<Source>,
    /// The selected tags of the source.
    pub selection: Selection,
}

impl StagedSelection {
    /// All tags without a daemon.
    pub fn all() -> Self {
        Self { source: None, selection: Selection::All }
    }

    /// Whether a staged tag is selected.
    fn selects(&self, tag_key: &TagKey, name: &TagName) -> bool {
        let Some(source) = &self.source else { return true };
        let is_selected = |scope: Scope<'_>| scope.covers_in(&tag_key.authority, name) && scope.part(&self.selection, name).is_some();
        root::with_scope(source, is_selected) == Some(true)
    }
}

/// The selected tags of a state directory that no process holds. None is open yet.
#[derive(Default)]
pub struct Unheld {
    uppers: Option<Arc<Uppers>>,
    tag_keys: Vec<(TagName, TagKey)>,
    /// Warnings about selected tags that another process holds or that are unreadable.
    warnings: Vec<String>,
}

impl Unheld {
    /// Finds the selected tags.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn look(state_directory: Option<&Path>, wanted: &StagedSelection) -> Result<Self, Failure> {
        let Some(state) = state_directory.filter(|state| state.join("uppers").is_dir()) else { return Ok(Self::default()) };
        let uppers = wiring::uppers(state, None)?;
        let (mut tag_keys, mut warnings) = (Vec::new(), Vec::new());
        for listed in uppers.list()? {
            match listed.map(|listed| (fs::tag_of(&listed.tag_key).filter(|name| wanted.selects(&listed.tag_key, name)), listed)) {
                Err(error) => warnings.push(error.to_string()),
                Ok((None, _)) => {}
                Ok((Some(name), listed)) => match listed.holder {
                    None => tag_keys.push((name, listed.tag_key)),
                    // Without a selection, tags of running mounts are skipped silently.
                    Some(_) if matches!(wanted.selection, Selection::All) => {}
                    Some(pid) => warnings.push(format!("{} is in use by process {pid}", reference_of(&name, &listed.tag_key))),
                },
            }
        }
        tag_keys.sort();
        Ok(Self { uppers: Some(uppers), tag_keys, warnings })
    }

    /// The references of the tags.
    pub fn references(&self) -> Vec<String> {
        let mut references: Vec<String> = self.tag_keys.iter().map(|(name, tag_key)| reference_of(name, tag_key)).collect();
        references.dedup();
        references
    }
}

/// One registry or layout.
pub struct StagedSource {
    /// The prefix of its references.
    pub source: String,
    /// Its tags.
    tag_keys: Vec<(TagName, TagKey)>,
    /// The file system, or why it cannot be opened.
    opened: Result<(Edits, Parts), Failure>,
}

/// Staged tags without a daemon, by registry or layout.
pub struct Orphaned {
    sources: Vec<StagedSource>,
    uppers: Option<Arc<Uppers>>,
    selection: Selection,
}

impl Orphaned {
    /// Builds the file systems and adopts the selected tags.
    ///
    /// # Errors
    /// A passphrase or the state directory cannot be read.
    pub async fn open(state_directory: Option<&Path>, wanted: &StagedSelection, reach: &Reach<'_>) -> Result<Self, Failure> {
        let found = Unheld::look(state_directory, wanted)?;
        found.warnings.iter().for_each(|warning| message::warn(warning));
        let mut groups: BTreeMap<String, Vec<(TagName, TagKey)>> = BTreeMap::new();
        for (name, tag_key) in found.tag_keys {
            groups.entry(tag_key.origin.clone()).or_default().push((name, tag_key));
        }
        let mut orphaned = Self { sources: Vec::new(), uppers: found.uppers, selection: wanted.selection.clone() };
        let Some(uppers) = orphaned.uppers.clone() else { return Ok(orphaned) };
        let mut sources = Vec::new();
        for (origin, tag_keys) in groups {
            let Some(authority) = tag_keys.first().map(|(_, tag_key)| &tag_key.authority) else { continue };
            let own = || Source::parse(authority).or_else(|_| Source::parse(&format!("{authority}/")));
            sources.push((wanted.source.clone().map_or_else(own, Ok)?, Some(origin), tag_keys));
        }
        if let (true, Some(source), Selection::Path(_)) = (sources.is_empty(), &wanted.source, &wanted.selection) {
            // Only the file system knows whether such a path can exist.
            sources.push((source.clone(), None, Vec::new()));
        }
        let passphrases = if sources.is_empty() { Vec::new() } else { passphrases::read_all(reach.origins)? };
        for (source, origin, tag_keys) in sources {
            let opened = reach.open(&source, origin.as_deref(), &uppers, &passphrases);
            orphaned.sources.push(StagedSource { source: start_of_references(&source), tag_keys, opened });
        }
        for source in &orphaned.sources {
            if let Ok((edits, _)) = &source.opened {
                for tag in edits.file_system.adopt_wanted(Some(&wanted.selection)).await {
                    // `status` shows this beside the tag.
                    if let Some(as_staged) = tag.as_staged.filter(|_| !reach.offline) {
                        message::report(&format!("{}: {as_staged}", escape::terminal(&tag.reference)));
                    }
                }
            }
        }
        Ok(orphaned)
    }

    /// The staged tags, by registry or layout.
    ///
    /// # Errors
    /// As [`Edits::staged`].
    pub async fn staged(&self) -> Result<Vec<(&str, Vec<StagedTag>)>, Failure> {
        let mut all = Vec::new();
        for source in &self.sources {
            let staged = match &source.opened {
                Ok((edits, _)) => edits.staged(&self.selection).await?,
                Err(failure) => {
                    let unreadable = |reference| StagedTag { reference, error: Some(failure.message.clone()), ..StagedTag::default() };
                    source.references().map(unreadable).collect()
                }
            };
            all.push((source.source.as_str(), staged));
        }
        Ok(all)
    }

    /// Publishes the tags.
    ///
    /// # Errors
    /// As [`Edits::sync`].
    pub async fn sync(&self, options: &Options, listener: &Listener) -> Result<Vec<Report>, Failure> {
        if options.as_tag.is_some() && self.sources.len() > 1 {
            return Err(fs::several_under_one_name().into());
        }
        let mut reports = Vec::new();
        for source in &self.sources {
            match &source.opened {
                Ok((edits, _)) => reports.extend(edits.sync(&self.selection, options, listener).await?),
                Err(Failure { code, message }) => {
                    let failed = |reference| Report::failed(reference, ErrorKind::from(*code), message.clone());
                    reports.extend(source.references().map(failed));
                }
            }
        }
        Ok(reports)
    }

    /// The differences from upstream.
    ///
    /// # Errors
    /// As [`Edits::differences`].
    pub async fn differences(&self) -> Result<Vec<Difference>, Failure> {
        let mut rows = Vec::new();
        for source in &self.sources {
            let (edits, _) = source.opened.as_ref().map_err(|failure| failure.clone().context(escape::terminal(&source.source)))?;
            rows.extend(edits.differences(&self.selection).await?);
        }
        Ok(rows)
    }

    /// Discards edits.
    ///
    /// # Errors
    /// As [`Edits::discard`].
    pub async fn discard(&self) -> Result<Vec<String>, Failure> {
        let mut references = Vec::new();
        for source in &self.sources {
            match (&source.opened, &self.uppers) {
                (Ok((edits, _)), _) => references.extend(edits.discard(&self.selection).await?),
                // Works without the registry or layout.
                (Err(_), Some(uppers)) if !matches!(self.selection, Selection::Path(_)) => {
                    source.tag_keys.iter().try_for_each(|(_, tag_key)| uppers.give_up(tag_key).map(drop))?;
                    references.extend(source.references());
                }
                (Err(failure), _) => return Err(failure.clone().context(escape::terminal(&source.source))),
            }
        }
        Ok(references)
    }

    /// The selected tags.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Stages an empty tag of a dead mount and returns its path.
    ///
    /// # Errors
    /// As [`Edits::new_tag`].
    pub async fn new_tag(&self, reference: &str) -> Result<String, Failure> {
        let source = self.sources.first().ok_or_else(|| Failure::mount("the mount is dead and was not writable"))?;
        let (edits, _) = source.opened.as_ref().map_err(Clone::clone)?;
        Ok(edits.new_tag(reference).await?)
    }

    /// Removes published tags from staging and saves the documents that were read.
    pub async fn close(self) {
        for (edits, parts) in self.sources.into_iter().filter_map(|source| source.opened.ok()) {
            edits.file_system.close().await;
            parts.artifacts.flush().await;
        }
    }
}

impl StagedSource {
    fn references(&self) -> impl Iterator<Item = String> + '_ {
        self.tag_keys.iter().map(|(name, tag_key)| reference_of(name, tag_key))
    }
}

impl Reach<'_> {
    /// The file system of a source, as a mount would have it. `origin`: where its edits came from, if known.
    fn open(
        &self,
        source: &Source,
        origin: Option<&str>,
        uppers: &Arc<Uppers>,
        passphrases: &[Passphrase],
    ) -> Result<(Edits, Parts), Failure> {
        let (root, authority) = root::of_source(source).ok_or_else(|| Failure::usage(format!("{source} has no tag that can be edited")))?;
        let (file, host) = (&self.invocation.file, reference::registry(source));
        let mut registry = if self.offline { self.invocation.registry_of_file(host) } else { self.invocation.registry(host) }?;
        if origin.is_some_and(|origin| origin.starts_with("http://")) {
            // As for the mount that staged it.
            registry.connection.plain_http.get_or_insert(true);
        }
        // Only the merged view can be edited.
        let content = ContentFlags { view: None, ..file.group(None)? };
        let writing: WriteFlags = file.group(None)?;
        let reading = Reading { offline: self.offline, begins: true, passphrases: passphrases.to_vec(), ..Reading::of(&content) };
        let parts = wiring::build(source, reading, &registry, self.storage, &self.invocation.environment)?;
        if let Some(origin) = origin.filter(|origin| *origin != parts.artifacts.origin()) {
            let message = format!("the edits belong to {origin}, but the flags point to {}", parts.artifacts.origin());
            return Err(Failure::usage(message));
        }
        let meaning = wiring::meaning(&parts, &writing, !passphrases.is_empty());
        let writing = wiring::writing(&writing, Arc::clone(uppers), &parts);
        let config = root::bare(root, authority, &parts, root::defaults(Duration::ZERO), meaning, Some(writing));
        let file_system = FileSystem::new(config, parts.artifacts.clone()).map_err(|error| Failure::other(error.to_string()))?;
        Ok((Edits { file_system: Arc::new(file_system), offline: self.offline }, parts))
    }
}

fn reference_of((repository, tag): &TagName, tag_key: &TagKey) -> String {
    if tag_key.authority.starts_with("oci:") {
        return format!("{}:{tag}", tag_key.authority);
    }
    format!("{}/{repository}:{tag}", tag_key.authority)
}

/// A registry or layout as the prefix of its references.
fn start_of_references(source: &Source) -> String {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => registry.to_string(),
        Source::Layout { place, .. } => place.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_state_directory_is_created_to_find_staged_tags() {
        let directory = tempfile::tempdir().unwrap();
        for state in [Some(directory.path()), None] {
            assert_eq!(Unheld::look(state, &StagedSelection::all()).unwrap().references(), Vec::<String>::new());
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_wanted_tags_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let uppers = Uppers::open(directory.path(), None).unwrap();
        for (authority, repository) in [("reg.io", "team/app"), ("reg.io", "other"), ("oci:/srv/layout", "layout")] {
            let (origin, authority) = (format!("of {authority}"), authority.to_owned());
            let tag_key = TagKey { origin, authority, repository: repository.to_owned(), tag: "v1".to_owned() };
            uppers.create(&tag_key, crate::staging::Binding::default(), None).unwrap();
        }
        let found = |source: Option<&str>, selection: Selection| {
            let source = source.map(|source| Source::parse(source).unwrap());
            Unheld::look(Some(directory.path()), &StagedSelection { source, selection }).unwrap().references()
        };
        assert_eq!(found(None, Selection::All).len(), 3);
        assert_eq!(found(Some("reg.io/team"), Selection::All), ["reg.io/team/app:v1"]);
        assert_eq!(found(Some("reg.io/team"), Selection::Path("app/v1/file".to_owned())), ["reg.io/team/app:v1"]);
        assert_eq!(found(Some("reg.io/team"), Selection::Path("app/v2".to_owned())), Vec::<String>::new());
        assert_eq!(found(Some("reg.io"), Selection::Reference("reg.io/other:v1".to_owned())), ["reg.io/other:v1"]);
        assert_eq!(found(Some("oci:/srv/layout"), Selection::All), ["oci:/srv/layout:v1"]);
    }
}
