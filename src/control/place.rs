//! Where sockets lie: one directory a user, one socket and one record a mount, named by its device number.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::process;

/// Which process serves a mount. Kept beside the socket, for when the daemon does not answer any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id.
    pub pid: u32,
    /// Start of the process, so that an id that was used again is not taken for the daemon.
    pub start_time: u64,
    /// What is mounted.
    pub source: String,
    /// Where.
    pub mount_point: PathBuf,
    /// The daemon's log.
    pub log: Option<PathBuf>,
}

impl Record {
    /// Whether that very process still runs.
    pub fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }
}

/// The files of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The socket.
    pub socket: PathBuf,
    /// The record.
    pub record: PathBuf,
}

impl Place {
    /// The files of the mount with this device number in a directory of sockets.
    pub fn new(directory: &Path, device: (u32, u32)) -> Self {
        let stem = format!("{}-{}", device.0, device.1);
        Self { socket: directory.join(format!("{stem}.sock")), record: directory.join(format!("{stem}.json")) }
    }

    /// The record, if there is one in a directory that only its user can write to.
    pub fn read_record(&self) -> Option<Record> {
        let metadata = fs::symlink_metadata(&self.record).ok()?;
        let trusted = [0, process::effective_uid()].contains(&metadata.uid()) || process::effective_uid() == 0;
        if !metadata.is_file() || !trusted || metadata.len() > super::LINE_LIMIT {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.record).ok()?).ok()
    }

    /// Removes what a dead daemon left.
    pub fn remove(&self) {
        for path in [&self.socket, &self.record] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a stale file");
            }
        }
    }
}

/// The directory of sockets, made if missing: private, and not a link that somebody else put there.
///
/// # Errors
/// It cannot be made, or belongs to another user.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != process::effective_uid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not a directory of this user", path.display())));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
