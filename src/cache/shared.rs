//! The state behind an open cache: its directory, ledger, open streams and files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::claim::Claims;
use super::config::Config;
use super::document_name::DocumentName;
use super::ledger::Ledger;
use crate::durable::{self, RangeLock};
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;

/// Changes with each format that other versions cannot read.
const VERSION: &str = "v2";
const OLD_VERSION: &str = "v1";
/// How long a failed search for room is remembered.
pub const HOPELESS: Duration = Duration::from_secs(1);

/// State shared by all handles of one open cache.
pub struct Shared {
    pub(super) config: Config,
    /// `DIRECTORY/v2`.
    pub(super) root: PathBuf,
    pub(super) ledger: Arc<Ledger>,
    /// Block size of the file system.
    pub(super) block: u64,
    pub(super) claims: Claims,
    /// The last failed search for room: when, and for how many bytes.
    pub(super) hopeless: Mutex<Option<(Instant, u64)>>,
    counter: AtomicU64,
    /// Documents read or stored, if recording. Locked only for a glance.
    recorded: Mutex<Option<BTreeSet<DocumentName>>>,
    warned: Mutex<Option<Instant>>,
}

/// An error of a system call on a cache file.
pub fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::io(format_args!("the cache cannot {action} {}", path.display()), error)
}

impl Shared {
    pub fn open(config: Config) -> Result<Arc<Self>, Error> {
        private(&config.directory)?;
        let root = config.directory.join(VERSION);
        private(&root)?;
        for part in ["streams", "work", "documents", "pins"] {
            let path = root.join(part);
            durable::make_directory(&path).map_err(failed("make", &path))?;
        }
        for lock in ["evict.lock", "structure.lock", "claims.lock"] {
            let path = root.join(lock);
            durable::open_private(&path, true).map_err(failed("open", &path))?;
        }
        let path = root.join("ledger");
        let ledger = Ledger::open(&path).map_err(failed("open", &path))?.ok_or_else(|| {
            Error::new(ErrorKind::Busy, format!("the cache {} is in use by too many processes", config.directory.display()))
        })?;
        retire_old_version(&config.directory, &root);
        let block = durable::free(&root).map_err(failed("examine", &root))?.block.clamp(512, 1 << 20);
        Ok(Arc::new(Self {
            claims: Claims::new(root.join("claims.lock"), Arc::clone(&ledger)),
            config,
            root,
            ledger,
            block,
            hopeless: Mutex::default(),
            counter: AtomicU64::new(0),
            recorded: Mutex::default(),
            warned: Mutex::default(),
        }))
    }

    /// Maximum bytes of data blocks. A file system needs up to one block of its own per 340 fragments, which stat(2) counts too; that share of the budget
    /// is reserved for it.
    pub fn limit(&self) -> u64 {
        (self.config.size - self.config.size / 128).min(u64::MAX / 8)
    }

    /// Uses closer together than this are equal to the evictor.
    pub fn coarse(&self) -> u64 {
        (self.limit() / 4096).max(1)
    }

    /// A number unique in this process.
    pub fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// The directory of a stream.
    pub fn stream_directory(&self, name: &str) -> PathBuf {
        let shard = name.split_once('-').and_then(|(_, hex)| hex.get(..2)).unwrap_or("00");
        self.root.join("streams").join(shard).join(name)
    }

    /// The name of a blob's stream.
    pub fn stream_name(blob: &Digest, sealed: bool, fingerprint: &str) -> String {
        format!("{}.{}.{fingerprint}", blob.path_name(), if sealed { "sealed" } else { "plain" })
    }

    /// A new directory below `work`, marked as ours while this cache is open.
    pub fn work_directory(&self) -> io::Result<PathBuf> {
        let path = self.root.join("work").join(format!("{}-{}", self.ledger.owner_name(), self.next_number()));
        durable::make_directory(&path)?;
        Ok(path)
    }

    /// The lock for creating, replacing and removing streams. Held briefly.
    pub fn structure_lock(&self) -> Result<RangeLock, Error> {
        self.lock_file("structure.lock", Duration::from_secs(10))
    }

    /// The evictor's lock.
    pub fn evict_lock(&self, patience: Duration) -> Result<RangeLock, Error> {
        self.lock_file("evict.lock", patience)
    }

    fn lock_file(&self, name: &str, patience: Duration) -> Result<RangeLock, Error> {
        let path = self.root.join(name);
        RangeLock::file(&path, patience).map_err(failed("lock", &path))?.ok_or_else(|| {
            Error::new(ErrorKind::Busy, format!("another process has held {} for too long: is one stopped?", path.display()))
        })
    }

    /// Starts recording documents.
    pub fn record_documents(&self) {
        self.recorded.lock().get_or_insert_default();
    }

    /// Records that a document was read or stored.
    pub fn record(&self, kind: &str, path: &Path) {
        if let (Some(recorded), Some(name)) = (&mut *self.recorded.lock(), path.file_name()) {
            recorded.insert((kind.to_owned(), name.to_string_lossy().into_owned()));
        }
    }

    /// The recorded documents.
    pub fn recorded(&self) -> BTreeSet<DocumentName> {
        self.recorded.lock().clone().unwrap_or_default()
    }

    /// Forgets that there was no room.
    pub fn hope_again(&self) {
        *self.hopeless.lock() = None;
    }

    /// Bytes missing to keep `min_free` free after writing `bytes`.
    pub fn disk_shortage(&self, bytes: u64) -> Result<u64, Error> {
        let free = durable::free(&self.root).map_err(failed("examine", &self.root))?;
        Ok(self.config.min_free.saturating_add(bytes).saturating_sub(free.available))
    }

    /// Releases bytes that were reserved but never reached the disk, or were removed from it. While the evictor is running they stay counted until its
    /// next count, since it may have counted them already.
    pub fn give_back(&self, bytes: u64) {
        if bytes > 0
            && let Ok(_lock) = self.evict_lock(Duration::ZERO)
        {
            self.ledger.give_back(bytes);
        }
    }

    /// Warns that the disk is full, at most once a minute.
    pub fn warn_full(&self, error: &io::Error) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|when| when.elapsed() > Duration::from_secs(60)) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, directory = %self.config.directory.display(), "no space left for the cache: content that does not fit is not cached");
        }
    }
}

/// Retires the directory of an older version; the next recount removes it like the work of a dead process. A running program of that version continues
/// with its open files.
fn retire_old_version(directory: &Path, root: &Path) {
    let grave = root.join("work").join(format!("{OLD_VERSION}-{:016x}", rand::random::<u64>()));
    match std::fs::rename(directory.join(OLD_VERSION), grave) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, directory = %directory.display(), "cannot remove the cache of an older version");
        }
        _ => {}
    }
}

/// Creates a directory, or rejects one that others may change.
fn private(path: &Path) -> Result<(), Error> {
    match durable::private_directory(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Error::new(ErrorKind::Denied, format!("{} cannot be used as a cache: {error}", path.display())))
        }
        other => other.map(drop).map_err(failed("use", path)),
    }
}
