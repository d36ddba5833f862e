//! Local files and directories as a snapshot to publish.
//!
//! Nothing is copied before it is packed: a file that changes meanwhile fails the publish, never mixes two states in an artifact. Symlinks are
//! published as links; only a path named by the user is followed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::artifact::{Kind, is_own_name};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::layer;
use crate::path::{below, is_within, join, order, parent, show};
use crate::publish::disk;
use crate::publish::plan::path_set::PathKey;
use crate::sys::attributes::{device_numbers, xattrs};
use crate::sys::beneath::{open_directory, open_file};
use crate::view::snapshot::{Snapshot, Walk};
use crate::view::{EntryContent, Reader, TreeEntry, ViewNode, hash_file};

/// Deepest nesting of directories.
const DEEPEST: usize = 4096;

/// A local path and its place in the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The local path.
    pub disk: PathBuf,
    /// Path in the artifact, `/` between names; empty for the artifact's root.
    pub path: Vec<u8>,
    /// Media type of its layer, if set by the user.
    pub media_type: Option<String>,
    /// Publish only its bytes: no mode, owner or time.
    pub bytes_only: bool,
}

/// Which file attributes to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) struct Keeping {
    /// Owner and group of all entries; the files' own if `None`.
    pub owner: Option<(u32, u32)>,
    /// Later times are clamped to this, in seconds since 1970.
    pub newest: Option<i64>,
    /// Whether further names of a file become hard links to the first; otherwise each is a file of its own.
    pub hard_links: bool,
}

/// Local files and directories.
pub(in crate::publish) struct DirectorySnapshot {
    /// In walk order; none is inside another.
    inputs: Vec<Input>,
    keeping: Keeping,
    /// Nodes of files with several names here, and the number of names.
    links: HashMap<(u64, u64), (ViewNode, u32)>,
    /// Digests computed so far, so that no file is hashed twice.
    hashes: Arc<Mutex<Hashes>>,
    /// The input whose file was opened last: the others do not stay open, for there may be more inputs than open files.
    last_opened: Mutex<Option<(PathBuf, Arc<File>)>>,
}

/// A path of the artifact, its local path, and its local metadata.
struct Found {
    path: Vec<u8>,
    disk: PathBuf,
    metadata: Metadata,
}

/// All inputs and everything below, in walk order, with one list of names per open directory.
struct OnDisk {
    inputs: std::vec::IntoIter<Input>,
    levels: Vec<(Vec<u8>, PathBuf, std::vec::IntoIter<OsString>)>,
}

/// Digests of files as they were.
type Hashes = HashMap<PathKey, (Stamp, [u8; 32])>;

/// Detects whether a file changed since it was hashed.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl DirectorySnapshot {
    /// Scans the inputs. Blocks on the disk.
    ///
    /// # Errors
    /// A path cannot be read, or two inputs map to the same path in the artifact.
    pub fn new(mut inputs: Vec<Input>, keeping: Keeping) -> Result<Self, Error> {
        inputs.sort_by(|one, other| order(&one.path, &other.path));
        for pair in inputs.windows(2) {
            if let [one, other] = pair
                && is_within(&other.path, &one.path)
            {
                let message = format!(
                    "{} and {} would both be `{}` in the artifact; push them as different paths",
                    one.disk.display(),
                    other.disk.display(),
                    show(&other.path)
                );
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
        let mut snapshot = Self { inputs, keeping, links: HashMap::new(), hashes: Arc::default(), last_opened: Mutex::default() };
        if keeping.hard_links {
            let mut names: HashMap<(u64, u64), u32> = HashMap::new();
            for found in snapshot.found() {
                let Found { metadata, .. } = found?;
                if !metadata.is_dir() && metadata.nlink() > 1 {
                    *names.entry((metadata.dev(), metadata.ino())).or_default() += 1;
                }
            }
            names.retain(|_, count| *count > 1);
            snapshot.links = (1..).zip(names).map(|(number, (file, count))| (file, (number, count))).collect();
        }
        Ok(snapshot)
    }

    /// Directories that exist only because an input is inside them, in walk order.
    pub fn implied(&self) -> Vec<Vec<u8>> {
        let mut implied: Vec<Vec<u8>> = Vec::new();
        if self.inputs.first().is_none_or(|input| !input.path.is_empty()) {
            implied.push(Vec::new());
        }
        for input in &self.inputs {
            let above = std::iter::successors(parent(&input.path), |path| parent(path));
            implied.extend(above.filter(|path| !path.is_empty()).map(<[u8]>::to_vec));
        }
        implied.sort_by(|one, other| order(one, other));
        implied.dedup();
        implied
    }

    /// All entries in walk order, without implied directories.
    fn found(&self) -> OnDisk {
        OnDisk { inputs: self.inputs.clone().into_iter(), levels: Vec::new() }
    }

    fn entry(&self, Found { path, disk, metadata }: Found) -> Result<TreeEntry, Error> {
        let (disk, metadata) = (disk.as_path(), &metadata);
        let kind = kind(metadata);
        let target = match kind {
            Kind::Symlink => {
                std::fs::read_link(disk).map_err(|error| unreadable("cannot read the link", disk, &error))?.into_os_string().into_vec()
            }
            _ => Vec::new(),
        };
        let known = self.links.get(&(metadata.dev(), metadata.ino())).filter(|_| kind != Kind::Directory);
        let xattrs = xattrs(disk).map_err(|error| unreadable("cannot read the extended attributes of", disk, &error))?;
        let time = (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default());
        let mtime = self.keeping.newest.map_or(time, |newest| time.min((newest, 0)));
        let mut entry = TreeEntry {
            path,
            node: known.map_or(0, |(number, _)| *number),
            kind,
            metadata: layer::Metadata {
                mode: Some(metadata.mode() & 0o7777),
                owner: Some(self.keeping.owner.unwrap_or((metadata.uid(), metadata.gid()))),
                mtime: Some(mtime),
                device: if kind.is_device() { device_numbers(metadata.rdev()) } else { (0, 0) },
            },
            size: if kind == Kind::File { metadata.len() } else { 0 },
            links: known.map_or(1, |(_, count)| *count),
            target,
            xattrs: xattrs.into_iter().filter(|(name, _)| is_kept(name)).collect(),
            content: if kind == Kind::File { EntryContent::Disk } else { EntryContent::None },
            sha256: None,
        };
        if kind == Kind::File {
            let hashes = self.hashes.lock();
            entry.sha256 = hashes.get(&PathKey::of(&entry.path)).filter(|(known, _)| *known == stamp(metadata)).map(|(_, sha256)| *sha256);
        }
        // Pushing the content of a directory does not publish the directory's own attributes.
        let is_bytes_only = |input: &Input| input.bytes_only && input.path == entry.path;
        if entry.path.is_empty() || self.containing(&entry.path).is_some_and(is_bytes_only) {
            (entry.metadata, entry.xattrs) = (layer::Metadata { device: entry.metadata.device, ..Default::default() }, Vec::new());
        }
        Ok(entry)
    }

    /// The input that contains a path.
    fn containing(&self, path: &[u8]) -> Option<&Input> {
        let behind = self.inputs.partition_point(|input| order(&input.path, path).is_le());
        self.inputs.get(behind.checked_sub(1)?).filter(|input| is_within(path, &input.path))
    }

    /// The input that contains a path, and the rest of the path.
    fn place<'path>(&self, path: &'path [u8]) -> Option<(&Input, &'path Path)> {
        let input = self.containing(path)?;
        let rest = below(path, &input.path)?;
        Some((input, Path::new(OsStr::from_bytes(rest))))
    }

    /// Opens the file of an entry; symlinks inside an input are not followed.
    fn file(&self, entry: &TreeEntry) -> Result<(PathBuf, File, Metadata), Error> {
        let no_file = || Error::new(ErrorKind::Invalid, "only a regular file has content");
        let place = self.place(&entry.path).filter(|_| matches!(entry.content, EntryContent::Disk));
        let (input, rest) = place.ok_or_else(no_file)?;
        let opened = match rest.as_os_str().is_empty() {
            true => File::open(&input.disk),
            false => self.directory(input).and_then(|directory| open_file(&directory, rest)),
        };
        let disk = beneath(input, rest);
        let file = opened.map_err(|error| unreadable("cannot open", &disk, &error))?;
        let metadata = file.metadata().map_err(|error| unreadable("cannot read", &disk, &error))?;
        if !metadata.is_file() || metadata.len() != entry.size {
            return Err(Error::new(ErrorKind::Busy, format!("{} changed while being published: push again", disk.display())));
        }
        Ok((disk, file, metadata))
    }

    fn directory(&self, input: &Input) -> io::Result<Arc<File>> {
        let mut last = self.last_opened.lock();
        if let Some((_, directory)) = last.as_ref().filter(|(disk, _)| *disk == input.disk) {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(open_directory(&input.disk)?);
        *last = Some((input.disk.clone(), Arc::clone(&directory)));
        Ok(directory)
    }

    /// Opens the file of an entry. The result computes its SHA-256 and blocks.
    fn hashing(&self, entry: &TreeEntry) -> Result<impl FnOnce() -> Result<[u8; 32], Error> + Send + use<>, Error> {
        let (disk, file, metadata) = self.file(entry)?;
        let (key, stamp, hashes) = (PathKey::of(&entry.path), stamp(&metadata), Arc::clone(&self.hashes));
        Ok(move || {
            let sha256 = hash_file(file).map_err(|error| disk::failed("cannot read", &disk, error))?;
            hashes.lock().insert(key, (stamp, sha256));
            Ok(sha256)
        })
    }
}

#[async_trait]
impl Snapshot for DirectorySnapshot {
    fn walk(self: Arc<Self>) -> Walk {
        let mut implied = self.implied().into_iter().peekable();
        let mut on_disk = self.found().peekable();
        Box::new(std::iter::from_fn(move || {
            let is_due = |above: &Vec<u8>| match on_disk.peek() {
                Some(Ok(found)) => order(above, &found.path).is_lt(),
                Some(Err(_)) => false,
                None => true,
            };
            if let Some(above) = implied.next_if(is_due) {
                return Some(Ok(TreeEntry::directory(above, None)));
            }
            on_disk.next().map(|found| self.entry(found?))
        }))
    }

    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        if let Some(sha256) = entry.sha256 {
            return Ok(sha256);
        }
        blocking(self.hashing(entry)?).await
    }

    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error> {
        let (_, file, _) = self.file(entry)?;
        Ok(Reader::of_file(entry.size, file))
    }

    fn sha256_here(&self, entries: &[&TreeEntry]) -> Result<Vec<Option<[u8; 32]>>, Error> {
        entries.iter().map(|entry| self.hashing(entry)?().map(Some)).collect()
    }

    fn bytes_here(&self, entry: &TreeEntry) -> Result<Option<Bytes>, Error> {
        let (disk, file, _) = self.file(entry)?;
        // One byte more shows that it grew. The size is that of the open file, and small.
        let mut bytes = Vec::with_capacity(usize::try_from(entry.size).unwrap_or_default() + 1);
        file.take(entry.size + 1).read_to_end(&mut bytes).map_err(|error| disk::failed("cannot read", &disk, error))?;
        Ok(Some(bytes.into()))
    }

    fn on_disk(&self, path: &[u8]) -> Option<PathBuf> {
        self.place(path).map(|(input, rest)| beneath(input, rest))
    }
}

/// The local path of a path within an input.
fn beneath(input: &Input, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { input.disk.clone() } else { input.disk.join(rest) }
}

impl Iterator for OnDisk {
    type Item = Result<Found, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((path, disk, names)) = self.levels.last_mut() {
            if let Some(name) = names.next() {
                let (path, disk) = (join(path, name.as_bytes()), disk.join(&name));
                let metadata = std::fs::symlink_metadata(&disk);
                return Some(self.enter(path, disk, metadata));
            }
            self.levels.pop();
        }
        let input = self.inputs.next()?;
        let metadata = std::fs::metadata(&input.disk);
        Some(self.enter(input.path, input.disk, metadata))
    }
}

impl OnDisk {
    /// Returns a path, and queues its children if it is a directory.
    fn enter(&mut self, path: Vec<u8>, disk: PathBuf, metadata: io::Result<Metadata>) -> Result<Found, Error> {
        let metadata = metadata.map_err(|error| unreadable("cannot read", &disk, &error))?;
        if metadata.is_dir() {
            if self.levels.len() >= DEEPEST {
                return Err(Error::new(ErrorKind::Invalid, format!("{}: directories are nested too deeply", disk.display())));
            }
            self.levels.push((path.clone(), disk.clone(), names(&disk)?.into_iter()));
        }
        Ok(Found { path, disk, metadata })
    }
}

/// The names in a directory in byte order.
fn names(directory: &Path) -> Result<Vec<OsString>, Error> {
    let failed = |error: io::Error| unreadable("cannot read the directory", directory, &error);
    let found = std::fs::read_dir(directory).map_err(failed)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = found.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    names.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    Ok(names)
}

fn kind(metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => Kind::Directory,
        () if kind.is_symlink() => Kind::Symlink,
        () if kind.is_fifo() => Kind::Fifo,
        () if kind.is_socket() => Kind::Socket,
        () if kind.is_block_device() => Kind::BlockDevice,
        () if kind.is_char_device() => Kind::CharDevice,
        () => Kind::File,
    }
}

/// Whether an extended attribute is meaningful on another machine.
fn is_kept(name: &[u8]) -> bool {
    (name.starts_with(b"user.") || name == b"security.capability") && !is_own_name(name)
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
}

/// A disk error at a path.
pub(in crate::publish) fn unreadable(doing: &str, path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::NotPermitted,
        _ => ErrorKind::Other,
    };
    Error::new(kind, format!("{doing} {}: {error}", path.display()))
}
