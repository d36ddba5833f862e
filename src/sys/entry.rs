//! One name in an open directory: creates, replaces and describes its entry, whatever it currently is.
//!
//! Every call takes the directory's handle and a plain name. None follows a symlink, so none acts outside the directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, renameat, renameat_with, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::beneath::path_of;

/// A node without bytes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A socket without a listener.
    Socket,
    /// A block device with major and minor number.
    Character(u32, u32),
    /// A block device with major and minor number.
    Block(u32, u32),
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// A regular file.
    pub is_file: bool,
    /// Size in bytes.
    pub size: u64,
    /// Number of hard links.
    pub links: u64,
    /// Device and inode number.
    pub identity: (u64, u64),
}

/// Checks that a name is plain.
///
/// # Errors
/// `InvalidInput` if it could lead elsewhere.
fn plain(name: &OsStr) -> io::Result<&OsStr> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(io::ErrorKind::InvalidInput.into()),
        bytes if bytes.contains(&b'/') => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(name),
    }
}

/// Creates a directory; the umask applies to its mode.
///
/// # Errors
/// `AlreadyExists` if the name is taken, else errors of the system.
pub fn make_directory(directory: &File, name: &OsStr, mode: u32) -> io::Result<()> {
    Ok(mkdirat(directory, plain(name)?, Mode::from_raw_mode(mode & 0o777))?)
}

/// Opens a directory.
///
/// # Errors
/// `NotADirectory` for anything else, including a symlink to a directory.
pub fn open_directory(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, plain(name)?, flags, Mode::empty()).map_err(link_is_no_directory)?.into())
}

/// The same for a directory whose mode locks out its owner; first grants the owner access.
///
/// # Errors
/// As [`open_directory`].
pub fn open_up_directory(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = File::from(openat(directory, plain(name)?, flags, Mode::empty()).map_err(link_is_no_directory)?);
    let mode = rustix::fs::fstat(&held)?.st_mode;
    chmod(path_of(&held), Mode::from_raw_mode(mode | 0o700))?;
    open_directory(directory, name)
}

/// Opening a symlink as a directory is ENOTDIR, on some kernels ELOOP.
fn link_is_no_directory(error: Errno) -> Errno {
    if error == Errno::LOOP { Errno::NOTDIR } else { error }
}

/// Creates an unnamed file, which disappears when closed; `None` if the file system does not support it. The umask applies to its mode.
///
/// # Errors
/// Errors of the system.
pub fn unnamed_file(directory: &File, mode: u32) -> io::Result<Option<File>> {
    match openat(directory, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(mode & 0o777)) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Creates a file. The umask applies to its mode.
///
/// # Errors
/// `AlreadyExists` if the name is taken.
pub fn make_file(directory: &File, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, plain(name)?, flags, Mode::from_raw_mode(mode & 0o777))?.into())
}

/// Opens a regular file for reading. Never blocks.
///
/// # Errors
/// `InvalidData` for anything but a regular file.
pub fn open_file(directory: &File, name: &OsStr) -> io::Result<File> {
    super::beneath::open_file(directory, plain(name)?.as_ref())
}

/// Names an open file.
///
/// # Errors
/// `AlreadyExists` if the name is taken.
pub fn name_file(file: &File, directory: &File, name: &OsStr) -> io::Result<()> {
    let name = plain(name)?;
    match linkat(file, "", directory, name, AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 this takes CAP_DAC_READ_SEARCH; linkat(2) then requires the longer way through /proc.
        Err(Errno::NOENT | Errno::INVAL) => Ok(linkat(CWD, path_of(file), directory, name, AtFlags::SYMLINK_FOLLOW)?),
        named => Ok(named?),
    }
}

/// Makes a hard link to an entry.
///
/// # Errors
/// `AlreadyExists` if the name is taken.
pub fn link(from: (&File, &OsStr), directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(linkat(from.0, plain(from.1)?, directory, plain(name)?, AtFlags::empty())?)
}

/// Creates a symlink.
///
/// # Errors
/// `AlreadyExists` if the name is taken.
pub fn symlink(directory: &File, name: &OsStr, target: &OsStr) -> io::Result<()> {
    Ok(symlinkat(target, directory, plain(name)?)?)
}

/// The target of a symlink; `None` for anything else.
pub fn target(directory: &File, name: &OsStr) -> Option<Vec<u8>> {
    rustix::fs::readlinkat(directory, plain(name).ok()?, Vec::new()).ok().map(std::ffi::CString::into_bytes)
}

/// Creates a node without bytes. The umask applies to its mode.
///
/// # Errors
/// `AlreadyExists` if the name is taken; `PermissionDenied` for a device that this user may not create.
pub fn make_special(directory: &File, name: &OsStr, special: Special, mode: u32) -> io::Result<()> {
    let (kind, device) = match special {
        Special::Fifo => (FileType::Fifo, 0),
        Special::Socket => (FileType::Socket, 0),
        Special::Character(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
        Special::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
    };
    Ok(mknodat(directory, plain(name)?, kind, Mode::from_raw_mode(mode & 0o777), device)?)
}

/// Renames an entry within the same directory.
///
/// # Errors
/// `AlreadyExists` if the new name is taken and may not be replaced, `IsADirectory` if it is a directory.
pub fn rename(directory: &File, from: &OsStr, to: &OsStr, replace: bool) -> io::Result<()> {
    let (from, to) = (plain(from)?, plain(to)?);
    match replace {
        true => Ok(renameat(directory, from, directory, to)?),
        false => Ok(renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE)?),
    }
}

/// Removes anything but a directory.
///
/// # Errors
/// Errors of the system.
pub fn remove(directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(directory, plain(name)?, AtFlags::empty())?)
}

/// Removes an empty directory.
///
/// # Errors
/// `DirectoryNotEmpty`, or errors of the system.
pub fn remove_directory(directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(directory, plain(name)?, AtFlags::REMOVEDIR)?)
}

/// The kind of an entry; `None` if the name does not exist.
///
/// # Errors
/// Errors of the system.
pub fn status(directory: &File, name: &OsStr) -> io::Result<Option<Status>> {
    match statat(directory, plain(name)?, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            #[allow(clippy::useless_conversion, reason = "its type differs between machines")]
            let links = u64::from(stat.st_nlink);
            Ok(Some(Status { is_file, size, links, identity: (stat.st_dev, stat.st_ino) }))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets the permission bits of an open file or directory, including set-id bits.
///
/// # Errors
/// Errors of the system.
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// The same for a special file, which must not be opened.
///
/// # Errors
/// Errors of the system.
pub fn set_mode_of_special(directory: &File, name: &OsStr, mode: u32) -> io::Result<()> {
    let held = File::from(openat(directory, plain(name)?, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
    Ok(chmod(path_of(&held), Mode::from_raw_mode(mode & 0o7777))?)
}

/// Sets owner and group of an open file or directory.
///
/// # Errors
/// `PermissionDenied` unless root.
pub fn set_owner(file: &File, (user, group): (u32, u32)) -> io::Result<()> {
    Ok(fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?)
}

/// The same by name; applies to a symlink itself.
///
/// # Errors
/// As [`set_owner`].
pub fn set_owner_of_name(directory: &File, name: &OsStr, (user, group): (u32, u32)) -> io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    Ok(chownat(directory, plain(name)?, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the modification time of an open file or directory, in seconds since the epoch and nanoseconds.
///
/// # Errors
/// Errors of the system.
pub fn set_time(file: &File, time: (i64, u32)) -> io::Result<()> {
    Ok(futimens(file, &timestamps(time))?)
}

/// The same by name; applies to a symlink itself.
///
/// # Errors
/// Errors of the system.
pub fn set_time_of_name(directory: &File, name: &OsStr, time: (i64, u32)) -> io::Result<()> {
    Ok(utimensat(directory, plain(name)?, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

/// Sets an extended attribute of an open file or directory.
///
/// # Errors
/// `Unsupported` if the file system has no extended attributes.
pub fn set_xattr(file: &File, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// The same by name; applies to a symlink itself.
///
/// # Errors
/// As [`set_xattr`].
pub fn set_xattr_of_name(directory: &File, entry: &OsStr, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(lsetxattr(path_of(directory).join(plain(entry)?), name, value, XattrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink as link_to;

    use super::*;

    #[test]
    fn no_call_acts_through_a_replaced_name() {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(outside.path().join("sub")).unwrap();
        link_to(outside.path().join("sub"), inside.path().join("away")).unwrap();
        let root = File::open(inside.path()).unwrap();
        for name in ["", ".", "..", "../x", "a/b", "/etc"].map(OsStr::new) {
            assert!(make_directory(&root, name, 0o755).is_err(), "{name:?}");
            assert!(make_file(&root, name, 0o644).is_err(), "{name:?}");
            assert!(symlink(&root, name, OsStr::new("x")).is_err(), "{name:?}");
            assert!(remove_directory(&root, name).is_err(), "{name:?}");
        }
        let away = OsStr::new("away");
        for opened in [open_directory(&root, away), open_up_directory(&root, away)] {
            assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::NotADirectory);
        }
        set_time_of_name(&root, away, (5, 6)).unwrap();
        assert!(
            std::fs::metadata(outside.path().join("sub")).unwrap().modified().unwrap()
                > std::time::UNIX_EPOCH + std::time::Duration::from_secs(9)
        );
        assert_eq!(target(&root, away).unwrap(), outside.path().join("sub").as_os_str().as_bytes());
    }

    #[test]
    fn an_unnamed_file_gets_only_a_free_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = File::open(folder.path()).unwrap();
        let Some(file) = unnamed_file(&root, 0o644).unwrap() else { return };
        name_file(&file, &root, OsStr::new("one")).unwrap();
        assert_eq!(name_file(&file, &root, OsStr::new("one")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        link((&root, OsStr::new("one")), &root, OsStr::new("two")).unwrap();
        let status = |name: &str| status(&root, OsStr::new(name)).unwrap();
        assert_eq!(status("one"), status("two"));
        assert_eq!(rename(&root, OsStr::new("one"), OsStr::new("two"), false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(status("three"), None);
    }
}
