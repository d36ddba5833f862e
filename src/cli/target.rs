//! What PATH or REF of `sync`, `diff`, `discard` and `new` means: staged tags of a mount whose daemon is asked, or what a daemon
//! that is gone left behind.
//!
//! A path in a mount means that mount. A reference means the mount, or the daemon of one that is detached, that has it staged, else what
//! is left of it, else a mount that covers it. Without either it is the mount of the working directory, else the only one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use super::exit::Failure;
use super::subjects::{Wanted, covers, is_wanted};
use super::{escape, left, mount, mounts, status};
use crate::control::{Client, Request};
use crate::fs::{Selection, StagedTag};
use crate::oci::Source;
use crate::sys::mountinfo::Mount;

/// How long a daemon may take to say what it has staged.
const PULSE: Duration = Duration::from_secs(5);

/// Where the tags are that a command means.
pub enum Target {
    /// In a mount.
    Mount(Box<AtMount>),
    /// In the state directory, held by nobody.
    Left(Wanted),
}

/// Tags of a mount.
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
        match self.read(text)? {
            Argument::Path(mount, rest) => Ok(self.in_mount(mount, rest)),
            Argument::Reference(source) => self.by_reference(source),
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
            return Ok(self.in_mount(mount, PathBuf::new()));
        }
        let mut found = distinct()?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Ok(Target::Left(Wanted::All)),
            (Some(only), true) => Ok(self.in_mount(only, PathBuf::new())),
            (Some(last), false) => {
                let names: Vec<String> = found.iter().chain([&last]).map(|mount| escape::path(&mount.mount_point)).collect();
                Err(Failure::usage(format!("there are several mounts ({}); name one of them", names.join(", "))))
            }
        }
    }

    fn in_mount(&self, mount: Mount, rest: PathBuf) -> Target {
        let client = self.client(&mount);
        if client.daemon().is_none() && status::is_dead(&mount) {
            let source = Source::parse(&mount.source.to_string_lossy()).ok();
            return Target::Left(source.map_or(Wanted::Nothing, |source| Wanted::Path(source, rest.to_string_lossy().into_owned())));
        }
        let selection = selection(rest);
        Target::Mount(Box::new(AtMount { mount, client, selection }))
    }

    fn by_reference(&self, source: Source) -> Result<Target, Failure> {
        let wanted = Wanted::Reference(source.clone());
        let mut covering = Vec::new();
        for mount in distinct()? {
            let mounted = Source::parse(&mount.source.to_string_lossy());
            if mounted.is_ok_and(|mounted| covers(&mounted, &source) || covers(&source, &mounted)) {
                covering.push((self.client(&mount), mount));
            }
        }
        let has_it = |client: &Client| staged(client).is_ok_and(|tags| tags.iter().any(|tag| is_wanted(&wanted, &tag.reference)));
        let place = covering.iter().position(|(client, _)| has_it(client));
        if place.is_none()
            && let Some((record, client)) =
                mounts::detached(self.state_directory, self.environment)?.into_iter().find(|(_, client)| has_it(client))
        {
            let (mount, selection) = (mounts::of_record(&record), Selection::Reference(source.to_string()));
            return Ok(Target::Mount(Box::new(AtMount { mount, client, selection })));
        }
        if place.is_none() && (covering.is_empty() || left::is_any(self.state_directory, &wanted)) {
            return Ok(Target::Left(wanted));
        }
        let (client, mount) = covering.swap_remove(place.unwrap_or_default());
        Ok(Target::Mount(Box::new(AtMount { mount, client, selection: Selection::Reference(source.to_string()) })))
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
/// Its daemon does not answer.
pub fn staged(client: &Client) -> Result<Vec<StagedTag>, Failure> {
    client.status(PULSE)?;
    Ok(client.collect(&Request::Staged, &mut |_| {})?)
}

/// Mounts of which each has a daemon of its own: a bind mount shows what another one shows.
fn distinct() -> Result<Vec<Mount>, Failure> {
    let mut found: Vec<Mount> = Vec::new();
    for mount in mounts::all()? {
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
    fn what_is_neither_in_a_mount_nor_a_reference_is_an_error() {
        let environment = Environment::default();
        let finder = Finder { state_directory: None, environment: &environment };
        let failure = finder.read("/no/such/mount/app").unwrap_err();
        assert!(failure.message.contains("is not in a mount"), "{failure}");
        assert!(finder.read("oci").unwrap_err().message.contains("is not in a mount"));
        assert!(matches!(finder.read("registry.invalid/app:v1"), Ok(Argument::Reference(_))));
        assert!(finder.read("registry.invalid/UPPER").is_err());
    }
}
