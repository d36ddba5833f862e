//! Users of a mount: processes with open files, working directories or mappings in it, mounts below it, and other mounts of the same file
//! system, in any mount namespace.
//!
//! Only reads `/proc`; never touches the mount. Users see open files of their own processes only; root sees all.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::terminal::escape;
use crate::sys::mountinfo::{self, Mount};

/// Users beyond this number are counted instead of named.
const NAMED: usize = 5;

/// Describes the users of a mount for a message; empty if none is visible.
pub fn describe(mount: &Mount) -> String {
    let mut users: Vec<String> = nested(mount).iter().map(|path| format!("the mount {}", escape::path(path))).collect();
    users.extend(processes(&mount.mount_point));
    some_of(users)
}

/// The first few names.
fn some_of(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut text = names.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// The mount points of a file system; those in other mount namespaces with their processes.
pub fn places(device: (u32, u32)) -> Vec<String> {
    let own = mountinfo::all().unwrap_or_default();
    let here = own.iter().filter(|mount| mount.device == device).map(|mount| escape::path(&mount.mount_point));
    let mut lines: Vec<String> = here.collect();
    let known: HashSet<u32> = own.iter().map(|mount| mount.id).collect();
    let namespace = fs::read_link("/proc/self/ns/mnt").ok();
    let mut elsewhere: BTreeMap<u32, (PathBuf, Vec<String>)> = BTreeMap::new();
    for (pid, directory) in all_processes() {
        if namespace.is_some() && fs::read_link(directory.join("ns/mnt")).ok() == namespace {
            continue;
        }
        let table = mountinfo::of_process(pid).unwrap_or_default();
        for mount in table.into_iter().filter(|mount| mount.device == device && !known.contains(&mount.id)) {
            elsewhere.entry(mount.id).or_insert_with(|| (mount.mount_point, Vec::new())).1.push(named(pid, &directory));
        }
    }
    let foreign =
        |(path, processes): (PathBuf, Vec<String>)| format!("{} in the mount namespace of {}", escape::path(&path), some_of(processes));
    lines.extend(elsewhere.into_values().map(foreign));
    lines
}

fn all_processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

fn named(pid: u32, directory: &Path) -> String {
    let command = fs::read_to_string(directory.join("comm")).unwrap_or_default();
    format!("{} (pid {pid})", escape::terminal(command.trim_end()))
}

/// Mounts inside this one.
fn nested(mount: &Mount) -> Vec<PathBuf> {
    let all = mountinfo::all().unwrap_or_default();
    let inside =
        all.into_iter().filter(|other| other.mount_point.starts_with(&mount.mount_point) && other.mount_point != mount.mount_point);
    inside.map(|other| other.mount_point).collect()
}

/// Processes with files, working directories or mappings in a mount.
pub fn processes(mount_point: &Path) -> Vec<String> {
    let using = all_processes().filter(|(pid, directory)| *pid != std::process::id() && uses(directory, mount_point));
    using.map(|(pid, directory)| named(pid, &directory)).collect()
}

fn uses(process: &Path, mount_point: &Path) -> bool {
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(mount_point));
    if ["cwd", "root", "exe"].iter().any(|name| inside(process.join(name))) {
        return true;
    }
    if fs::read_dir(process.join("fd")).into_iter().flatten().flatten().any(|entry| inside(entry.path())) {
        return true;
    }
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines().filter_map(|line| line.find('/').and_then(|start| line.get(start..))).any(|path| Path::new(path).starts_with(mount_point))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn processes_are_found_by_open_file_and_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        fs::write(path.join("file"), b"").unwrap();
        let file = fs::File::open(path.join("file")).unwrap();
        let mut reader = Command::new("sleep").arg("600").stdin(Stdio::from(file)).spawn().unwrap();
        let mut worker = Command::new("sleep").arg("600").current_dir(&path).spawn().unwrap();
        let found = processes(&path);
        for child in [&mut reader, &mut worker] {
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(found.iter().any(|text| text.contains(&child.id().to_string())), "{found:?}");
        }
    }

    #[test]
    fn a_location_in_this_namespace_is_named_once() {
        let root = mountinfo::at(Path::new("/")).unwrap().unwrap();
        let places = places(root.device);
        assert_eq!(places.iter().filter(|place| *place == "/").count(), 1, "{places:?}");
    }
}
