//! One session: serves requests of a mounted FUSE descriptor until it is unmounted, and notifies the kernel.
//!
//! The caller mounts and passes the descriptor; this module never mounts and never unmounts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use fuser::{INodeNo, Notifier, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::adapter::Adapter;
use super::watchdog::Watchdog;
use crate::fs::{FileSystem, KernelCache};
use crate::sys::unmount::is_connected;

/// Options of a session.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that read requests.
    pub threads: usize,
    /// An operation without progress for this long fails.
    pub deadline: Duration,
}

impl Options {
    /// Options for the time that a transfer may stall. The registry's own timeouts come first, since they
    /// say more about the cause.
    pub fn for_io_timeout(io_timeout: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4);
        Self { threads, deadline: io_timeout.saturating_mul(2).saturating_add(Duration::from_secs(5)) }
    }
}

/// A running session.
pub struct Session {
    ended: oneshot::Receiver<io::Result<()>>,
    /// Held only as long as the session, so that it never delays the end of the connection.
    device: Arc<OwnedFd>,
}

/// Reports whether the kernel still sends requests.
#[derive(Clone, Debug)]
pub struct Connection(Weak<OwnedFd>);

impl Connection {
    /// Whether the file system is still mounted in some namespace or has open files.
    pub fn is_alive(&self) -> bool {
        self.0.upgrade().is_some_and(|device| is_connected(&*device))
    }
}

impl Session {
    /// Performs the FUSE handshake on a mounted descriptor and starts the threads that serve it.
    ///
    /// # Errors
    /// The descriptor is not that of a fresh FUSE mount, or the system cannot start threads.
    pub fn start(file_system: Arc<FileSystem>, device: OwnedFd, runtime: Handle, options: &Options) -> io::Result<Self> {
        let progress = Arc::clone(&file_system);
        let watchdog = Watchdog::start(options.deadline, move || progress.progress())?;
        let adapter = Adapter::new(Arc::clone(&file_system), runtime, watchdog);
        let mut config = fuser::Config::default();
        config.n_threads = Some(options.threads.max(1));
        let connection = Arc::new(device.try_clone()?);
        // The kernel itself admits only the owner without `allow_other`.
        let session = fuser::Session::from_fd(adapter, device, SessionACL::All, config)?;
        file_system.set_kernel_cache(Arc::new(Notifications::start(session.notifier())?));
        let (end, ended) = oneshot::channel();
        let serve = move || {
            // The receiver is gone if the program ends first.
            let _ = end.send(session.run());
        };
        std::thread::Builder::new().name("ocifs-session".to_owned()).spawn(serve)?;
        Ok(Self { ended, device: connection })
    }

    /// Reports whether the session is still in use, also while someone waits for it.
    pub fn connection(&self) -> Connection {
        Connection(Arc::downgrade(&self.device))
    }

    /// Waits until the mount is gone.
    ///
    /// # Errors
    /// Serving ended before the mount did.
    pub async fn wait(self) -> io::Result<()> {
        let Self { ended, device: _device } = self;
        ended.await.unwrap_or_else(|_| Err(io::Error::other("the session's thread is gone")))
    }
}

/// Sets the kernel's read-ahead for the mount with the device number `major:minor` (as in the mount table;
/// asking the mount itself could block on it).
///
/// # Errors
/// Not root, or the kernel has no such setting.
pub fn raise_read_ahead(device: (u32, u32), kibibytes: u32) -> io::Result<()> {
    let (major, minor) = device;
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), format!("{kibibytes}\n"))
}

enum Notice {
    Inode(u64),
    /// As for an inode; the waiter is notified.
    HandOver(u64, mpsc::Sender<()>),
    Name(u64, Vec<u8>),
}

/// Notifies the kernel on a separate thread, since the kernel may send requests before it answers.
struct Notifications {
    sender: mpsc::Sender<Notice>,
}

impl Notifications {
    fn start(notifier: Notifier) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let notify = move || {
            for notice in receiver {
                let result = match &notice {
                    // The kernel writes back what it drops.
                    Notice::Inode(inode) | Notice::HandOver(inode, _) => notifier.inval_inode(INodeNo(*inode), 0, 0),
                    Notice::Name(directory, name) => notifier.inval_entry(INodeNo(*directory), OsStr::from_bytes(name)),
                };
                if let Err(error) = result {
                    tracing::debug!(%error, "cannot notify the kernel to forget");
                }
                if let Notice::HandOver(_, done) = notice {
                    // The waiter may have gone.
                    let _ = done.send(());
                }
            }
        };
        std::thread::Builder::new().name("ocifs-notify".to_owned()).spawn(notify)?;
        Ok(Self { sender })
    }

    fn send(&self, notice: Notice) {
        // The thread ends only with the session, and then the kernel has forgotten everything.
        let _ = self.sender.send(notice);
    }
}

impl KernelCache for Notifications {
    fn forget_inode(&self, inode: u64) {
        self.send(Notice::Inode(inode));
    }

    fn hand_over(&self, inode: u64) {
        let (done, waiting) = mpsc::channel();
        self.send(Notice::HandOver(inode, done));
        // An error means that the session is over.
        let _ = waiting.recv();
    }

    fn forget_name(&self, directory: u64, name: &[u8]) {
        self.send(Notice::Name(directory, name.to_vec()));
    }
}
