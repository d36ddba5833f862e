//! Attaches a FUSE connection to a directory: with `mount(2)` if permitted, else with `fusermount3`.
//!
//! Returns the `/dev/fuse` descriptor to read requests from; serves nothing itself. A failed call leaves no mount behind.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{beneath, process};
use crate::error::{Error, ErrorKind};

/// The FUSE device.
const DEVICE: &str = "/dev/fuse";
/// Type and subtype as the mount table shows them.
pub const KIND: &str = "fuse.ocifs";
const SUBTYPE: &str = "ocifs";

/// The name of a mount and its access options. Always `nosuid,nodev`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The source in the mount table.
    pub source: String,
    /// The kernel refuses writes.
    pub read_only: bool,
    /// The kernel refuses to execute programs from it.
    pub no_exec: bool,
    /// Other users have access; the kernel then checks owners and modes.
    pub allow_other: bool,
}

/// Mounts on an open directory; `path` is its name in messages.
///
/// # Errors
/// There is no device, the kernel or the helper refuses, or `allow_other` is not permitted. Nothing is left mounted.
pub fn mount(directory: &File, path: &Path, options: &Options) -> Result<OwnedFd, Error> {
    if process::effective_uid() != 0 {
        return by_helper(directory, options).unwrap_or_else(|error| Err(no_helper(error)));
    }
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| no_device(error.into()))?;
    let Err(refusal) = directly(&device, directory, options) else { return Ok(device) };
    // Root in a container without the capability may still have the helper.
    let is_denied = refusal.kind() == io::ErrorKind::PermissionDenied;
    let by_helper = if is_denied { by_helper(directory, options).ok() } else { None };
    by_helper.unwrap_or_else(|| Err(Error::io(format_args!("cannot mount on {}", path.display()), refusal)))
}

fn no_device(error: io::Error) -> Error {
    let advice = "; load the kernel module with `modprobe fuse`, or pass the device into this container";
    Error::io(format_args!("cannot open {DEVICE}"), error).append(advice)
}

fn no_helper(error: io::Error) -> Error {
    Error::io("cannot run fusermount3", error).append("; install the package `fuse3`, or mount as root")
}

/// The descriptor named by `/dev/fd/N`, already mounted by another process; `None` for other paths.
///
/// # Errors
/// The descriptor is not open, or not a FUSE device.
pub fn given_descriptor(path: &Path) -> Option<Result<OwnedFd, Error>> {
    let number: i32 = path.strip_prefix("/dev/fd").ok()?.to_str()?.parse().ok()?;
    Some(duplicate(number))
}

fn duplicate(number: i32) -> Result<OwnedFd, Error> {
    let refuse = || Error::new(ErrorKind::Invalid, format!("/dev/fd/{number} is not an open {DEVICE}"));
    if number < 0 {
        return Err(refuse());
    }
    // SAFETY: borrowed only for the two calls below, which fail cleanly if the descriptor is not open; nothing else in this process closes
    // inherited descriptors.
    let given = unsafe { BorrowedFd::borrow_raw(number) };
    let status = rustix::fs::fstat(given).map_err(|_| refuse())?;
    let device = (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev));
    if FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice || device != (10, 229) {
        return Err(refuse());
    }
    rustix::io::fcntl_dupfd_cloexec(given, 3).map_err(|_| refuse())
}

fn directly(device: &OwnedFd, directory: &File, options: &Options) -> io::Result<()> {
    let root = rustix::fs::fstat(directory)?;
    let mut data = format!("fd={},rootmode={:o},user_id={},group_id={}", device.as_raw_fd(), root.st_mode, process::uid(), process::gid());
    if options.allow_other {
        data.push_str(",allow_other,default_permissions");
    }
    let data = CString::new(data)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    if options.no_exec {
        flags |= MountFlags::NOEXEC;
    }
    Ok(rustix::mount::mount(options.source.as_str(), beneath::path_of(directory), KIND, flags, data.as_c_str())?)
}

/// The protocol of `fusermount3`: it opens the device, mounts, and sends the descriptor over the socket numbered in `_FUSE_COMMFD`. The socket is
/// its standard input, so that nothing else inherits it. It accepts no path through `/proc`, so it starts in the directory. The outer error
/// means that the helper could not run.
fn by_helper(directory: &File, options: &Options) -> io::Result<Result<OwnedFd, Error>> {
    if options.allow_other && process::uid() != 0 && !other_users_allowed() {
        let message = "--allow-other needs the line `user_allow_other` in /etc/fuse.conf; add it, or mount as root";
        return Ok(Err(Error::new(ErrorKind::NotPermitted, message)));
    }
    let (ours, theirs) = UnixStream::pair()?;
    let child = process::other_program(helper())
        .arg("-o")
        .arg(helper_options(options))
        .args(["--", "."])
        .current_dir(beneath::path_of(directory))
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let received = receive_descriptor(&ours);
    drop(ours);
    let output = child.wait_with_output()?;
    Ok(match received? {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(Error::other(format!("fusermount3 refused: {}", first_line(&output.stderr)))),
    })
}

fn first_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().next().unwrap_or("no reason given");
    line.trim_start_matches("fusermount3: ").escape_debug().to_string()
}

pub(super) fn helper() -> PathBuf {
    // A service manager may start us without PATH; distributions install it in these places.
    let known = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"];
    known.iter().map(PathBuf::from).find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("fusermount3"))
}

fn helper_options(options: &Options) -> String {
    let mut text = String::from("nosuid,nodev,");
    text.push_str(if options.read_only { "ro" } else { "rw" });
    if options.no_exec {
        text.push_str(",noexec");
    }
    if options.allow_other {
        text.push_str(",allow_other,default_permissions");
    }
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let _ = write!(text, ",subtype={SUBTYPE},fsname={source}");
    text
}

fn other_users_allowed() -> bool {
    std::fs::read_to_string("/etc/fuse.conf").is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}

/// The descriptor sent by the helper; `None` if it closed the socket without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut received = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            received = descriptors.next();
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_source_does_not_become_an_option() {
        let options = Options { source: "oci:/a,dev\\b".into(), read_only: true, no_exec: false, allow_other: false };
        assert_eq!(helper_options(&options), "nosuid,nodev,ro,subtype=ocifs,fsname=oci:/a\\,dev\\\\b");
    }

    #[test]
    fn only_an_open_fuse_device_is_accepted_as_a_descriptor() {
        assert!(given_descriptor(Path::new("/mnt")).is_none());
        let file = std::fs::File::open("/dev/null").unwrap();
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        assert!(matches!(given_descriptor(Path::new(&path)), Some(Err(_))));
        assert!(matches!(given_descriptor(Path::new("/dev/fd/-4")), Some(Err(_))));
    }

    #[test]
    fn a_directory_that_is_gone_is_refused_and_nothing_is_left() {
        let options = Options { source: "x".into(), read_only: true, no_exec: false, allow_other: false };
        let place = tempfile::tempdir().unwrap();
        let (directory, path) = beneath::hold_directory(place.path()).unwrap();
        std::fs::remove_dir(&path).unwrap();
        assert!(mount(&directory, &path, &options).is_err());
        assert!(super::super::mountinfo::at(&path).unwrap().is_none());
    }
}
