//! Opens, creates and removes files and directories below a directory without ever leaving it.
//!
//! Every component is opened relative to its parent, so concurrent renames do not change the outcome. No symlink is followed except by
//! [`open_linked_file`], where the kernel keeps it inside.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fsync, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

/// Opens a regular file below `directory` for reading. `path` must be relative and consist of plain names.
///
/// # Errors
/// `InvalidInput` for a path with other components, `ELOOP` or `ENOTDIR` if a component is a symlink, and `InvalidData` for anything but a
/// regular file.
pub fn open_file(directory: &File, path: &Path) -> io::Result<File> {
    let names = plain_names(path)?;
    if names.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is empty"));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(directory, path, READ | OFlags::NOFOLLOW, Mode::empty(), resolve) {
        // An old kernel, a sandbox, or a rename meanwhile.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_by_names(directory, &names),
        opened => regular(opened?.into()),
    }
}

/// NONBLOCK: opening a named pipe must not wait for a writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// [`open_file`], one name at a time.
fn open_by_names(directory: &File, names: &[&OsStr]) -> io::Result<File> {
    let Some((last, parents)) = names.split_last() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let directories = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parent: Option<OwnedFd> = None;
    for name in parents {
        parent = Some(match &parent {
            Some(parent) => openat(parent, *name, directories, Mode::empty())?,
            None => openat(directory, *name, directories, Mode::empty())?,
        });
    }
    let file: File = match &parent {
        Some(parent) => openat(parent, *last, READ | OFlags::NOFOLLOW, Mode::empty())?,
        None => openat(directory, *last, READ | OFlags::NOFOLLOW, Mode::empty())?,
    }
    .into();
    regular(file)
}

/// Opens a regular file by its path, for reading. Follows symlinks. Never blocks, as opening a named pipe would.
///
/// # Errors
/// `InvalidData` for anything but a regular file, else errors of the system.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(rustix::fs::open(path, READ, Mode::empty())?.into())
}

/// Opens a directory for its handle. Never blocks.
///
/// # Errors
/// `ENOTDIR` for anything but a directory, else errors of the system.
pub fn open_directory(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Holds a directory without opening it, which needs no read permission and no request to the file system; returns also its path without
/// symlinks.
///
/// # Errors
/// `ENOTDIR` for anything but a directory, else errors of the system.
pub fn hold_directory(path: &Path) -> io::Result<(File, PathBuf)> {
    let directory = File::from(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    let path = std::fs::read_link(path_of(&directory))?;
    Ok((directory, path))
}

/// A path to this very file while it is open, valid in this process.
pub fn path_of(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// How often to retry while others rename components of the path.
const ATTEMPTS: usize = 16;

/// Opens a regular file below `directory` for reading, also through symlinks that stay below it.
///
/// # Errors
/// Those of [`open_file`]; `CrossesDevices` (EXDEV) for a link that leads out. On kernels that cannot confine links, none is followed.
pub fn open_linked_file(directory: &File, path: &Path) -> io::Result<File> {
    plain_names(path)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(directory, path, READ, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => return open_file(directory, path),
            opened => return regular(opened?.into()),
        }
    }
    Err(Errno::AGAIN.into())
}

fn regular(file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(file)
}

/// Opens a directory below `directory`, for writing through its handle. Missing directories are created with the umask's mode, and their
/// names synced.
///
/// # Errors
/// As [`open_file`]; `ENOTDIR` if a component is not a directory.
pub fn make_directory(directory: &File, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parent = directory.try_clone()?;
    for name in plain_names(path)? {
        let opened = match openat(&parent, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                match mkdirat(&parent, name, Mode::from_raw_mode(0o777)) {
                    // Someone else created it meanwhile.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                fsync(&parent)?;
                openat(&parent, name, flags, Mode::empty())?
            }
            other => other?,
        };
        parent = opened.into();
    }
    Ok(parent)
}

/// Removes anything but a directory, by its plain name in `directory`.
///
/// # Errors
/// `InvalidInput` for anything but a plain name, else errors of the system.
pub fn remove_file(directory: &File, name: &str) -> io::Result<()> {
    match plain_names(Path::new(name))?.as_slice() {
        [name] => Ok(unlinkat(directory, *name, AtFlags::empty())?),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn plain_names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not made of plain names")),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn plain_files_open_and_escaping_paths_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::fs::create_dir(inside.path().join("sub")).unwrap();
        std::fs::write(inside.path().join("sub/file"), "f").unwrap();
        symlink(outside.path(), inside.path().join("away")).unwrap();
        symlink(outside.path().join("secret"), inside.path().join("sub/link")).unwrap();
        let root = File::open(inside.path()).unwrap();
        let mut text = String::new();
        open_file(&root, Path::new("sub/file")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "f");
        for path in ["away/secret", "sub/link", "../x", "/etc/passwd", "sub", "sub/../sub/file", "", "none"] {
            assert!(open_file(&root, Path::new(path)).is_err(), "{path}");
        }
        // Kernels without openat2(2) decide alike.
        let by_names = |path: &'static str| open_by_names(&root, &plain_names(Path::new(path)).unwrap());
        assert!(by_names("sub/file").is_ok());
        for path in ["away/secret", "sub/link", "sub", "none"] {
            assert!(by_names(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_link_is_followed_only_if_it_stays_inside() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::fs::create_dir(inside.path().join("sub")).unwrap();
        std::fs::write(inside.path().join("file"), "f").unwrap();
        let back = format!("../{}/file", inside.path().file_name().unwrap().to_str().unwrap());
        for (name, target) in [("good", "../file"), ("twice", "good"), ("out", "../../x"), ("back", &*format!("../{back}"))] {
            symlink(target, inside.path().join("sub").join(name)).unwrap();
        }
        symlink(outside.path().join("secret"), inside.path().join("sub/absolute")).unwrap();
        symlink(outside.path(), inside.path().join("away")).unwrap();
        let root = File::open(inside.path()).unwrap();
        for path in ["file", "sub/good", "sub/twice"] {
            let mut text = String::new();
            open_linked_file(&root, Path::new(path)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "f", "{path}");
        }
        for path in ["sub/out", "sub/back", "sub/absolute", "away/secret"] {
            assert_eq!(open_linked_file(&root, Path::new(path)).unwrap_err().kind(), io::ErrorKind::CrossesDevices, "{path}");
        }
        for path in ["sub", "../x", "/etc/passwd", "", "none"] {
            assert!(open_linked_file(&root, Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn directories_are_made_below_and_never_through_a_link() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("away")).unwrap();
        std::fs::write(inside.path().join("file"), "f").unwrap();
        let root = File::open(inside.path()).unwrap();
        for _ in 0..2 {
            make_directory(&root, Path::new("a/b")).unwrap();
        }
        assert!(inside.path().join("a/b").is_dir());
        for path in ["away", "away/x", "file", "file/x", "../x", "a/../b"] {
            assert!(make_directory(&root, Path::new(path)).is_err(), "{path}");
        }
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
    }
}
