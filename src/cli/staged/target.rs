//! What PATH or REF of `sync`, `diff`, `discard` and `new` means: staged tags of a mount whose daemon is asked, or what a daemon
//! that is gone left behind.
//!
//! A path in a mount means that mount. A reference means the mount, or the daemon of one that is detached, that has it staged, else what
//! is left of it, else a mount that covers it. Without either it is the mount of the working directory, else the only one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::command::mount;
use crate::cli::command::status;
use crate::cli::daemon::root;
use crate::cli::exit::Failure;
use crate::cli::mounts;
use crate::cli::settings::environment::Environment;
use crate::cli::staged::orphaned::{Found, Wanted};
use crate::cli::terminal::escape;
use crate::control::{Client, Record, Request};
use crate::fs::{Scope, Selection, StagedTag};
use crate::oci::Source;
use crate::sys::mountinfo::Mount;
use crate::sys::process;

/// How long a daemon may take to say what it has staged.
const PULSE: Duration = Duration::from_secs(5);

/// Where the tags are that a command means.
pub enum Target {
    /// In a mount.
    Mount(Box<AtMount>),
    /// In a state directory, held by nobody.
    Left(Option<PathBuf>, Wanted),
}

/// Tags of a mount.
#[derive(Clone)]
pub struct AtMount {
    /// The mount.
    pub mount: Mount,
    /// Its daemon.
    pub client: Client,
    /// Which of its tags.
    pub selection: Selection,
}

/// Finds mounts and their daemons.
pub struct Finder<'command> {
    /// `--state-dir`, else the default.
    pub state_directory: Option<&'command Path>,
    /// Whether a person named that directory.
    pub is_named: bool,
    /// Directories.
    pub environment: &'command Environment,
}

impl Finder<'_> {
    /// What a command means.
    ///
    /// # Errors
    /// Nothing or too much could be meant.
    pub fn find(&self, text: Option<&str>) -> Result<Target, Failure> {
        let Some(text) = text else { return self.without_argument() };
        match self.read(text) {
            Ok(Argument::Path(mount, rest)) => self.in_mount(mount, rest),
            Ok(Argument::Reference(source)) => self.by_reference(source),
            Err(failure) => self.once_mounted(Path::new(text)).ok_or(failure),
        }
    }

    /// A path in a mount, or a reference: that begins with a registry or with `oci:`. In a mount a relative path that looks like
    /// a registry (`v1.0/data`) is a path, unless it is the registry that is mounted or has a port.
    ///
    /// # Errors
    /// A path in no mount, or a reference that follows no grammar.
    pub fn read(&self, text: &str) -> Result<Argument, Failure> {
        if !text.starts_with("oci:") {
            let inside = mounts::containing(Path::new(text), self.environment);
            match inside {
                Ok((mount, rest)) if !begins_with_registry(text) || !means_registry(text, &mount) => {
                    return Ok(Argument::Path(mount, rest));
                }
                Err(failure) if !begins_with_registry(text) => return Err(failure),
                _ => {}
            }
        }
        mount::source(text, self.environment).map(Argument::Reference)
    }

    fn without_argument(&self) -> Result<Target, Failure> {
        if let Ok((mount, _)) = mounts::containing(Path::new("."), self.environment) {
            return self.in_mount(mount, PathBuf::new());
        }
        let mut found = distinct()?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Ok(Target::Left(self.state_directory.map(Path::to_owned), Wanted::all())),
            (Some(only), true) => self.in_mount(only, PathBuf::new()),
            (Some(last), false) => {
                let names: Vec<String> = found.iter().chain([&last]).map(|mount| escape::path(&mount.mount_point)).collect();
                Err(Failure::usage(format!("there are several mounts ({}); name one of them", names.join(", "))))
            }
        }
    }

    /// A path in a mount, by its daemon; in a dead one by what that left.
    ///
    /// # Errors
    /// The mount is dead and nothing is known of it.
    pub fn in_mount(&self, mount: Mount, rest: PathBuf) -> Result<Target, Failure> {
        let client = self.client(&mount);
        let selection = selection(rest);
        if !is_dead(&client, &mount) {
            return Ok(Target::Mount(Box::new(AtMount { mount, client, selection })));
        }
        let shown = escape::path(&mount.mount_point);
        let unknown = |what: &str| Failure::mount(format!("the mount on {shown} is dead, and {what}"));
        let source = Source::parse(&mount.source.to_string_lossy()).map_err(|_| unknown("what it showed is not known"))?;
        let wanted = Wanted { source: Some(source), selection };
        let recorded = recorded_state(client.record());
        let state = recorded.clone().or_else(|| self.state_directory.map(Path::to_owned));
        if recorded.is_none() && !self.is_named && Found::look(state.as_deref(), &wanted)?.references().is_empty() {
            return Err(unknown("where it staged its edits is not known: name that directory with --state-dir"));
        }
        Ok(Target::Left(state, wanted))
    }

    /// A path in a mount that died and was taken away since, as its record tells.
    fn once_mounted(&self, path: &Path) -> Option<Target> {
        let (record, rest) = mounts::recorded(path, self.state_directory, self.environment)?;
        let source = Source::parse(&record.source).ok()?;
        Some(Target::Left(Some(recorded_state(Some(&record))?), Wanted { source: Some(source), selection: selection(rest) }))
    }

    fn by_reference(&self, source: Source) -> Result<Target, Failure> {
        let reference = source.to_string();
        let selection = Selection::Reference(reference.clone());
        let mut covering = Vec::new();
        let mut states = vec![self.state_directory.map(Path::to_owned)];
        for mount in distinct()?.into_iter().filter(|mount| scope_of(mount, |scope| scope.knows(&reference)) == Some(true)) {
            let client = self.client(&mount);
            if is_dead(&client, &mount) {
                states.extend(recorded_state(client.record()).map(Some));
            } else {
                covering.push(AtMount { mount, client, selection: selection.clone() });
            }
        }
        // A daemon of an older version answers with all that it has staged.
        let is_meant = |tag: &StagedTag| means(&selection, &tag.reference);
        let has_it = |client: &Client| staged(client, selection.clone()).is_ok_and(|tags| tags.iter().any(is_meant));
        if let Some(place) = covering.iter().position(|at| has_it(&at.client)) {
            return Ok(Target::Mount(Box::new(covering.swap_remove(place))));
        }
        let detached = mounts::detached(self.state_directory, self.environment)?;
        if let Some((record, client)) = detached.into_iter().find(|(_, client)| has_it(client)) {
            let mount = mounts::of_record(&record);
            return Ok(Target::Mount(Box::new(AtMount { mount, client, selection })));
        }
        let wanted = Wanted { source: Some(whole(source)), selection: selection.clone() };
        // What cannot be listed counts as nothing: the command that works on it says why.
        let is_left = |state: &Option<PathBuf>| Found::look(state.as_deref(), &wanted).is_ok_and(|found| !found.references().is_empty());
        match (states.iter().position(is_left), covering.into_iter().next()) {
            (None, Some(mount)) => Ok(Target::Mount(Box::new(mount))),
            (left, _) => Ok(Target::Left(states.swap_remove(left.unwrap_or_default()), wanted)),
        }
    }

    /// A mount that would show a tag (this one, if one is given), and the path of the tag in it.
    ///
    /// # Errors
    /// The table of mounts cannot be read.
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

/// What is staged at and below a path of a mount; everything if that is empty.
pub fn selection(path: PathBuf) -> Selection {
    if path.as_os_str().is_empty() { Selection::All } else { Selection::Path(path.to_string_lossy().into_owned()) }
}

/// What a person wrote.
#[derive(Debug)]
pub enum Argument {
    /// A path below a mount.
    Path(Mount, PathBuf),
    /// A registry, repository, tag or layout.
    Reference(Source),
}

/// The staged tags of a mount.
///
/// # Errors
/// Its daemon does not answer, or nothing of the mount is selected.
pub fn staged(client: &Client, selection: Selection) -> Result<Vec<StagedTag>, Failure> {
    client.status(PULSE)?;
    Ok(client.collect(&Request::Staged { selection }, &mut |_| {})?)
}

/// What this says of what a mount shows, as far as that is known.
fn scope_of<T>(mount: &Mount, say: impl FnOnce(Scope<'_>) -> T) -> Option<T> {
    let source = Source::parse(&mount.source.to_string_lossy()).ok()?;
    root::of_source(&source).map(|(root, authority)| say(Scope { root: &root, authority: &authority }))
}

/// Whether a tag is selected, by its reference.
fn means(selection: &Selection, reference: &str) -> bool {
    let place = Source::parse(reference).ok().and_then(|source| root::of_source(&whole(source)));
    place.is_some_and(|(root, authority)| {
        let scope = Scope { root: &root, authority: &authority };
        scope.tag(reference).is_some_and(|name| scope.meant(selection, &name).is_some())
    })
}

/// The registry or layout of a source.
fn whole(source: Source) -> Source {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Source::Registry { registry, prefix: None },
        Source::Layout { directory, .. } => Source::Layout { directory, name: None },
    }
}

/// Whether the daemon of a mount is gone for good.
fn is_dead(client: &Client, mount: &Mount) -> bool {
    client.daemon().is_none() && status::is_dead(mount)
}

/// Where the daemon of a dead mount staged edits, as it wrote down itself. Nobody else's directory is believed.
pub fn recorded_state(record: Option<&Record>) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let directory = record?.state_directory.as_ref()?;
    let metadata = std::fs::symlink_metadata(directory).ok()?;
    (metadata.is_dir() && metadata.uid() == process::effective_uid()).then(|| directory.clone())
}

/// Mounts of this user, of which each has a daemon of its own: a bind mount shows what another one shows. What another user mounted
/// is meant by its path only, or anybody could answer for a registry.
fn distinct() -> Result<Vec<Mount>, Failure> {
    let mut found: Vec<Mount> = Vec::new();
    for mount in mounts::all()?.into_iter().filter(mounts::is_own) {
        if found.iter().all(|known| known.device != mount.device) {
            found.push(mount);
        }
    }
    Ok(found)
}

/// Whether a text begins like a reference with its registry.
fn begins_with_registry(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    let is_path = first.is_empty() || first.starts_with('~') || first == "." || first == "..";
    !is_path && (first == "localhost" || first.contains(['.', ':']))
}

/// Whether a relative path that could lie in this mount begins with a registry instead: with the one that is mounted, or with a host
/// and a port.
fn means_registry(text: &str, mount: &Mount) -> bool {
    let Some((first, _)) = text.split_once('/') else { return false };
    let mounted = mount.source.to_string_lossy();
    let has_port = first.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    has_port || mounted.split('/').next() == Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_begin_with_a_registry_and_paths_do_not() {
        for text in ["reg.io", "reg.io/team/app:v1", "localhost/app", "localhost:5000", "127.0.0.1:5000/a", "[::1]:5000/a"] {
            assert!(begins_with_registry(text), "{text}");
        }
        for text in ["oci", "app/v1", "./reg.io/x", "../reg.io", "/srv/reg.io", "~/oci", "", "."] {
            assert!(!begins_with_registry(text), "{text}");
        }
    }

    #[test]
    fn inside_of_a_mount_only_its_own_registry_or_a_port_makes_a_reference() {
        let mount = Mount {
            id: 1,
            device: (0, 1),
            root: "/".into(),
            mount_point: "/oci".into(),
            kind: crate::sys::mount::KIND.to_owned(),
            source: "reg.io/team".into(),
            options: String::new(),
        };
        assert!(means_registry("reg.io/team/app:v1", &mount) && means_registry("localhost:5000/app", &mount));
        for text in ["v1.0", "v1.0/data", "app:v1/x", "other.io/app"] {
            assert!(!means_registry(text, &mount), "{text}");
        }
    }

    #[test]
    fn a_staged_tag_is_told_from_others_by_its_reference() {
        let by = |text: &str| Selection::Reference(text.to_owned());
        assert!(means(&by("reg.io/team"), "reg.io/team/app:v1") && means(&by("oci:/srv/layout"), "oci:/srv/layout:v1"));
        assert!(!means(&by("reg.io/team"), "reg.io/other:v1") && !means(&by("reg.io"), "other.io/app:v1"));
    }

    #[test]
    fn what_is_neither_in_a_mount_nor_a_reference_is_an_error() {
        let environment = Environment::default();
        let finder = Finder { state_directory: None, is_named: false, environment: &environment };
        let failure = finder.read("/no/such/mount/app").unwrap_err();
        assert!(failure.message.contains("is not in a mount"), "{failure}");
        assert!(finder.read("oci").unwrap_err().message.contains("is not in a mount"));
        assert!(matches!(finder.read("registry.invalid/app:v1"), Ok(Argument::Reference(_))));
        assert!(finder.read("registry.invalid/UPPER").is_err());
    }
}
