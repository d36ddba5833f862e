//! Turns the items of a Pack file into local blobs: files are hashed, directories walked, remote files fetched.
//!
//! Fetched files are kept in a scratch directory. A file there with the SHA-256 in the Pack file is not fetched again.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};

use super::manifest::{Content, LayerFile, name_of, title_of};
use super::on_disk;
use super::pack_file::{PackItem, PackSource};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::registry::{BlobStream, Objects, WebFiles};

/// Bytes hashed at once.
const PIECE: usize = 1 << 20;
/// Deepest directory nesting, which ends symlink cycles.
const DEPTH: usize = 64;
/// Most files in a pack.
const FILES: usize = 100_000;

/// A local blob.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Its description as a layer.
    pub file: LayerFile,
    /// Path of its bytes.
    pub disk: PathBuf,
}

/// Reads the sources of a Pack file.
#[derive(Clone)]
pub struct Gatherer {
    /// Base of relative paths.
    pub base: PathBuf,
    /// Directory for fetched files.
    pub scratch: PathBuf,
    /// Web servers.
    pub web: WebFiles,
    /// S3.
    pub objects: Objects,
}

impl Gatherer {
    /// The layers of an item, in order; empty for an artifact.
    ///
    /// # Errors
    /// A file cannot be read or fetched, or has another SHA-256.
    pub async fn layers(&self, item: &PackItem) -> Result<Vec<Gathered>, Error> {
        match &item.source {
            PackSource::File(path) => {
                let (disk, wanted) = (self.base.join(path), item.sha256);
                let name = title_of(Path::new(path.file_name().unwrap_or_default()))?;
                let gathered = blocking(move || {
                    let content = hashed(&disk)?;
                    expect(&content, wanted, &disk.display().to_string())?;
                    let file = LayerFile { title: Some(name.clone()), name, directory: None, content };
                    Ok(Gathered { file, disk })
                });
                Ok(vec![gathered.await?])
            }
            PackSource::Directory(path) => {
                let (disk, written) = (self.base.join(path), title_of(path)?);
                blocking(move || directory(&disk, &written)).await
            }
            PackSource::Web(url) => Ok(vec![self.fetched(item, url, name_of(url)).await?]),
            PackSource::Object { key, .. } => Ok(vec![self.fetched(item, &format!("{:?}", item.source), name_of(key)).await?]),
            PackSource::Artifact(_) => Ok(Vec::new()),
        }
    }

    /// Opens a remote source.
    async fn open(&self, source: &PackSource) -> Result<BlobStream, Error> {
        Ok(match source {
            PackSource::Web(url) => self.web.open(url).await?,
            PackSource::Object { bucket, key, plain_http } => self.objects.open(bucket, key, *plain_http).await?,
            other => return Err(Error::new(ErrorKind::Other, format!("{other:?} is not a remote source"))),
        })
    }

    async fn fetched(&self, item: &PackItem, address: &str, name: &str) -> Result<Gathered, Error> {
        // Two addresses never share a file, whatever their last components.
        let disk = self.scratch.join(Digest::of(address.as_bytes()).hex());
        let gathered = |content| {
            let file = LayerFile { name: name.to_owned(), title: None, directory: None, content };
            Gathered { file, disk: disk.clone() }
        };
        if item.sha256.is_some() {
            let there = disk.clone();
            let known = blocking(move || if there.exists() { hashed(&there).map(Some) } else { Ok(None) }).await?;
            if let Some(content) = known.filter(|content| Some(content.digest) == item.sha256) {
                return Ok(gathered(content));
            }
        }
        let content = self.save(item, disk.clone()).await?;
        expect(&content, item.sha256, &name.escape_debug().to_string())?;
        Ok(gathered(content))
    }

    async fn save(&self, item: &PackItem, disk: PathBuf) -> Result<Content, Error> {
        let mut stream = self.open(&item.source).await?;
        let scratch = self.scratch.clone();
        let mut state = blocking(move || {
            std::fs::create_dir_all(&scratch).map_err(|error| on_disk("cannot create", &scratch, error))?;
            let file = File::create(&disk).map_err(|error| on_disk("cannot write", &disk, error))?;
            Ok((file, Hasher::new(Algorithm::Sha256), 0_u64, disk))
        })
        .await?;
        while let Some(piece) = stream.try_next().await? {
            let (mut file, mut hasher, size, disk) = state;
            state = blocking(move || {
                hasher.update(&piece);
                file.write_all(&piece).map_err(|error| on_disk("cannot write", &disk, error))?;
                Ok((file, hasher, size + piece.len() as u64, disk))
            })
            .await?;
        }
        Ok(Content { digest: state.1.finish(), size: state.2 })
    }
}

/// The layers of all items, reading `concurrency` items in parallel, in the order of the Pack file.
///
/// # Errors
/// The first failure, prefixed with its item.
pub async fn all(gatherer: &Arc<Gatherer>, items: &[PackItem], concurrency: usize) -> Result<Vec<Vec<Gathered>>, Error> {
    let items: Vec<(usize, PackItem)> = items.iter().cloned().enumerate().collect();
    let gathering = items.into_iter().map(|(number, item)| {
        let gatherer = Arc::clone(gatherer);
        async move { gatherer.layers(&item).await.map_err(|error| error.context(format_args!("item[{number}]"))) }
    });
    let all: Vec<Vec<Gathered>> = stream::iter(gathering).buffered(concurrency).try_collect().await?;
    if all.iter().map(Vec::len).sum::<usize>() > FILES {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("a pack of more than {FILES} files would exceed the manifest size that registries accept"),
        ));
    }
    Ok(all)
}

/// Digest and size of a file. Blocks.
///
/// # Errors
/// It cannot be read, or is not a file.
pub fn hashed(disk: &Path) -> Result<Content, Error> {
    let unreadable = |error: std::io::Error| on_disk("cannot read", disk, error);
    let metadata = std::fs::metadata(disk).map_err(unreadable)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "is a directory; use dir: to pack its files" } else { "is not a regular file" };
        return Err(Error::new(ErrorKind::Invalid, format!("{} {what}", super::shown(disk))));
    }
    let mut file = File::open(disk).map_err(unreadable)?;
    let (mut hasher, mut size, mut buffer) = (Hasher::new(Algorithm::Sha256), 0, vec![0; PIECE]);
    loop {
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            return Ok(Content { digest: hasher.finish(), size });
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        size += read as u64;
    }
}

/// The files below a directory, sorted by name; symlinks are followed. Blocks.
fn directory(disk: &Path, written: &str) -> Result<Vec<Gathered>, Error> {
    let metadata = std::fs::metadata(disk).map_err(|error| on_disk("cannot read", disk, error))?;
    if !metadata.is_dir() {
        return Err(Error::new(ErrorKind::Invalid, format!("{} is not a directory; use file: to pack a file", super::shown(disk))));
    }
    let mut walk = Walk { root: disk, files: Vec::new(), directories: 0 };
    walk.enter(Path::new(""), 0)?;
    let mut files = walk.files;
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let (title, disk) = (title_of(&path)?, disk.join(&path));
            let file = LayerFile { name: title.clone(), title: Some(title), directory: Some(written.to_owned()), content: hashed(&disk)? };
            Ok(Gathered { file, disk })
        })
        .collect()
}

struct Walk<'a> {
    root: &'a Path,
    files: Vec<PathBuf>,
    directories: usize,
}

impl Walk<'_> {
    fn enter(&mut self, below: &Path, depth: usize) -> Result<(), Error> {
        let place = self.root.join(below);
        self.directories += 1;
        if depth > DEPTH || self.files.len() + self.directories > FILES {
            let message = format!("{} is too deep or too large; is there a symlink cycle?", super::shown(&place));
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let unreadable = |error: std::io::Error| on_disk("cannot read", &place, error);
        for entry in std::fs::read_dir(&place).map_err(unreadable)? {
            let path = below.join(entry.map_err(unreadable)?.file_name());
            let disk = self.root.join(&path);
            match std::fs::metadata(&disk).map_err(|error| on_disk("cannot read", &disk, error))? {
                metadata if metadata.is_dir() => self.enter(&path, depth + 1)?,
                _ => self.files.push(path),
            }
        }
        Ok(())
    }
}

fn expect(content: &Content, wanted: Option<Digest>, name: &str) -> Result<(), Error> {
    match wanted {
        Some(wanted) if wanted != content.digest => {
            let message = format!("{name} has SHA-256 {}, but the Pack file requires {}", content.digest.hex(), wanted.hex());
            Err(Error::new(ErrorKind::Integrity, message))
        }
        _ => Ok(()),
    }
}
