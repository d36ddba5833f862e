//! Uploads in progress: a growing file, its owner, and the hash so far. They survive a restart.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::fault::of_disk;
use crate::blocking::spawn_blocking;
use crate::oci::{Algorithm, Digest, Hasher, Repository};
use crate::serve::incoming::Patience;
use crate::serve::problem::{Code, Problem};

/// Most open uploads.
const OPEN: usize = 10_000;
/// Bytes buffered before they are written and hashed.
const PIECE: usize = 1 << 20;

/// The owner of an upload.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Owner {
    repository: String,
    user: Option<String>,
}

/// The hash of an upload's first bytes.
struct Progress {
    hasher: Hasher,
    algorithm: Algorithm,
    hashed: u64,
}

/// The uploads of a store.
pub(crate) struct Uploads {
    directory: PathBuf,
    /// The uploads seen by this process. Locked for map operations only.
    live: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Progress>>>>>,
}

/// An upload locked for one request.
pub(crate) struct Session {
    pub(crate) id: String,
    path: PathBuf,
    progress: OwnedMutexGuard<Option<Progress>>,
    /// Bytes received so far.
    pub(crate) offset: u64,
}

impl Uploads {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), live: Mutex::default() })
    }

    /// Starts an upload, which will probably be hashed with this algorithm.
    ///
    /// # Errors
    /// Too many uploads are open; also errors of the disk.
    pub(crate) fn begin(&self, repository: &Repository, user: Option<&str>, algorithm: Algorithm) -> Result<Session, Problem> {
        if self.live.lock().len() >= OPEN {
            return Err(Problem::too_many("too many uploads are open", Duration::from_secs(60)));
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let path = self.directory.join(&id);
        let owner = Owner { repository: repository.to_string(), user: user.map(str::to_owned) };
        let owner = serde_json::to_vec(&owner).map_err(|error| of_disk(&error.into()))?;
        let written =
            std::fs::write(path.with_extension("json"), owner).and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path));
        written.map_err(|error| of_disk(&error))?;
        let progress = Progress { hasher: Hasher::new(algorithm), algorithm, hashed: 0 };
        let lock = Arc::new(tokio::sync::Mutex::new(Some(progress)));
        let progress = Arc::clone(&lock).try_lock_owned().map_err(|_| busy())?;
        self.live.lock().insert(id.clone(), lock);
        Ok(Session { id, path, progress, offset: 0 })
    }

    /// Resumes an upload, also after a restart.
    ///
    /// # Errors
    /// There is no such upload, it belongs to another repository or user, or another request is writing to it.
    pub(crate) fn resume(&self, id: &str, repository: &Repository, user: Option<&str>) -> Result<Session, Problem> {
        let unknown = || Problem::not_found(Code::BlobUploadUnknown, "no such upload");
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let path = self.directory.join(id);
        let owner = std::fs::read(path.with_extension("json")).map_err(|_| unknown())?;
        let owner: Owner = serde_json::from_slice(&owner).map_err(|_| unknown())?;
        if owner.repository != repository.as_str() || owner.user.as_deref() != user {
            return Err(unknown());
        }
        let lock = Arc::clone(self.live.lock().entry(id.to_owned()).or_default());
        let progress = lock.try_lock_owned().map_err(|_| busy())?;
        // Another request may have ended it meanwhile.
        let Ok(metadata) = std::fs::metadata(&path) else {
            self.live.lock().remove(id);
            return Err(unknown());
        };
        Ok(Session { id: id.to_owned(), path, progress, offset: metadata.len() })
    }

    /// Ends an upload and removes its files.
    pub(crate) fn end(&self, session: Session) {
        for path in [session.path.clone(), session.path.with_extension("json")] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "cannot remove a finished upload");
            }
        }
        self.live.lock().remove(&session.id);
    }

    /// Removes uploads idle for this long.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn expire(&self, age: Duration) -> io::Result<()> {
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_old = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).is_ok_and(|at| at < before);
            let data = entry.path().with_extension("");
            if !is_old(&entry.path()) || (data.exists() && !is_old(&data)) {
                continue;
            }
            let id = name.trim_end_matches(".json");
            let in_use = self.live.lock().get(id).is_some_and(|lock| lock.try_lock().is_err());
            if !in_use {
                self.live.lock().remove(id);
                match std::fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Session {
    /// Appends a body as it arrives. Received bytes are kept whatever happens.
    ///
    /// # Errors
    /// Those of [`Patience::next`]; the body is longer than `limit`, or the disk is full.
    pub(crate) async fn receive(&mut self, body: Body, limit: u64, mut patience: Patience) -> Result<(), Problem> {
        let mut frames = body.into_data_stream();
        let mut gathered = BytesMut::new();
        let mut left = limit;
        loop {
            let frame = match patience.next(&mut frames).await {
                Ok(frame) => frame,
                Err(problem) => {
                    self.append(gathered.split().freeze()).await?;
                    return Err(problem);
                }
            };
            if let Some(frame) = &frame {
                let length = frame.len() as u64;
                left = left.checked_sub(length).ok_or_else(|| Problem::bad(Code::SizeInvalid, "the body is longer than announced"))?;
                gathered.extend_from_slice(frame);
            }
            if gathered.len() >= PIECE || frame.is_none() {
                self.append(gathered.split().freeze()).await?;
            }
            if frame.is_none() {
                return Ok(());
            }
        }
    }

    async fn append(&mut self, bytes: Bytes) -> Result<(), Problem> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (path, offset, progress) = (self.path.clone(), self.offset, self.progress.take());
        let written = spawn_blocking(move || append(&path, &bytes, offset, progress)).await;
        let (progress, offset, outcome) = written.map_err(|error| of_disk(&io::Error::other(error)))?;
        *self.progress = progress;
        self.offset = offset;
        outcome.map_err(|error| of_disk(&error))
    }

    /// Verifies the digest, syncs the bytes and returns their path. Blocks.
    ///
    /// # Errors
    /// The digest does not match; also errors of the disk.
    pub(crate) fn finish(&mut self, digest: &Digest) -> Result<&Path, Problem> {
        let failed = |error: io::Error| of_disk(&error);
        let file = File::open(&self.path).map_err(failed)?;
        let fits = |progress: &Progress| progress.algorithm == digest.algorithm() && progress.hashed == self.offset;
        let found = match self.progress.take().filter(fits) {
            Some(progress) => progress.hasher.finish(),
            None => hash(&file, digest.algorithm()).map_err(failed)?,
        };
        if found != *digest {
            return Err(Problem::bad(Code::DigestInvalid, format!("the bytes have digest {found}, not {digest}")));
        }
        file.sync_all().map_err(failed)?;
        Ok(&self.path)
    }
}

/// Appends and hashes bytes; on a full disk the file is cut back to its old end.
fn append(path: &Path, bytes: &[u8], offset: u64, progress: Option<Progress>) -> (Option<Progress>, u64, io::Result<()>) {
    let written = OpenOptions::new().append(true).open(path).and_then(|mut file| {
        let outcome = file.write_all(bytes);
        if outcome.is_err() {
            // Whole pieces only; otherwise everything would have to be rehashed.
            file.set_len(offset)?;
        }
        outcome
    });
    if let Err(error) = written {
        return (progress, offset, Err(error));
    }
    let progress = progress.map(|mut progress| {
        if progress.hashed == offset {
            progress.hasher.update(bytes);
            progress.hashed += bytes.len() as u64;
        }
        progress
    });
    (progress, offset + bytes.len() as u64, Ok(()))
}

pub(super) fn hash(file: &File, algorithm: Algorithm) -> io::Result<Digest> {
    use std::io::Read;
    let (mut hasher, mut buffer, mut file) = (Hasher::new(algorithm), vec![0; PIECE], file);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn busy() -> Problem {
    Problem::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, "another request is writing to this upload")
}
