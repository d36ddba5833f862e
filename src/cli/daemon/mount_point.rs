//! Checks a mount point before any network access.
//!
//! First unmounts a dead ocifs mount on it. Every refusal has exit code 15.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;
use crate::cli::mounts::health::look;
use crate::cli::terminal::escape;
use crate::sys::mount::KIND;
use crate::sys::unmount::{Force, unmount};
use crate::sys::{beneath, mountinfo};

/// A directory that must not overlap with the mount point, with its name in messages.
pub type Reserved<'a> = (&'a str, &'a Path);

/// A directory to mount on, held open: the mount goes onto the directory that was checked, even if its path changes.
#[derive(Debug)]
pub struct MountPoint {
    /// The directory.
    pub directory: File,
    /// Its path with symlinks resolved.
    pub path: PathBuf,
}

/// Checks a mount point and removes dead mounts from it.
///
/// # Errors
/// One line with the problem and a remedy.
pub fn prepare(directory: &Path, nonempty: bool, reserved: &[Reserved<'_>]) -> Result<MountPoint, Failure> {
    remove_dead_mounts(directory)?;
    let shown = escape::path(directory);
    let (directory, canonical) = look(directory, beneath::hold_directory).map_err(|error| refusal(&shown, &error))?;
    let mounted = mountinfo::at(&canonical).map_err(|error| Failure::mount(format!("cannot read the mount table: {error}")))?;
    if let Some(mount) = mounted.filter(|mount| mount.kind == KIND) {
        let source = mount.source.to_string_lossy();
        return Err(Failure::mount(format!(
            "{} is already mounted on {shown}; run `ocifs umount {shown}` first",
            escape::terminal(&source)
        )));
    }
    for (what, path) in reserved {
        let path = resolved(path);
        if canonical.starts_with(&path) || path.starts_with(&canonical) {
            let shown_path = escape::path(&path);
            return Err(Failure::mount(format!("the mount point {shown} and the {what} {shown_path} overlap; choose another directory")));
        }
    }
    let content = |path: &Path| fs::read_dir(path)?.next().transpose();
    if !nonempty && look(&beneath::path_of(&directory), content).map_err(|error| refusal(&shown, &error))?.is_some() {
        return Err(Failure::mount(format!("the mount point {shown} is not empty; use -o nonempty to hide its content")));
    }
    Ok(MountPoint { directory, path: canonical })
}

fn refusal(shown: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::mount(format!("the mount point {shown} does not exist; run `mkdir {shown}` first")),
        io::ErrorKind::NotADirectory => Failure::mount(format!("the mount point {shown} is not a directory")),
        io::ErrorKind::TimedOut => Failure::mount(format!("the mount on {shown} hangs; run `ocifs umount {shown}` first")),
        _ => Failure::mount(format!("cannot use the mount point {shown}: {error}")),
    }
}

/// Unmounts mounts left by killed daemons. Opening one fails with ENOTCONN; the kernel may still have its attributes cached.
fn remove_dead_mounts(directory: &Path) -> Result<(), Failure> {
    // Each round unmounts one of several stacked mounts.
    for _ in 0..16 {
        match look(directory, |path| fs::read_dir(path).map(drop)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            _ => return Ok(()),
        }
        let path = without_links_in_parent(directory);
        let dead = mountinfo::at(&path).ok().flatten();
        if dead.is_none_or(|mount| mount.kind != KIND) {
            return Err(Failure::mount(format!("a dead mount of another type is on {}; unmount it first", escape::path(directory))));
        }
        unmount(&path, Force::Lazy)
            .map_err(|error| Failure::mount(format!("cannot unmount the dead mount on {}: {error}", escape::path(directory))))?;
    }
    Ok(())
}

fn without_links_in_parent(path: &Path) -> PathBuf {
    match (path.parent().and_then(|parent| parent.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// The path with symlinks resolved, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(canonical) = existing.canonicalize() {
            return missing.iter().rev().fold(canonical, |path, name| path.join(name));
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                existing = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Code;

    fn refused(path: &Path, reserved: &[Reserved<'_>]) -> String {
        let failure = prepare(path, false, reserved).unwrap_err();
        assert_eq!(failure.code, Code::Mount);
        failure.message
    }

    #[test]
    fn an_unusable_mount_point_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert!(refused(&directory.path().join("none"), &[]).contains("does not exist"));
        assert!(refused(&file, &[]).contains("is not a directory"));
        assert!(refused(&file.join("below"), &[]).contains("is not a directory"));
        assert!(refused(directory.path(), &[]).contains("is not empty"));
        assert!(prepare(directory.path(), true, &[]).is_ok());
    }

    #[test]
    fn the_mount_point_and_the_cache_never_overlap() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let inside = cache.join("mnt");
        fs::create_dir_all(&inside).unwrap();
        assert!(refused(&inside, &[("cache directory", &cache)]).contains("cache directory"));
        assert!(refused(&inside, &[("cache directory", &inside.join("not/yet/there"))]).contains("cache directory"));
        assert!(prepare(&inside, false, &[("cache directory", &directory.path().join("other"))]).is_ok());
    }
}
