//! Removes a FUSE mount: gently, lazily, or by aborting the connection of a hung daemon.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;

use super::{beneath, mount, process};

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Fails while the mount is in use.
    None,
    /// Detaches it from the tree at once; it ends with its last user.
    Lazy,
}

/// Unmounts at a path without symlinks, as in the mount table. A symlink that replaces any part of the path meanwhile is not followed.
///
/// # Errors
/// `ResourceBusy` while files are open (unless lazy); `InvalidInput` if nothing is mounted there.
pub fn unmount(directory: &Path, force: Force) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if force == Force::Lazy {
        flags |= UnmountFlags::DETACH;
    }
    let parent = directory.parent().map(beneath::hold_directory).transpose()?;
    let held = match (&parent, directory.parent(), directory.file_name()) {
        (Some((parent, path)), Some(expected), Some(name)) if path == expected => beneath::path_of(parent).join(name),
        (Some(_), ..) => return Err(io::ErrorKind::InvalidInput.into()),
        (None, ..) => directory.to_owned(),
    };
    match rustix::mount::unmount(&held, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) if process::effective_uid() != 0 => by_helper(directory, force),
        Err(error) => Err(error.into()),
    }
}

fn by_helper(directory: &Path, force: Force) -> io::Result<()> {
    let mut command = process::other_program(mount::helper());
    command.arg("-u");
    if force == Force::Lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).escape_debug().to_string();
    // The helper has one exit code for all failures; only its text tells them apart.
    let kind = if text.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else if text.contains("not found in") || text.contains("not mounted") || text.contains("Invalid argument") {
        io::ErrorKind::InvalidInput
    } else {
        io::ErrorKind::PermissionDenied
    };
    Err(io::Error::new(kind, text))
}

/// Fails every request of a FUSE connection with ENOTCONN, which wakes processes waiting for a hung daemon. `minor` is the minor device number
/// in the mount table.
///
/// # Errors
/// The control file system is not mounted, or the connection belongs to another user.
pub fn abort_connection(minor: u32) -> io::Result<()> {
    std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), b"1")
}

/// Whether a FUSE descriptor still belongs to a file system in use. The kernel hangs up when the last mount in any namespace and the last open
/// file are gone. Never blocks.
pub fn is_connected(device: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&device, PollFlags::empty())];
    let immediately = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A failed poll says nothing about the mount.
    rustix::event::poll(&mut polled, Some(&immediately)).is_err() || !polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_up_descriptor_is_not_connected() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(is_connected(&reader));
        drop(writer);
        assert!(!is_connected(&reader));
    }

    #[test]
    fn unmounting_a_plain_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(unmount(directory.path(), Force::Lazy).is_err());
    }

    #[test]
    fn a_path_through_a_link_is_not_unmounted() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("link")).unwrap();
        let error = unmount(&directory.path().join("link/proc"), Force::Lazy).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
