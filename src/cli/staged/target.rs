//! Resolves PATH or REF of `sync`, `diff`, `discard` and `new`: staged tags of a running daemon, or orphaned ones.
//!
//! A path in a mount stands for that mount. A reference stands for the mount or detached daemon where it is staged, else for orphaned edits
//! of it, else for a mount that covers it. The default is the mount of the working directory, else the only mount.

use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;
use crate::cli::mounts::{self, health};
use crate::cli::settings::environment::Environment;
use crate::cli::source::{mounted, reference, root};
use crate::cli::staged::orphaned::{StagedSelection, Unheld};
use crate::cli::terminal::{escape, message};
use crate::control::Client;
use crate::fs::{Scope, Selection, StagedTag};
use crate::oci::Source;
use crate::sys::mountinfo::Mount;

/// Where the selected tags are.
pub enum Target {
    /// In a running daemon.
    Mount(Box<AtMount>),
    /// In a state directory, without a daemon.
    Orphaned(Option<PathBuf>, StagedSelection),
}

impl Target {
    /// The reference that the user named, if no mount, not even a dead one, shows it.
    pub fn unknown_reference(&self) -> Option<String> {
        match self {
            Self::Orphaned(_, StagedSelection { selection: Selection::Reference(reference), .. }) => {
                let covers = |mount: &Mount| scope_of(mount, |scope| scope.overlaps(reference)) == Some(true);
                // A dead mount counts: what it left may have been published.
                let is_known = distinct().is_ok_and(|mounts| mounts.iter().any(covers));
                (!is_known).then(|| reference.clone())
            }
            _ => None,
        }
    }
}

/// Says that nothing is known about a reference without staged edits: it may be a slip.
pub fn note_unknown(reference: &str) {
    let reference = escape::terminal(reference);
    message::report(&format!("no mount shows {reference}, and no edits of it are left; `ocifs status` lists mounts and edits"));
}

/// Tags of a mount.
#[derive(Clone)]
pub struct AtMount {
    /// The mount.
    pub mount: Mount,
    /// The daemon.
    pub client: Client,
    /// The selected tags.
    pub selection: Selection,
}

/// Resolves arguments.
pub struct Finder<'command> {
    /// `--state-dir`, else the default.
    pub state_directory: Option<&'command Path>,
    /// Whether the user named that directory.
    pub is_named: bool,
    /// The environment.
    pub environment: &'command Environment,
}

impl Finder<'_> {
    /// Resolves a command's argument.
    ///
    /// # Errors
    /// The argument is ambiguous or unknown.
    pub fn find(&self, text: Option<&str>) -> Result<Target, Failure> {
        let Some(text) = text else { return self.without_argument() };
        match self.read(text) {
            Ok(Argument::Path(mount, rest)) => self.in_mount(mount, rest),
            Ok(Argument::Reference(source)) => self.by_reference(source),
            Err(failure) => self.once_mounted(Path::new(text)).ok_or(failure),
        }
    }

    /// Parses a path in a mount or a reference; [`mounted::path`] distinguishes them.
    ///
    /// # Errors
    /// The path is not in a mount, or the reference is invalid.
    pub fn read(&self, text: &str) -> Result<Argument, Failure> {
        match mounted::path(text, self.environment)? {
            Some((mount, rest)) => Ok(Argument::Path(mount, rest)),
            None => reference::written(text, self.environment).map(Argument::Reference),
        }
    }

    fn without_argument(&self) -> Result<Target, Failure> {
        if let Ok((mount, _)) = mounts::containing(Path::new("."), self.environment) {
            return self.in_mount(mount, PathBuf::new());
        }
        let mut found = distinct()?;
        // A dead mount without a record here was made with other directories: its edits cannot be found.
        found.retain(|mount| {
            let client = self.client(mount);
            client.record().is_some() || !health::is_gone(&client, mount)
        });
        match (found.pop(), found.is_empty()) {
            (None, _) => Ok(Target::Orphaned(self.state_directory.map(Path::to_owned), StagedSelection::all())),
            (Some(only), true) => self.in_mount(only, PathBuf::new()),
            (Some(last), false) => {
                let names: Vec<String> = found.iter().chain([&last]).map(|mount| escape::path(&mount.mount_point)).collect();
                Err(Failure::usage(format!("several mounts ({}); name one", names.join(", "))))
            }
        }
    }

    /// The target of a path in a mount; orphaned edits if it is dead.
    ///
    /// # Errors
    /// The mount is dead and its state directory is unknown.
    pub fn in_mount(&self, mount: Mount, rest: PathBuf) -> Result<Target, Failure> {
        let client = self.client(&mount);
        let selection = selection(rest);
        if !health::is_gone(&client, &mount) {
            return Ok(Target::Mount(Box::new(AtMount { mount, client, selection })));
        }
        let shown = escape::path(&mount.mount_point);
        let unknown = |what: &str| Failure::mount(format!("the mount on {shown} is dead and {what}"));
        let source = Source::parse(&mount.source.to_string_lossy()).map_err(|_| unknown("its source is unknown"))?;
        let wanted = StagedSelection { source: Some(source), selection };
        let recorded = mounts::recorded_state(client.record());
        let state = recorded.clone().or_else(|| self.state_directory.map(Path::to_owned));
        if recorded.is_none() && !self.is_named && Unheld::look(state.as_deref(), &wanted)?.references().is_empty() {
            return Err(unknown("its state directory is unknown; set --state-dir"));
        }
        Ok(Target::Orphaned(state, wanted))
    }

    /// A path in a mount that died and was unmounted, found through its record.
    fn once_mounted(&self, path: &Path) -> Option<Target> {
        let (record, rest) = mounts::recorded(path, self.state_directory, self.environment)?;
        let source = Source::parse(&record.source).ok()?;
        Some(Target::Orphaned(
            Some(mounts::recorded_state(Some(&record))?),
            StagedSelection { source: Some(source), selection: selection(rest) },
        ))
    }

    fn by_reference(&self, source: Source) -> Result<Target, Failure> {
        let reference = source.to_string();
        let selection = Selection::Reference(reference.clone());
        let mut covering = Vec::new();
        let mut states = vec![self.state_directory.map(Path::to_owned)];
        for mount in distinct()?.into_iter().filter(|mount| scope_of(mount, |scope| scope.overlaps(&reference)) == Some(true)) {
            let client = self.client(&mount);
            if health::is_gone(&client, &mount) {
                states.extend(mounts::recorded_state(client.record()).map(Some));
            } else {
                covering.push(AtMount { mount, client, selection: selection.clone() });
            }
        }
        // An older daemon lists all its staged tags.
        let is_selected = |tag: &StagedTag| selects(&selection, &tag.reference);
        let has_it = |client: &Client| health::staged(client, selection.clone()).is_ok_and(|tags| tags.iter().any(is_selected));
        if let Some(place) = covering.iter().position(|at| has_it(&at.client)) {
            return Ok(Target::Mount(Box::new(covering.swap_remove(place))));
        }
        let detached = mounts::detached(self.state_directory, self.environment)?;
        if let Some((record, client)) = detached.into_iter().find(|(_, client)| has_it(client)) {
            let mount = mounts::of_record(&record);
            return Ok(Target::Mount(Box::new(AtMount { mount, client, selection })));
        }
        let wanted = StagedSelection { source: Some(whole(source)), selection: selection.clone() };
        // Unreadable tags count as none: the command that opens them reports why.
        let has_orphaned =
            |state: &Option<PathBuf>| Unheld::look(state.as_deref(), &wanted).is_ok_and(|found| !found.references().is_empty());
        match (states.iter().position(has_orphaned), covering.into_iter().next()) {
            (None, Some(mount)) => Ok(Target::Mount(Box::new(mount))),
            (left, _) => Ok(Target::Orphaned(states.swap_remove(left.unwrap_or_default()), wanted)),
        }
    }

    /// The mount that covers a tag (this one, if given), and the tag's path in it.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn showing(&self, mount: Option<Mount>, reference: &str) -> Result<Option<(Mount, String)>, Failure> {
        let mounts = mount.map_or_else(mounts::all, |mount| Ok(vec![mount]))?;
        let with_path = |mount: Mount| {
            let path = scope_of(&mount, |scope| scope.tag(reference).filter(|name| scope.covers(name)).map(|name| scope.path(&name)));
            Some((mount, path??))
        };
        Ok(mounts.into_iter().find_map(with_path))
    }

    fn client(&self, mount: &Mount) -> Client {
        mounts::client(mount, self.state_directory, self.environment)
    }
}

/// Selects a path of a mount; everything if it is empty.
pub fn selection(path: PathBuf) -> Selection {
    if path.as_os_str().is_empty() { Selection::All } else { Selection::Path(path.to_string_lossy().into_owned()) }
}

/// A parsed PATH or REF.
#[derive(Debug)]
pub enum Argument {
    /// A path below a mount.
    Path(Mount, PathBuf),
    /// A registry, repository, tag or layout.
    Reference(Source),
}

/// Applies a function to the scope of a mount, if known.
fn scope_of<T>(mount: &Mount, apply: impl FnOnce(Scope<'_>) -> T) -> Option<T> {
    root::with_scope(&Source::parse(&mount.source.to_string_lossy()).ok()?, apply)
}

/// Whether a selection includes the tag with this reference.
fn selects(selection: &Selection, reference: &str) -> bool {
    let is_selected = |scope: Scope<'_>| scope.tag(reference).is_some_and(|name| scope.part(selection, &name).is_some());
    Source::parse(reference).ok().and_then(|source| root::with_scope(&whole(source), is_selected)) == Some(true)
}

/// The whole registry or layout of a source.
fn whole(source: Source) -> Source {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Source::Registry { registry, prefix: None },
        Source::Layout { place, .. } => Source::Layout { place, name: None },
    }
}

/// This user's mounts, one per daemon: bind mounts repeat them. Other users' mounts are reachable by path only; otherwise any user could
/// answer for a registry.
fn distinct() -> Result<Vec<Mount>, Failure> {
    let mut found: Vec<Mount> = Vec::new();
    for mount in mounts::all()?.into_iter().filter(mounts::is_own) {
        if found.iter().all(|known| known.device != mount.device) {
            found.push(mount);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_selects_its_own_tags_only() {
        let by = |text: &str| Selection::Reference(text.to_owned());
        assert!(selects(&by("reg.io/team"), "reg.io/team/app:v1") && selects(&by("oci:/srv/layout"), "oci:/srv/layout:v1"));
        assert!(!selects(&by("reg.io/team"), "reg.io/other:v1") && !selects(&by("reg.io"), "other.io/app:v1"));
    }

    #[test]
    fn a_text_that_is_neither_path_nor_reference_is_an_error() {
        let environment = Environment::default();
        let finder = Finder { state_directory: None, is_named: false, environment: &environment };
        let failure = finder.read("/no/such/mount/app").unwrap_err();
        assert!(failure.message.contains("is not in an ocifs mount"), "{failure}");
        assert!(finder.read("oci").unwrap_err().message.contains("is not in an ocifs mount"));
        assert!(matches!(finder.read("registry.invalid/app:v1"), Ok(Argument::Reference(_))));
        assert!(finder.read("registry.invalid/UPPER").is_err());
    }
}
