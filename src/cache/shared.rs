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

/// Rises with each format that other versions cannot read.
const VERSION: &str = "v2";
const OLD_VERSION: &str = "v1";
/// How long the fruitless search for room is remembered.
pub const HOPELESS: Duration = Duration::from_secs(1);

/// State shared by all handles of one open cache.
pub struct Shared {
    pub(super) config: Config,
    /// `DIRECTORY/v2`.
    pub(super) root: PathBuf,
    pub(super) ledger: Arc<Ledger>,
    /// Size of a block of the file system.
    pub(super) block: u64,
    pub(super) claims: Claims,
    /// The last fruitless search for room: when, and for how many bytes.
    pub(super) hopeless: Mutex<Option<(Instant, u64)>>,
    counter: AtomicU64,
    /// Documents that were read or stored, where that is recorded. Held for one look.
    recorded: Mutex<Option<BTreeSet<DocumentName>>>,
    warned: Mutex<Option<Instant>>,
}

/// An error of a system call on a file of the cache.
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

    /// Most bytes of data blocks. A file system needs up to one block of its own for 340 fragments, which stat(2)
    /// counts too: that much of the budget is left to it.
    pub fn limit(&self) -> u64 {
        (self.config.size - self.config.size / 128).min(u64::MAX / 8)
    }

    /// Last uses that differ by less are the same to the evictor.
    pub fn coarse(&self) -> u64 {
        (self.limit() / 4096).max(1)
    }

    /// A number that no other call of this process gets.
    pub fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the stream of this name lies.
    pub fn stream_directory(&self, name: &str) -> PathBuf {
        let shard = name.split_once('-').and_then(|(_, hex)| hex.get(..2)).unwrap_or("00");
        self.root.join("streams").join(shard).join(name)
    }

    /// The name of a blob's stream.
    pub fn stream_name(blob: &Digest, sealed: bool, fingerprint: &str) -> String {
        format!("{}.{}.{fingerprint}", blob.path_name(), if sealed { "sealed" } else { "plain" })
    }

    /// A new directory below `work`, known as ours as long as this cache is open.
    pub fn work_directory(&self) -> io::Result<PathBuf> {
        let path = self.root.join("work").join(format!("{}-{}", self.ledger.owner_name(), self.next_number()));
        durable::make_directory(&path)?;
        Ok(path)
    }

    /// The lock under which streams are made, replaced and removed. Held briefly.
    pub fn structure_lock(&self) -> Result<RangeLock, Error> {
        self.lock_file("structure.lock", Duration::from_secs(10))
    }

    /// The lock of the evictor.
    pub fn evict_lock(&self, patience: Duration) -> Result<RangeLock, Error> {
        self.lock_file("evict.lock", patience)
    }

    fn lock_file(&self, name: &str, patience: Duration) -> Result<RangeLock, Error> {
        let path = self.root.join(name);
        RangeLock::file(&path, patience)
            .map_err(failed("lock", &path))?
            .ok_or_else(|| Error::new(ErrorKind::Busy, format!("another process holds {} for too long: is one stopped?", path.display())))
    }

    /// Begins to record documents.
    pub fn record_documents(&self) {
        self.recorded.lock().get_or_insert_default();
    }

    /// Notes that a document was read or stored.
    pub fn record(&self, kind: &str, path: &Path) {
        if let (Some(recorded), Some(name)) = (&mut *self.recorded.lock(), path.file_name()) {
            recorded.insert((kind.to_owned(), name.to_string_lossy().into_owned()));
        }
    }

    /// The documents that were recorded.
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

    /// Bytes that were reserved but never came to lie on disk, or are gone from it. If the evictor is at work they
    /// stay counted until it counts again, since it may have counted them already.
    pub fn give_back(&self, bytes: u64) {
        if bytes > 0
            && let Ok(_lock) = self.evict_lock(Duration::ZERO)
        {
            self.ledger.give_back(bytes);
        }
    }

    /// Warns that the disk refuses data, at most once a minute.
    pub fn warn_full(&self, error: &io::Error) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|when| when.elapsed() > Duration::from_secs(60)) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, directory = %self.config.directory.display(), "no space left for the cache: what does not fit is not kept");
        }
    }
}

/// Retires the directory of an older version; the next recount removes it like the work of a dead process. A
/// program of that version that still runs goes on with what it has open.
fn retire_old_version(directory: &Path, root: &Path) {
    let grave = root.join("work").join(format!("{OLD_VERSION}-{:016x}", rand::random::<u64>()));
    match std::fs::rename(directory.join(OLD_VERSION), grave) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, directory = %directory.display(), "the cache of an older version could not be removed");
        }
        _ => {}
    }
}

/// Makes a directory, or refuses one in which others may change anything.
fn private(path: &Path) -> Result<(), Error> {
    match durable::private_directory(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Error::new(ErrorKind::Denied, format!("{} cannot be used as a cache: {error}", path.display())))
        }
        other => other.map(drop).map_err(failed("use", path)),
    }
}
