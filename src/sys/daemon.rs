//! Goes to the background: fork, a session of its own, and a pipe on which the child reports the outcome of its start.
//!
//! Only possible before any thread exists, which is checked, so the forked child is unrestricted. The argument list stays: `ps` shows
//! what was typed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;

/// Longest failure message of a child, in bytes.
const MESSAGE_LIMIT: u64 = 64 << 10;
/// How long the kernel may still list a thread that has ended.
const SETTLING: Duration = Duration::from_secs(1);

/// The two sides of the fork.
#[derive(Debug)]
pub enum Side {
    /// The original process, which waits for the daemon.
    Parent(Start),
    /// The daemon.
    Child(Readiness),
}

/// The parent's end of the pipe.
#[derive(Debug)]
pub struct Start {
    pipe: File,
}

/// The outcome of the daemon's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is serving.
    Ready {
        /// Notes for the user, one per line; usually empty.
        notes: String,
    },
    /// It gave up, with an exit code and a one-line reason.
    Failed {
        /// Exit code for the parent.
        code: u8,
        /// Reason.
        message: String,
    },
    /// It ended without a report.
    Died,
}

/// The child's end of the pipe.
#[derive(Debug)]
pub struct Readiness {
    pipe: File,
}

unsafe extern "C" {
    /// fork(2) of the C library, which also fixes up its own state in the child.
    fn fork() -> std::ffi::c_int;
}

/// Forks into a waiting parent and a daemon with its own session and working directory `/`.
///
/// # Errors
/// The process already has threads, or the system cannot create another process.
pub fn split() -> io::Result<Side> {
    if has_other_threads()? {
        return Err(io::Error::other("a process with threads cannot become a daemon"));
    }
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this is the only thread, so the child is a complete copy and no missing thread holds a lock.
    match unsafe { fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            rustix::process::setsid()?;
            rustix::process::chdir("/")?;
            Ok(Side::Child(Readiness { pipe: File::from(writer) }))
        }
        _ => {
            drop(writer);
            Ok(Side::Parent(Start { pipe: File::from(reader) }))
        }
    }
}

/// Whether this process has other threads. A joined thread may stay listed for a moment.
fn has_other_threads() -> io::Result<bool> {
    let begun = Instant::now();
    while std::fs::read_dir("/proc/self/task")?.count() != 1 {
        if begun.elapsed() > SETTLING {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

impl Start {
    /// Waits until the daemon is ready, gives up or dies.
    ///
    /// # Errors
    /// The pipe failed.
    pub fn wait(self) -> io::Result<Outcome> {
        let mut answer = Vec::new();
        self.pipe.take(MESSAGE_LIMIT).read_to_end(&mut answer)?;
        Ok(match answer.split_first() {
            None => Outcome::Died,
            Some((0, notes)) => Outcome::Ready { notes: String::from_utf8_lossy(notes).into_owned() },
            Some((code, message)) => Outcome::Failed { code: *code, message: String::from_utf8_lossy(message).into_owned() },
        })
    }
}

impl Readiness {
    /// Reports readiness: redirects standard input, output and error to `/dev/null`, then lets the parent print the notes and succeed.
    ///
    /// # Errors
    /// The parent is gone (interrupted with Ctrl-C); the daemon should clean up and exit.
    pub fn ready(mut self, notes: &str) -> io::Result<()> {
        detach_standard_streams()?;
        self.pipe.write_all(&[&[0], notes.as_bytes()].concat())
    }

    /// Reports a failure for the parent to print and exit with. A code of 0 counts as 1.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn failed(mut self, code: u8, message: &str) -> io::Result<()> {
        self.pipe.write_all(&[code.max(1)])?;
        self.pipe.write_all(message.as_bytes())
    }
}

fn detach_standard_streams() -> io::Result<()> {
    let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    rustix::stdio::dup2_stderr(null.as_fd())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (Start, Readiness) {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        (Start { pipe: File::from(reader) }, Readiness { pipe: File::from(writer) })
    }

    #[test]
    fn the_parent_hears_code_and_reason() {
        let (start, readiness) = pipe();
        readiness.failed(11, "no access").unwrap();
        assert_eq!(start.wait().unwrap(), Outcome::Failed { code: 11, message: "no access".into() });
    }

    #[test]
    fn a_daemon_that_dies_silently_is_noticed() {
        let (start, readiness) = pipe();
        drop(readiness);
        assert_eq!(start.wait().unwrap(), Outcome::Died);
    }

    #[test]
    fn a_daemon_notices_that_its_parent_is_gone() {
        let (start, readiness) = pipe();
        drop(start);
        assert!(readiness.failed(1, "x").is_err());
    }

    #[test]
    fn a_process_with_threads_is_refused() {
        // Each test runs in its own thread.
        assert!(split().is_err());
    }
}
