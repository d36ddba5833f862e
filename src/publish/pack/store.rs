//! Packed layers waiting to be pushed, named by content: an interrupted publish finds them again.
//!
//! A layer is valid only with its record, which is written last; its bytes are rehashed before use, so a file torn by a power cut is packed again.
//! The directory belongs to one upper and is emptied when it commits.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::sealed::Sealed;
use crate::cache::Room;
use crate::durable;
use crate::error::Error;
use crate::layer::{self, LayerIndex, Packed, Resources};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::publish::disk;
use crate::publish::plan::identity::Identity;
use crate::registry::FileSource;
use crate::sys::array::Array;

/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

/// A directory of packed layers.
#[derive(Clone, Debug)]
pub(in crate::publish) struct Store {
    directory: PathBuf,
    /// Sealed layers have distinct names.
    sealed: bool,
    /// For building indexes.
    resources: Resources,
    used: Used,
}

/// Layers that a publish found or packed; any others in the directory are from earlier failed publishes.
pub(in crate::publish) type Used = Arc<Mutex<HashSet<Identity>>>;

/// One packed layer.
#[derive(Clone, Debug)]
pub(in crate::publish) struct Ready {
    /// The blob as stored in the registry.
    pub blob: (Digest, u64),
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its file.
    pub path: PathBuf,
    /// The attached index, if any: its digest, length and file.
    pub attached_index: Option<(Digest, u64, PathBuf)>,
    /// Its share of the cache budget while it waits.
    pub room: Option<Arc<Room>>,
    /// The key and index of a layer sealed just now; the index must not be on disk.
    pub sealed: Option<Arc<(Sealed, LayerIndex)>>,
}

/// The stored record of a packed layer.
#[derive(Serialize, Deserialize)]
struct Account {
    blob: String,
    size: u64,
    diff_id: String,
    index: Option<(String, u64)>,
}

impl Store {
    /// The packed layers of a directory, which is created if missing.
    pub fn open(directory: PathBuf, sealed: bool, used: Used, resources: Resources) -> Result<Self, Error> {
        durable::make_directory(&directory).map_err(|error| disk::failed("making", &directory, error))?;
        Ok(Self { directory, sealed, used, resources })
    }

    fn use_now(&self, identity: &Identity) {
        self.used.lock().insert(*identity);
    }

    fn path(&self, identity: &Identity, ending: &str) -> PathBuf {
        let form = if self.sealed { "sealed." } else { "" };
        self.directory.join(format!("{}.{form}{ending}", Digest::from_sha256(*identity).hex()))
    }

    /// Resources for building and reading indexes.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// The path to write a layer to.
    pub fn draft(&self, identity: &Identity) -> PathBuf {
        self.path(identity, "part")
    }

    /// Finds a layer packed earlier. Blocks: hashes all of it.
    pub fn find(&self, identity: &Identity) -> Result<Option<Ready>, Error> {
        let Ok(account) = fs::read(self.path(identity, "json")) else { return Ok(None) };
        let Some(ready) = self.read(identity, &account) else { return Ok(None) };
        let holds = |path: &Path, digest: &Digest, size: u64| match holds(path, digest, size) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map_err(|error| disk::failed("reading", path, error)),
        };
        let mut whole = holds(&ready.path, &ready.blob.0, ready.blob.1)?;
        if let Some((digest, size, path)) = &ready.attached_index {
            whole = whole && holds(path, digest, *size)?;
        }
        if whole {
            self.use_now(identity);
        }
        Ok(whole.then_some(ready))
    }

    fn read(&self, identity: &Identity, account: &[u8]) -> Option<Ready> {
        let account: Account = serde_json::from_slice(account).ok()?;
        let attached_index = match account.index {
            Some((digest, size)) => Some((Digest::parse(&digest).ok()?, size, self.path(identity, "index"))),
            None => None,
        };
        Some(Ready {
            blob: (Digest::parse(&account.blob).ok()?, account.size),
            diff_id: Digest::parse(&account.diff_id).ok()?,
            path: self.path(identity, "blob"),
            attached_index,
            room: None,
            sealed: None,
        })
    }

    /// Keeps a layer whose draft is complete, or one that is a file elsewhere. `blob` describes the file; the index is attached if `with_index`.
    pub fn keep(
        &self,
        identity: &Identity,
        packed: &Packed,
        blob: (Digest, u64),
        with_index: bool,
        in_place: Option<PathBuf>,
    ) -> Result<Ready, Error> {
        let is_here = in_place.is_none();
        let path = in_place.unwrap_or_else(|| self.path(identity, "blob"));
        if is_here {
            fs::rename(self.draft(identity), &path).map_err(|error| disk::failed("renaming", &path, error))?;
        }
        let index = match layer::encode_attached(&packed.index, &self.resources.scratch) {
            _ if !with_index => None,
            Ok(bytes) => {
                let path = self.path(identity, "index");
                fs::write(&path, &bytes).map_err(|error| disk::failed("writing", &path, error))?;
                Some((Digest::of(&bytes), bytes.len() as u64, path))
            }
            // Readers build their own.
            Err(error) if error.kind == crate::error::ErrorKind::Unsupported => {
                tracing::warn!("{error}");
                None
            }
            Err(error) => return Err(disk::full(error)),
        };
        self.use_now(identity);
        if !is_here {
            // Not recorded: only this push knows that the file is unchanged.
            return Ok(Ready { blob, diff_id: packed.stream.0, path, attached_index: index, room: None, sealed: None });
        }
        let account = Account {
            blob: blob.0.to_string(),
            size: blob.1,
            diff_id: packed.stream.0.to_string(),
            index: index.as_ref().map(|(digest, size, _)| (digest.to_string(), *size)),
        };
        let text = serde_json::to_vec(&account).map_err(|error| Error::other(format!("describing a packed layer: {error}")))?;
        let file = self.path(identity, "json");
        durable::replace(&file, &[&text]).map_err(|error| disk::failed("writing", &file, error))?;
        Ok(Ready { blob, diff_id: packed.stream.0, path, attached_index: index, room: None, sealed: None })
    }
}

/// Removes layers that a publish did not use, and incomplete ones. Blocks.
pub(in crate::publish) fn prune(directory: &Path, used: &Used) -> io::Result<()> {
    let kept: HashSet<String> = used.lock().iter().map(|identity| Digest::from_sha256(*identity).hex()).collect();
    let entries = match fs::read_dir(directory) {
        // Nothing was packed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_kept = name.split('.').next().is_some_and(|stem| kept.contains(stem)) && !name.ends_with(".part");
        if !is_kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Ready {
    /// The layer's index. Blocks.
    pub fn index(&self, resources: &Resources) -> Result<Option<LayerIndex>, Error> {
        let Some((_, _, path)) = &self.attached_index else { return Ok(None) };
        let mut bytes = Array::new(&resources.scratch);
        File::open(path).and_then(|mut file| io::copy(&mut file, &mut bytes)).map_err(|error| disk::failed("reading", path, error))?;
        Ok(Some(layer::decode_attached(&bytes, &self.blob.0, resources).map_err(disk::full)?))
    }
}

fn holds(path: &Path, digest: &Digest, size: u64) -> io::Result<bool> {
    let file = File::open(path)?;
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut piece, offset)?;
        if read == 0 {
            return Ok(hasher.finish() == *digest);
        }
        hasher.update(piece.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}

/// A file as an upload source.
pub(in crate::publish) fn file_source(path: &Path, length: u64) -> Result<FileSource, Error> {
    let file = File::open(path).map_err(|error| disk::failed("opening", path, error))?;
    Ok(FileSource::new(file, length))
}
