//! Descriptors that this process inherited, besides standard input, output and error.
//!
//! They belong to the parent process: child programs do not get them, and a daemon does not keep them open.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::FdFlags;

/// Inherited descriptors, owned by nothing else in this process.
#[derive(Debug, Default)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Marks them close-on-exec. Everything that this process opens itself is already, which is how the two are distinguished.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn withhold() -> io::Result<Self> {
        let names = std::fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let numbers: Vec<RawFd> = names.filter(|number| *number > 2).collect();
        Ok(Self(numbers.into_iter().filter(|number| withhold(*number)).collect()))
    }

    /// Takes one of them over.
    pub fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        let place = self.0.iter().position(|other| *other == number)?;
        self.0.remove(place);
        // SAFETY: it was open when the program started, nothing in this process owns it, and it is not listed here any more.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Closes them.
    pub fn close(self) {
        for number in self.0 {
            // SAFETY: nothing in this process owns the descriptor, and since it was never closed, the number cannot have been reused.
            unsafe { libc::close(number) };
        }
    }
}

/// Marks a descriptor close-on-exec; false if it already was.
fn withhold(number: RawFd) -> bool {
    // SAFETY: borrowed for two calls, which fail cleanly if the descriptor has been closed.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let is_open = rustix::io::fcntl_getfd(descriptor).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC));
    is_open && rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC).is_ok()
}
