//! Who uses a mount: processes with open files, working directories or mappings in it, and mounts below it.
//!
//! Only reads `/proc`; never touches the mount. A user sees his own processes only, root sees all.

use std::fs;
use std::path::{Path, PathBuf};

use super::escape;
use crate::sys::mountinfo::{self, Mount};

/// More users than this are counted and not named.
const NAMED: usize = 5;

/// What keeps a mount from being unmounted, for a message; empty if nothing is found.
pub fn describe(mount: &Mount) -> String {
    let mut users: Vec<String> = nested(mount).iter().map(|path| format!("the mount {}", escape::path(path))).collect();
    users.extend(processes(&mount.mount_point));
    let more = users.len().saturating_sub(NAMED);
    users.truncate(NAMED);
    let mut text = users.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Mounts inside this one.
fn nested(mount: &Mount) -> Vec<PathBuf> {
    let all = mountinfo::all().unwrap_or_default();
    let inside =
        all.into_iter().filter(|other| other.mount_point.starts_with(&mount.mount_point) && other.mount_point != mount.mount_point);
    inside.map(|other| other.mount_point).collect()
}

fn processes(mount_point: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid != std::process::id() && uses(&entry.path(), mount_point) {
            let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("{} (pid {pid})", escape::terminal(command.trim_end())));
        }
    }
    found
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
}
