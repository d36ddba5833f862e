//! Finds mounts of this program in the mount table, without touching them.

use std::cmp::Reverse;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::terminal::escape;
use crate::control::{self, Client, Record};
use crate::sys::mount::KIND;
use crate::sys::mountinfo::{self, Mount};
use crate::sys::process;

/// All mounts of this program.
///
/// # Errors
/// `/proc` is not mounted.
pub fn all() -> Result<Vec<Mount>, Failure> {
    Ok(table()?.into_iter().filter(is_ours).collect())
}

/// The mount at this path.
///
/// # Errors
/// Nothing is mounted there, or a mount of another type.
pub fn at(path: &Path, environment: &Environment) -> Result<Mount, Failure> {
    let table = table()?;
    let mut found = None;
    for spelling in spellings(path, environment)? {
        found = table.iter().rfind(|mount| mount.mount_point == spelling);
        if found.is_some() {
            break;
        }
    }
    match found {
        Some(mount) if is_ours(mount) => Ok(mount.clone()),
        Some(mount) => {
            Err(Failure::mount(format!("{} is a mount of type {}, not an ocifs mount", escape::path(path), escape::terminal(&mount.kind))))
        }
        None => Err(Failure::mount(format!("{} is not a mount point", escape::path(path)))),
    }
}

/// The mount that contains this path, and the path below the root of its file system (a bind mount may show only a part).
///
/// # Errors
/// The path is in no mount of this program.
pub fn containing(path: &Path, environment: &Environment) -> Result<(Mount, PathBuf), Failure> {
    let table = all()?;
    for spelling in spellings(path, environment)? {
        let around = table.iter().filter_map(|mount| Some((mount, spelling.strip_prefix(&mount.mount_point).ok()?.to_owned())));
        if let Some((mount, rest)) = around.max_by_key(|(mount, _)| mount.mount_point.as_os_str().len()) {
            return Ok((mount.clone(), below_root(mount).join(rest)));
        }
    }
    Err(Failure::mount(format!("{} is not in an ocifs mount (see `ocifs status`)", escape::path(path))))
}

/// The part of its file system that a mount shows; empty for all of it.
pub fn below_root(mount: &Mount) -> PathBuf {
    mount.root.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

/// A client for the daemon of a mount.
pub fn client(mount: &Mount, state_directory: Option<&Path>, environment: &Environment) -> Client {
    Client::new(&socket_directories(state_directory, mount.user(), environment), mount)
}

/// This user's daemons whose file systems are not mounted in this namespace, with their records: they have users elsewhere, or publish before
/// they end.
///
/// # Errors
/// `/proc` is not mounted.
pub fn detached(state_directory: Option<&Path>, environment: &Environment) -> Result<Vec<(Record, Client)>, Failure> {
    let running = Client::running(&socket_directories(state_directory, None, environment));
    // Read last: a new daemon mounts before it writes its record.
    let table = all()?;
    let mut found: Vec<(Record, Client)> = Vec::new();
    for client in running {
        let Some(record) = client.record().cloned() else { continue };
        let is_here = table.iter().any(|mount| record.is_of(mount));
        if !is_here && found.iter().all(|(known, _)| known.pid != record.pid) {
            found.push((record, client));
        }
    }
    Ok(found)
}

/// The mount of a record, as it was in the table.
pub fn of_record(record: &Record) -> Mount {
    Mount {
        id: 0,
        device: record.device.unwrap_or_default(),
        root: "/".into(),
        mount_point: record.mount_point.clone(),
        kind: KIND.to_owned(),
        source: record.source.clone().into(),
        options: String::new(),
    }
}

/// This user's running daemons.
pub fn running(state_directory: Option<&Path>, environment: &Environment) -> Vec<Client> {
    Client::running(&socket_directories(state_directory, None, environment))
}

fn socket_directories(state_directory: Option<&Path>, owner: Option<u32>, environment: &Environment) -> Vec<PathBuf> {
    let mut directories = environment.socket_directories(state_directory, owner);
    directories.extend(control::bound_directories());
    directories.sort();
    directories.dedup();
    directories
}

/// The record of this user's dead daemon whose mount contained this path, and the path below its mount point.
pub fn recorded(path: &Path, state_directory: Option<&Path>, environment: &Environment) -> Option<(Record, PathBuf)> {
    let own = process::effective_uid();
    let directories = environment.socket_directories(state_directory, Some(own));
    let mut records: Vec<_> = directories.iter().flat_map(|directory| control::records(directory)).collect();
    records.retain(|found| found.owner == own && !found.record.is_alive());
    records.sort_by_key(|found| Reverse(found.written));
    let mut spellings = spellings(path, environment).ok()?;
    spellings.find_map(|spelling| {
        let around =
            |found: &control::Found| Some((found.record.clone(), spelling.strip_prefix(&found.record.mount_point).ok()?.to_owned()));
        records.iter().find_map(around)
    })
}

/// The state directory of a dead daemon, from its record; only if it belongs to this user.
pub fn recorded_state(record: Option<&Record>) -> Option<PathBuf> {
    let directory = record?.state_directory.as_ref()?;
    let metadata = std::fs::symlink_metadata(directory).ok()?;
    (metadata.is_dir() && metadata.uid() == process::effective_uid()).then(|| directory.clone())
}

/// Whether this user made the mount.
pub fn is_own(mount: &Mount) -> bool {
    mount.user() == Some(process::uid())
}

fn table() -> Result<Vec<Mount>, Failure> {
    mountinfo::all().map_err(|error| Failure::mount(format!("cannot read /proc/self/mountinfo: {error}")))
}

fn is_ours(mount: &Mount) -> bool {
    mount.kind == KIND
}

/// A path as written, then with links in its parent resolved. The last component is never touched, since it may be a hung mount. Most
/// paths match as written, so the parent is resolved lazily.
fn spellings(path: &Path, environment: &Environment) -> Result<impl Iterator<Item = PathBuf>, Failure> {
    let written = without_dots(&environment.absolute(path, None)?);
    let resolve = {
        let written = written.clone();
        move || Some(written.parent()?.canonicalize().ok()?.join(written.file_name()?))
    };
    Ok(std::iter::once(written).chain(std::iter::once_with(resolve).flatten()))
}

/// Removes `.` and `..` lexically.
fn without_dots(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_outside_of_our_mounts_is_an_error() {
        let environment = Environment::default();
        let directory = tempfile::tempdir().unwrap();
        assert!(at(directory.path(), &environment).unwrap_err().message.contains("is not a mount point"));
        assert!(at(Path::new("/"), &environment).unwrap_err().message.contains("is a mount of type"));
        assert!(containing(directory.path(), &environment).is_err());
    }

    #[test]
    fn a_bind_mount_of_a_part_shows_only_that_part() {
        let mut mount = mountinfo::at(Path::new("/")).unwrap().unwrap();
        mount.root = "/app/v1".into();
        assert_eq!(below_root(&mount).join("x"), Path::new("app/v1/x"));
        mount.root = "/".into();
        assert_eq!(below_root(&mount), Path::new(""));
    }

    #[test]
    fn links_before_a_mount_point_are_resolved_but_not_the_mount_point() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap().join("real");
        std::fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink(&real, directory.path().join("link")).unwrap();
        let path = directory.path().join("link/../link/./mnt");
        let found: Vec<PathBuf> = spellings(&path, &Environment::default()).unwrap().collect();
        assert_eq!(found[1], real.join("mnt"));
    }
}
