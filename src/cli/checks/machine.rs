//! Checks whether this machine can mount, cache and stage. Writes only a one-byte probe file per directory and removes it at once.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Finding;
use crate::cli::settings::environment;
use crate::cli::settings::flags::Storage;
use crate::cli::terminal::{escape, units};
use crate::durable;
use crate::sys::process;

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
const CONFIGURATION: &str = "/etc/fuse.conf";
/// Below this many bytes the disk counts as nearly full.
const LOW: u64 = 1 << 30;

/// Checks everything a mount needs. Blocks on the disk.
pub fn check(storage: &Storage) -> Vec<Finding> {
    let mut findings = vec![device()];
    if process::effective_uid() != 0 {
        findings.extend([helper(), configuration()]);
    }
    findings.extend(storage.cache_dir.as_deref().map(|path| directory("cache", path)));
    findings.extend(storage.state_dir.as_deref().map(|path| directory("state", path)));
    findings
}

fn device() -> Finding {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::ok("fuse", format!("{DEVICE} can be opened")),
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "load the module (modprobe fuse); in a container, start it with --device /dev/fuse",
                io::ErrorKind::PermissionDenied => "give this user access to /dev/fuse; most systems make it 0666",
                _ => "the kernel lacks FUSE",
            };
            Finding::failed("fuse", format!("{DEVICE}: {error}"), advice)
        }
    }
}

/// Checks the set-uid mount helper.
fn helper() -> Finding {
    let directories = environment::variable("PATH").unwrap_or_default();
    let found = std::env::split_paths(&directories).map(|directory| directory.join(HELPER)).find(|path| path.is_file());
    let Some(path) = found else {
        return Finding::failed("fusermount3", format!("no {HELPER} in PATH"), "install the package fuse3, or mount as root");
    };
    let shown = escape::path(&path);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.permissions().mode() & 0o4000 == 0 || metadata.uid() != 0 => Finding::warning(
            "fusermount3",
            format!("{shown} is not set-uid root"),
            "only root can mount; reinstall the package fuse3, or mount as root",
        ),
        Ok(_) => Finding::ok("fusermount3", shown),
        Err(error) => Finding::failed("fusermount3", format!("{shown}: {error}"), "reinstall the package fuse3"),
    }
}

fn configuration() -> Finding {
    let allowed = fs::read_to_string(CONFIGURATION).is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    match allowed {
        true => Finding::ok("fuse.conf", "--allow-other is permitted"),
        false => Finding::warning(
            "fuse.conf",
            "--allow-other is not permitted",
            format!("to permit it, add the line `user_allow_other` to {CONFIGURATION}"),
        ),
    }
}

/// Checks that a directory, or the parent it will be created in, is writable and has room.
fn directory(step: &'static str, path: &Path) -> Finding {
    let shown = escape::path(path);
    let flag = format!("choose another with --{step}-dir");
    let Some(place) = existing(path) else { return Finding::failed(step, format!("{shown} has no existing parent directory"), flag) };
    let probe = place.join(format!(".ocifs-doctor-{}", std::process::id()));
    let written = File::create_new(&probe).and_then(|file| io::Write::write_all(&mut &file, b"x"));
    let _ = fs::remove_file(&probe);
    if let Err(error) = written {
        return Finding::failed(step, format!("{} cannot be written: {error}", escape::path(&place)), flag);
    }
    match durable::free(&place) {
        Ok(disk) if disk.available < LOW => {
            Finding::warning(step, format!("{shown} has {} left", units::show_size(disk.available)), format!("free some space, or {flag}"))
        }
        Ok(disk) => Finding::ok(step, format!("{shown} has {} left", units::show_size(disk.available))),
        Err(error) => Finding::warning(step, format!("{shown}: {error}"), flag),
    }
}

/// The directory itself or its nearest existing ancestor.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|place| place.is_dir()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::checks::Verdict;

    #[test]
    fn a_directory_is_probed_by_writing_and_left_clean() {
        let directory = tempfile::tempdir().unwrap();
        let finding = super::directory("cache", &directory.path().join("not/there/yet"));
        assert_ne!(finding.verdict, Verdict::Failed, "{finding:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let finding = super::directory("state", Path::new("/proc/nothing"));
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.advice.unwrap().contains("--state-dir"));
    }
}
