//! Sockets and records on disk: one directory per user, one socket and one record per mount, under unique names.
//!
//! Device numbers are reused, so they are in the record instead of the name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::LINE_LIMIT;
use crate::durable;
use crate::sys::mountinfo::{self, Mount};
use crate::sys::{beneath, process, socket};

/// Name prefix; hexadecimal digits follow.
const PREFIX: &str = "mount-";

/// The process that serves a mount. Stored beside the socket, for when the daemon stops answering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id.
    pub pid: u32,
    /// Start time of the process, in case its id is reused.
    pub start_time: u64,
    /// Device number of the mount; `None` once the mount is gone, since the number may be reused.
    pub device: Option<(u32, u32)>,
    /// The source.
    pub source: String,
    /// The mount point.
    pub mount_point: PathBuf,
    /// The state directory.
    pub state_directory: Option<PathBuf>,
    /// The daemon's log.
    pub log: Option<PathBuf>,
}

impl Record {
    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }

    /// Whether this is the record of a mount.
    pub fn is_of(&self, mount: &Mount) -> bool {
        self.device == Some(mount.device) && mount.source.to_str().is_none_or(|source| source == self.source)
    }
}

/// Socket and record of one daemon.
#[derive(Clone, Debug)]
pub struct Endpoint {
    directory: Arc<File>,
    path: PathBuf,
    name: String,
}

impl Endpoint {
    /// A new endpoint in a directory.
    pub(super) fn new(directory: File, path: &Path) -> Self {
        Self { directory: Arc::new(directory), path: path.to_owned(), name: format!("{PREFIX}{:016x}", rand::random::<u64>()) }
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join(self.socket_name())
    }

    /// The record.
    pub fn record(&self) -> PathBuf {
        self.path.join(self.record_name())
    }

    fn socket_name(&self) -> String {
        format!("{}.sock", self.name)
    }

    fn record_name(&self) -> String {
        format!("{}.json", self.name)
    }

    /// Connects to the daemon.
    ///
    /// # Errors
    /// As [`socket::connect`].
    pub(super) fn connect(&self, patience: Duration) -> io::Result<std::os::unix::net::UnixStream> {
        // Connects through the open directory: its path may have been replaced, or be too long for a socket address.
        socket::connect(&beneath::path_of(&self.directory).join(self.socket_name()), patience)
    }

    /// Writes the record.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        durable::replace(&self.record(), &[&serde_json::to_vec(record)?])
    }

    /// Removes socket and record.
    pub fn remove(&self) {
        for name in [self.socket_name(), self.record_name()] {
            if let Err(error) = beneath::remove_file(&self.directory, &name)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %self.path.join(name).display(), %error, "cannot remove a stale file");
            }
        }
    }

    /// Whether its daemon is gone for good. A daemon in another container is not a visible process, but still listens.
    fn is_abandoned(&self, record: &Record) -> bool {
        let refused = |error: io::Error| matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        !record.is_alive() && self.connect(Duration::ZERO).is_err_and(refused)
    }
}

/// A record on disk.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The record.
    pub record: Record,
    /// The user who wrote it.
    pub owner: u32,
    /// When it was written.
    pub written: SystemTime,
}

/// All readable records in a directory.
pub fn records(directory: &Path) -> Vec<Found> {
    let Ok(opened) = beneath::open_directory(directory).map(Arc::new) else { return Vec::new() };
    let names = fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter_map(|name| is_name(name.strip_suffix(".json")?).then(|| name.trim_end_matches(".json").to_owned()));
    let endpoints = names.map(|name| Endpoint { directory: Arc::clone(&opened), path: directory.to_owned(), name });
    endpoints.filter_map(|endpoint| read(endpoint).ok()).collect()
}

fn read(endpoint: Endpoint) -> io::Result<Found> {
    let file = beneath::open_file(&endpoint.directory, Path::new(&endpoint.record_name()))?;
    let metadata = file.metadata()?;
    let mut text = Vec::new();
    file.take(LINE_LIMIT).read_to_end(&mut text)?;
    Ok(Found { endpoint, record: serde_json::from_slice(&text)?, owner: metadata.uid(), written: metadata.modified()? })
}

fn is_name(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|number| number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes files of dead daemons from a directory, unless their mounts still exist.
pub(super) fn sweep(directory: &Path, taken: Option<(u32, u32)>) {
    let table = mountinfo::all().unwrap_or_default();
    for Found { endpoint, record, .. } in records(directory) {
        let is_mounted = record.device != taken && table.iter().any(|mount| record.is_of(mount));
        if !is_mounted && endpoint.is_abandoned(&record) {
            endpoint.remove();
        }
    }
}

/// Directories with bound daemon sockets, regardless of the daemons' flags.
pub fn bound_directories() -> Vec<PathBuf> {
    // Our names are UTF-8.
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    directories_in(&String::from_utf8_lossy(&table))
}

/// Parses `/proc/net/unix`, whose eighth column is the path (proc(5)).
fn directories_in(table: &str) -> Vec<PathBuf> {
    let path = |line: &'_ str| line.find(" /").map(|start| PathBuf::from(&line[start + 1..]));
    let is_ours = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.strip_suffix(".sock")).is_some_and(is_name);
    let bound = table.lines().filter_map(path).filter(is_ours);
    let mut directories: Vec<PathBuf> = bound.filter_map(|path| path.parent().map(Path::to_owned)).collect();
    directories.sort();
    directories.dedup();
    directories
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn record(device: (u32, u32)) -> Record {
        let source = "reg.io/team".to_owned();
        Record { pid: 0, start_time: 1, device: Some(device), source, mount_point: "/mnt".into(), state_directory: None, log: None }
    }

    fn endpoint(directory: &Path) -> Endpoint {
        Endpoint::new(File::open(directory).unwrap(), directory)
    }

    #[test]
    fn a_directory_with_a_bound_socket_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(endpoint(directory.path()).socket()).unwrap();
        assert!(bound_directories().contains(&directory.path().to_owned()));
        drop(listener);
        assert!(!bound_directories().contains(&directory.path().to_owned()));
    }

    #[test]
    fn paths_with_blanks_and_foreign_sockets_are_distinguished() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1 /run/my files/ocifs/mount-0123456789abcdef.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 2 /run/my files/ocifs/mount-0123456789abcdef.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 3 /run/other/mount-57.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 4\n";
        assert_eq!(directories_in(table), [Path::new("/run/my files/ocifs")]);
    }

    #[test]
    fn files_that_are_not_records_are_skipped() {
        let directory = tempfile::tempdir().unwrap();
        endpoint(directory.path()).write(&record((0, 1))).unwrap();
        let good = records(directory.path());
        assert_eq!((good.len(), good[0].owner), (1, process::effective_uid()));
        fs::copy(good[0].endpoint.record(), directory.path().join("other.json")).unwrap();
        std::os::unix::fs::symlink(good[0].endpoint.record(), endpoint(directory.path()).record()).unwrap();
        fs::write(endpoint(directory.path()).record(), "{").unwrap();
        fs::create_dir(endpoint(directory.path()).record()).unwrap();
        assert_eq!(records(directory.path()).len(), 1);
    }

    #[test]
    fn only_leftovers_of_dead_daemons_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let alive = Record { pid, start_time: process::start_time(pid).unwrap(), ..record((0, 1)) };
        let (running, elsewhere, dead, reused) =
            (endpoint(directory.path()), endpoint(directory.path()), endpoint(directory.path()), endpoint(directory.path()));
        running.write(&alive).unwrap();
        elsewhere.write(&record((0, 2))).unwrap();
        let _listener = UnixListener::bind(elsewhere.socket()).unwrap();
        dead.write(&record((0, u32::MAX))).unwrap();
        drop(UnixListener::bind(dead.socket()).unwrap());
        let root = mountinfo::at(Path::new("/")).unwrap().unwrap();
        reused.write(&Record { source: root.source.to_str().unwrap().to_owned(), ..record(root.device) }).unwrap();
        sweep(directory.path(), None);
        assert!(running.record().exists() && elsewhere.record().exists() && reused.record().exists());
        assert!(!dead.record().exists() && !dead.socket().exists());
        sweep(directory.path(), Some(root.device));
        assert!(!reused.record().exists());
    }
}
