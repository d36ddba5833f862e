//! Asks the daemon behind a mount, or finds out whether it is gone. The only module that touches a mount, in a thread that may hang.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::cli::exit::Failure;
use crate::control::{Client, Request};
use crate::fs::{Selection, StagedTag};
use crate::sys::mountinfo::Mount;
use crate::sys::space;

/// How long a mount may take to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a daemon may take to list staged tags.
pub const PULSE: Duration = Duration::from_secs(5);

/// The state of a mount whose daemon cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The daemon is gone for good.
    Dead,
    /// The daemon does not answer the kernel.
    Hung,
    /// The daemon answers the kernel.
    Answers,
    /// Unknown: this user may not see the daemon.
    Unknown,
}

/// Calls statfs on a mount, which its daemon answers without the network.
pub fn health(mount: &Mount) -> Health {
    match look(&mount.mount_point, |path| space::free(path).map(drop)) {
        Ok(()) => Health::Answers,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Health::Dead,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Health::Hung,
        Err(_) => Health::Unknown,
    }
}

/// Whether the daemon of a mount is gone for good.
pub fn is_dead(mount: &Mount) -> bool {
    health(mount) == Health::Dead
}

/// The same for a mount whose daemon may be known, without touching the mount then.
pub fn is_gone(client: &Client, mount: &Mount) -> bool {
    client.daemon().is_none() && is_dead(mount)
}

/// The staged tags of a mount.
///
/// # Errors
/// The daemon does not answer, or the selection is not in this mount.
pub fn staged(client: &Client, selection: Selection) -> Result<Vec<StagedTag>, Failure> {
    client.status(PULSE)?;
    Ok(client.collect(&Request::Staged { selection }, &mut |_| {})?)
}

/// Accesses a path in its own thread, so that a hung mount cannot block forever.
///
/// # Errors
/// `TimedOut` if it hangs, else the errors of `how`.
pub fn look<T: Send + 'static>(path: &Path, how: impl FnOnce(&Path) -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || sender.send(how(&path)));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
