//! The store: a registry on a directory. Every repository is a layout that any tool reads; equal blobs are shared by hard links.
//!
//! ```text
//! DIR/team+app/               the layout of repository team/app
//! DIR/_blobs/sha256/<hex>     an extra link to every blob, to find equal ones; removed once it is the last link
//! DIR/_uploads/<id>           an upload in progress; <id>.json names its owner
//! ```
//!
//! Acknowledged writes are on disk. Several processes may serve one directory.

mod body;
mod fault;
mod pull;
mod upload;
mod verified;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::problem::{Code, Problem};
use verified::{Verified, stamp};

use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Digest, Repository};
use crate::registry::{Collected, Layout, layout_directory};

pub(super) use body::of_file;
pub(super) use fault::{of_disk, problem};
pub(super) use pull::StorePull;
pub(super) use upload::{Session, Uploads};

const BLOBS: &str = "_blobs";
const UPLOADS: &str = "_uploads";
/// Interval at which a blob's use is recorded on disk, so that it is not collected before it is referred to.
const NOTED: Duration = Duration::from_secs(600);

/// How often a blob is linked anew while collections remove the link that is shared.
const ATTEMPTS: usize = 100;

/// A registry on a directory.
pub struct Store {
    root: PathBuf,
    /// Locked for map operations only.
    layouts: Mutex<HashMap<Repository, Arc<Layout>>>,
    pub(super) uploads: Uploads,
    /// Files whose digest was verified.
    pub(super) verified: Verified,
}

impl Store {
    /// Opens a store; a missing or empty directory becomes one.
    ///
    /// # Errors
    /// The directory cannot be created, or contains something else.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let is_store = root.join(UPLOADS).is_dir();
        if !is_store && !is_empty(&root)? {
            return Err(io::Error::other("not empty and not an ocifs store"));
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            std::fs::create_dir_all(root.join(BLOBS).join(algorithm.name()))?;
        }
        let uploads = Uploads::open(&root.join(UPLOADS))?;
        durable::sync_directory(&root)?;
        Ok(Self { root, layouts: Mutex::default(), uploads, verified: Verified::default() })
    }

    /// The layout of a repository, which need not exist yet.
    pub(super) fn layout(&self, repository: &Repository) -> Result<Arc<Layout>, Problem> {
        if let Some(layout) = self.layouts.lock().get(repository) {
            return Ok(Arc::clone(layout));
        }
        let opened = Layout::open_or_begin_as(&layout_directory(&self.root, repository), repository.as_str());
        let failed =
            |error: Error| fault::withheld(error.kind, &error, format!("repository {repository} cannot be opened"), Code::NameUnknown);
        let opened = Arc::new(opened.map_err(failed)?);
        Ok(Arc::clone(self.layouts.lock().entry(repository.clone()).or_insert(opened)))
    }

    /// The layout of an existing repository.
    pub(super) fn existing(&self, repository: &Repository) -> Result<Arc<Layout>, Problem> {
        let unknown = || Problem::not_found(Code::NameUnknown, format!("repository {repository} does not exist"));
        // Names that are only queried take no memory.
        if !self.exists(repository) {
            return Err(unknown());
        }
        self.layout(repository)
    }

    /// Whether anything was ever pushed to a repository.
    pub(super) fn exists(&self, repository: &Repository) -> bool {
        layout_directory(&self.root, repository).join("index.json").is_file()
    }

    /// The repositories, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn repositories(&self) -> io::Result<Vec<Repository>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let Some(repository) = name.to_str().and_then(|name| Repository::parse(&name.replace('+', "/")).ok()) else { continue };
            if self.exists(&repository) {
                found.push(repository);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Opens a repository's blob and returns its size. Records the use.
    pub(super) fn blob(&self, repository: &Repository, digest: &Digest) -> Result<(File, u64), Problem> {
        let unknown = || Problem::not_found(Code::BlobUnknown, format!("repository {repository} has no blob {digest}"));
        if !self.exists(repository) {
            return Err(unknown());
        }
        let (file, size) = self.layout(repository)?.open_blob(digest).map_err(|error| match error.kind {
            ErrorKind::NotFound => unknown(),
            _ => problem(&error, Code::BlobUnknown),
        })?;
        Ok((file, size))
    }

    /// Records that someone found a blob here and may be about to refer to it, so that it does not count as old.
    pub(super) fn note_use(&self, file: &File) {
        let Ok(metadata) = file.metadata() else { return };
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
        if changed.elapsed().is_ok_and(|age| age > NOTED)
            && let Ok(modified) = metadata.modified()
            && let Err(error) = file.set_modified(modified)
        {
            tracing::debug!(%error, "cannot record the use of a blob");
        }
    }

    /// Adds a complete file as a blob of a repository; all its links are on disk when this returns. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn keep(&self, repository: &Repository, digest: &Digest, file: &Path) -> Result<(), Problem> {
        let shared = self.shared(digest);
        let mut attempts = 0;
        loop {
            self.share(digest, file, &shared).map_err(|error| of_disk(&error))?;
            match self.layout(repository)?.adopt_blob(digest, &shared) {
                // A collection removed the shared link meanwhile.
                Err(error) if error.kind == ErrorKind::NotFound && attempts < ATTEMPTS => attempts += 1,
                outcome => return outcome.map_err(|error| problem(&error, Code::BlobUnknown)),
            }
        }
    }

    /// Makes `shared` a link to a complete file, or leaves it if it already holds the digest.
    fn share(&self, digest: &Digest, file: &Path, shared: &Path) -> io::Result<()> {
        loop {
            match std::fs::hard_link(file, shared) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.holds(shared, digest) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match std::fs::remove_file(shared) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    // Damaged on disk, or collected just now.
                    _ => {}
                },
                linked => {
                    linked?;
                    break;
                }
            }
        }
        self.verified.note(*digest, File::open(shared).ok().as_ref().and_then(stamp));
        shared.parent().map_or(Ok(()), durable::sync_directory)
    }

    /// Whether a file matches a digest. Hashes it unless already verified.
    fn holds(&self, path: &Path, digest: &Digest) -> bool {
        let Ok(file) = File::open(path) else { return false };
        self.verified.holds(digest, stamp(&file)) || upload::hash(&file, digest.algorithm()).is_ok_and(|found| found == *digest)
    }

    /// Links a blob of one repository into another. False if the first does not have it. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn mount(&self, digest: &Digest, from: &Repository, to: &Repository) -> Result<bool, Problem> {
        if self.blob(from, digest).is_err() {
            return Ok(false);
        }
        let path = layout_directory(&self.root, from).join("blobs").join(digest.algorithm().name()).join(digest.hex());
        match self.layout(to)?.adopt_blob(digest, &path) {
            Ok(()) => Ok(true),
            // Deleted meanwhile.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(problem(&error, Code::BlobUnknown)),
        }
    }

    fn shared(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(digest.algorithm().name()).join(digest.hex())
    }

    /// Removes unreferenced content older than `age`, and idle uploads. Safe beside writers.
    ///
    /// # Errors
    /// The directory cannot be read. Unreadable repositories are left alone.
    pub async fn collect(&self, age: Duration, keeps_untagged: bool) -> io::Result<Collected> {
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut all = Collected::default();
        for repository in self.repositories()? {
            let Ok(layout) = self.layout(&repository) else { continue };
            match layout.collect(before, keeps_untagged).await {
                Ok(collected) => {
                    all.manifests += collected.manifests;
                    all.blobs += collected.blobs;
                }
                Err(error) => tracing::warn!(%error, "skipping the collection of {repository}"),
            }
        }
        self.uploads.expire(age)?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for entry in std::fs::read_dir(self.root.join(BLOBS).join(algorithm.name()))? {
                let entry = entry?;
                // A writer that is linking it right now holds a link of its own.
                if entry.metadata().is_ok_and(|metadata| metadata.nlink() == 1) {
                    match std::fs::remove_file(entry.path()) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(all)
    }
}

/// Whether a directory has no entries but the one that a new ext4 disk has.
fn is_empty(directory: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        if entry?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}
