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

/// Directories in which a socket for the mount with this device number is bound right now, wherever its daemon keeps
/// them: a client need not know the daemon's flags. Who listens there is checked on connecting.
pub fn bound_directories(device: (u32, u32)) -> Vec<PathBuf> {
    // A name that cannot be read as text is none of ours.
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    directories_in(&String::from_utf8_lossy(&table), device)
}

/// The same for the text of `/proc/net/unix`, whose eighth column is the path (proc(5)).
fn directories_in(table: &str, device: (u32, u32)) -> Vec<PathBuf> {
    let name = format!("{}-{}.sock", device.0, device.1);
    let path = |line: &'_ str| line.find(" /").map(|start| PathBuf::from(&line[start + 1..]));
    let bound = table.lines().filter_map(path).filter(|path| path.file_name().is_some_and(|file| file == name.as_str()));
    let mut directories: Vec<PathBuf> = bound.filter_map(|path| path.parent().map(Path::to_owned)).collect();
    directories.sort();
    directories.dedup();
    directories
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_that_is_bound_anywhere_is_found_by_its_device() {
        let directory = tempfile::tempdir().unwrap();
        let device = (4_000_000, std::process::id());
        let place = Place::new(directory.path(), device);
        let listener = UnixListener::bind(&place.socket).unwrap();
        assert_eq!(bound_directories(device), [directory.path()]);
        drop(listener);
        assert!(bound_directories(device).is_empty());
    }

    #[test]
    fn paths_with_blanks_and_sockets_of_others_are_told_apart() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1 /run/my files/ocifs/0-57.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 2 /run/my files/ocifs/0-57.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 3 /run/ocifs/0-571.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 4\n";
        assert_eq!(directories_in(table, (0, 57)), [Path::new("/run/my files/ocifs")]);
    }
}
