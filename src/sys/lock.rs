//! Locks on byte ranges of a file, owned by the open file description instead of the process.
//!
//! Open file description locks (fcntl(2)) exclude other processes as well as threads that opened the file separately. The kernel drops them
//! when the last descriptor of that description is closed, however the process ends. The bytes need not exist. Never waits; waiting is the
//! caller's policy.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// How a range may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of shared holders; the file must be open for reading.
    Shared,
    /// One holder; the file must be open for writing.
    Exclusive,
}

/// Locks a range of a file; an end of `u64::MAX` means to the end of the file. `false` if another process holds a part of it.
pub fn try_lock(file: &File, range: Range<u64>, sharing: Sharing) -> io::Result<bool> {
    let kind = match sharing {
        Sharing::Shared => libc::F_RDLCK,
        Sharing::Exclusive => libc::F_WRLCK,
    };
    match control(file, range, kind) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another process holds part of a range exclusively. Takes no lock.
pub fn is_locked(file: &File, range: Range<u64>) -> io::Result<bool> {
    let mut request = request(range, libc::F_RDLCK)?;
    // SAFETY: the descriptor is open while `file` is borrowed, and `request` outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut request) };
    if result == 0 { Ok(i32::from(request.l_type) != libc::F_UNLCK) } else { Err(io::Error::last_os_error()) }
}

/// Releases a range.
pub fn unlock(file: &File, range: Range<u64>) -> io::Result<()> {
    control(file, range, libc::F_UNLCK)
}

fn control(file: &File, range: Range<u64>, kind: i32) -> io::Result<()> {
    let request = request(range, kind)?;
    // SAFETY: the descriptor is open while `file` is borrowed, and `request` outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn request(range: Range<u64>, kind: i32) -> io::Result<libc::flock> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let start = libc::off_t::try_from(range.start).map_err(invalid)?;
    let length = match range.end {
        u64::MAX => 0,
        end if end > range.start => libc::off_t::try_from(end - range.start).map_err(invalid)?,
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    // SAFETY: `flock` is a plain struct of integers, for which all zeros is valid.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::c_short::try_from(kind).map_err(invalid)?;
    request.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(invalid)?;
    request.l_start = start;
    request.l_len = length;
    Ok(request)
}
