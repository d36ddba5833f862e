//! This process: user, limits, core dumps; signals to other processes.
//!
//! Changes nothing outside this process except through [`Process::end`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal};

/// The process at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id, in this pid namespace.
    pub pid: u32,
    /// User id.
    pub uid: u32,
}

/// A signal that ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// The effective user.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The real user.
pub fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The effective group.
pub fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// The real group.
pub fn gid() -> u32 {
    rustix::process::getgid().as_raw()
}

/// Makes all files that this process creates private to its user.
pub fn make_new_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// The umask: permission bits removed from new files.
///
/// # Errors
/// `/proc` is not mounted.
pub fn umask() -> io::Result<u32> {
    // umask(2) would change it, for all threads.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:")).map(str::trim);
    mask.and_then(|mask| u32::from_str_radix(mask, 8).ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Raises the limit on open files to this user's maximum; returns the limit in force.
pub fn raise_open_file_limit() -> Option<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// Keeps this process's memory, which holds keys, out of core dumps and away from the user's other processes.
///
/// # Errors
/// The kernel refused; nothing relevant changed.
pub fn protect_memory() -> io::Result<()> {
    let maximum = rustix::process::getrlimit(Resource::Core).maximum;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Makes all threads allocate from two arenas. The C library would create eight per core, each of which keeps the most it ever held: several
/// times the memory for the same work. No effect with a C library that has one.
pub fn share_memory_pools() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two numbers and no memory of ours. A refusal only costs memory.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Makes a write beyond `ulimit -f` fail with an error, like a full disk, instead of killing the process. (The Rust runtime does the same for
/// a closed pipe.)
pub fn survive_file_size_limit() {
    // SAFETY: no handler is installed, so none of our code runs in a signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Whether SIGHUP is ignored, as arranged by `nohup`.
pub fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Prepares to run another program. Its environment lacks the variables meant for this process: its settings, which may be secrets, and
/// those of its service manager.
pub fn other_program(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_for_us(name.as_bytes())) {
        command.env_remove(name);
    }
    command
}

fn is_for_us(variable: &[u8]) -> bool {
    variable == b"NOTIFY_SOCKET" || [b"OCIFS_".as_slice(), b"LISTEN_"].iter().any(|prefix| variable.starts_with(prefix))
}

/// Credentials of the process that connected (or listened) when the socket was created.
///
/// # Errors
/// It is not a Unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    let pid = u32::try_from(credentials.pid.as_raw_pid()).unwrap_or_default();
    Ok(Peer { pid, uid: credentials.uid.as_raw() })
}

/// When a process started, in clock ticks since boot; together with the pid this identifies a process uniquely.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may itself contain any characters.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether a process was killed or has exited but is not gone yet. On a busy machine its last thread may take a while to end; until then its
/// files stay open and its locks held.
pub fn is_ending(pid: u32) -> bool {
    /// The kernel's `PF_EXITING`, in the `flags` field of proc_pid_stat(5).
    const EXITING: u64 = 0x4;
    const KILL: u64 = 1 << 8;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let flags: u64 = fields.nth(5).and_then(|flags| flags.parse().ok()).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).unwrap_or_default()
    };
    matches!(state, "Z" | "X") || flags & EXITING != 0 || (pending("SigPnd:") | pending("ShdPnd:")) & KILL != 0
}

/// A process of a given user, held so that its pid cannot be reused.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    handle: OwnedFd,
}

impl Process {
    /// The running process with this pid; `None` if there is none or it belongs to another user.
    pub fn find(pid: u32, user: u32) -> Option<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let handle = rustix::process::pidfd_open(id, PidfdFlags::empty()).ok()?;
        // Checked while it is held.
        (start_time(pid).is_some() && is_run_by(pid, user)).then_some(Self { pid, handle })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a terminating signal. Succeeds if the process has already ended.
    ///
    /// # Errors
    /// It belongs to another user.
    pub fn end(&self, ending: Ending) -> io::Result<()> {
        let signal = match ending {
            Ending::Terminate => Signal::TERM,
            Ending::Kill => Signal::KILL,
        };
        match rustix::process::pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Waits for it to end; `false` on timeout.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
            match rustix::event::poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => return false,
                Ok(_) => return true,
            }
        }
    }
}

/// Whether a user started a process that also acts as that user. The owner of its files in `/proc` does not tell: they are root's if the
/// process protects its memory.
fn is_run_by(pid: u32, user: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let mut ids = ids.split_ascii_whitespace().take(2).map(str::parse);
    [ids.next(), ids.next()] == [Some(Ok(user)), Some(Ok(user))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_is_ending_and_a_running_process_is_not() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while !is_ending(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert!(!is_ending(child.id()));
        assert!(!is_ending(std::process::id()));
    }

    #[test]
    fn this_process_has_a_start_time_and_an_unused_id_has_none() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn the_end_of_a_process_is_noticed() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::find(child.id(), effective_uid()).unwrap();
        assert!(!process.wait_for_end(Duration::from_millis(1)));
        process.end(Ending::Terminate).unwrap();
        assert!(process.wait_for_end(Duration::from_secs(10)));
        child.wait().unwrap();
        assert!(process.wait_for_end(Duration::ZERO));
        process.end(Ending::Kill).unwrap();
    }

    #[test]
    fn only_variables_for_this_process_are_withheld() {
        for name in ["OCIFS_PASSPHRASE", "OCIFS_LOG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"] {
            assert!(is_for_us(name.as_bytes()), "{name}");
        }
        for name in ["PATH", "HOME", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "MY_OCIFS_X"] {
            assert!(!is_for_us(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_process_of_another_user_is_not_found() {
        assert!(Process::find(std::process::id(), effective_uid()).is_some());
        assert!(Process::find(std::process::id(), effective_uid() + 1).is_none());
        assert!(Process::find(0, effective_uid()).is_none());
    }

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer(&one).unwrap(), Peer { pid: std::process::id(), uid: effective_uid() });
    }
}
