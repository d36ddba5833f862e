//! Descriptors that this process was started with, besides standard input, output and error.
//!
//! They belong to the parent process: no program that it runs gets them, and a daemon does not keep them open.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::FdFlags;

/// Descriptors that nothing in this process owns.
#[derive(Debug, Default)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Keeps them from the programs that this process runs. All that it opens itself is kept from them anyway, which is how the two are
    /// told apart.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn withhold() -> io::Result<Self> {
        let names = std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let numbers: Vec<RawFd> = names.filter(|number| *number > 2).collect();
        Ok(Self(numbers.into_iter().filter(|number| withhold(*number)).collect()))
    }

    /// Closes them.
    pub fn close(self) {
        for number in self.0 {
            // SAFETY: nothing in this process owns the number, and it cannot be another file's since it was never closed before.
            unsafe { libc::close(number) };
        }
    }
}

/// Whether a descriptor was open to programs that this process runs, and is no more.
fn withhold(number: RawFd) -> bool {
    // SAFETY: borrowed for two calls, which fail cleanly where the descriptor is closed by now.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let is_open = rustix::io::fcntl_getfd(descriptor).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC));
    is_open && rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC).is_ok()
}
