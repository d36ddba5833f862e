//! An OCI image layout, read and written in place: a directory, or an archive of one.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>. One layout is one repository, so the repository that callers
//! pass is ignored. Manifests are hashed; blobs are verified by their readers, like those of a registry. No path and no symlink ever leads out
//! of the directory. Others may change the directory at any time: `index.json` is reread when it changes.
//!
//! # Files
//!
//! - `place` is a `directory` or an `archive`; `slice`, `local` and `blobs` read its files
//! - `names` reads `index.json`, `entries` edits it, `referrers` finds manifests by subject, `push` writes, `sweep` removes, `hosting` is the
//!   store of `serve`

mod archive;
mod blobs;
mod directory;
mod entries;
mod hosting;
mod local;
mod names;
mod place;
mod push;
mod referrers;
mod slice;
mod sweep;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

pub use self::hosting::{Collected, layout_directory};

use self::archive::Archive;
use self::blobs::Blobs;
use self::directory::Directory;
use self::local::{INDEX, INDEX_LIMIT, MARKER, local};
use self::names::NamedEntries;
use self::place::{Place, Stamp};
use self::referrers::Untagged;
use super::{BlobStream, Page, Pull, Resolved, Trust};
use crate::blocking::blocking;
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, LayoutForm, LayoutPlace, Manifest, Repository, Tag, Version};

/// An OCI image layout: a directory or an archive.
pub struct Layout {
    origin: String,
    blobs: Arc<Blobs>,
    /// The parsed `index.json` and its stamp. Never held across an await.
    names: Mutex<Option<(Stamp, Arc<NamedEntries>)>>,
    /// Locked while manifests are read, on blocking threads only.
    untagged: Arc<Mutex<Untagged>>,
}

impl Layout {
    /// Opens a layout directory; resolves relative paths once and for all.
    ///
    /// # Errors
    /// `NotFound` if the directory does not exist, `Invalid` if it is not a version 1 layout.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let shown = directory.display().to_string();
        let canonical = directory.canonicalize().map_err(|error| local(&shown, &error))?;
        if !canonical.is_dir() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} is not a directory", shown.escape_debug())));
        }
        let opened = Directory::new(canonical.clone());
        opened.root().map_err(|error| local(&shown, &error))?;
        let layout = Self::at(&canonical, Place::Directory(opened), None);
        layout.check(&shown)?;
        Ok(layout)
    }

    /// Opens an archive of a layout for reading.
    ///
    /// # Errors
    /// `NotFound` if the file does not exist, `Invalid` if it is not a version 1 OCI archive.
    pub fn open_archive(file: &Path) -> Result<Self, Error> {
        let shown = file.display().to_string();
        let canonical = file.canonicalize().map_err(|error| local(&shown, &error))?;
        let archive = Archive::open_file(canonical.clone()).map_err(|error| not_archive(&shown, &error))?;
        Self::of_archive(&canonical, archive, &shown)
    }

    /// Opens an archive to add to it, or a path for a new one. Writes become visible with [`Push::finish`](super::Push::finish). Blocks while
    /// it examines what a stopped command left.
    ///
    /// # Errors
    /// `Invalid` if something else is at the path, `Conflict` while another process writes the archive.
    pub fn open_or_begin_archive(file: &Path) -> Result<Self, Error> {
        let shown = file.display().to_string();
        let exists = file.symlink_metadata().is_ok();
        let canonical = if exists { file.canonicalize().map_err(|error| local(&shown, &error))? } else { in_existing(file)? };
        let archive = Archive::open_or_begin(canonical.clone()).map_err(|error| not_archive(&shown, &error))?;
        match exists {
            true => Self::of_archive(&canonical, archive, &shown),
            false => Ok(Self::at(&canonical, Place::Archive(archive), None)),
        }
    }

    fn of_archive(canonical: &Path, archive: Archive, shown: &str) -> Result<Self, Error> {
        if !archive.has(MARKER) && archive.has("manifest.json") {
            let shown = shown.escape_debug();
            let how = format!("convert it with `skopeo copy docker-archive:{shown} oci-archive:FILE`");
            return Err(Error::new(ErrorKind::Invalid, format!("{shown} is a Docker archive, not an OCI archive; {how}")));
        }
        let layout = Self::at(canonical, Place::Archive(archive), None);
        layout.check(shown)?;
        Ok(layout)
    }

    /// Checks for the files that every layout has.
    fn check(&self, shown: &str) -> Result<(), Error> {
        let lacks = |name: &str| {
            Error::new(ErrorKind::Invalid, format!("{} is not an OCI image layout: it has no file `{name}`", shown.escape_debug()))
        };
        if !self.marked(shown)? {
            return Err(lacks(MARKER));
        }
        self.blobs.stamp(Path::new(INDEX)).map_err(|error| match error.kind {
            ErrorKind::NotFound => lacks(INDEX),
            _ => error,
        })?;
        self.blobs.set_begun();
        Ok(())
    }

    /// Opens a layout directory, or a path where the first push creates one: a missing or empty directory. Until then it is a layout without
    /// tags, and nothing is written.
    ///
    /// # Errors
    /// `NotFound` if the parent directory does not exist, `Invalid` if something else is at the path.
    pub fn open_or_begin(directory: &Path) -> Result<Self, Error> {
        Self::begin(directory, None)
    }

    /// The same, called `name` in the errors of its operations: where a server keeps its repositories is not for clients. The errors of
    /// opening it do name the directory.
    ///
    /// # Errors
    /// As [`Layout::open_or_begin`].
    pub fn open_or_begin_as(directory: &Path, name: &str) -> Result<Self, Error> {
        Self::begin(directory, Some(name))
    }

    fn begin(directory: &Path, name: Option<&str>) -> Result<Self, Error> {
        let shown = directory.display().to_string();
        let canonical = match directory.canonicalize() {
            Ok(canonical) => canonical,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match directory.symlink_metadata() {
                Err(_) => {
                    let canonical = in_existing(directory)?;
                    return Ok(Self::at(&canonical, Place::Directory(Directory::new(canonical.clone())), name));
                }
                Ok(metadata) if metadata.is_symlink() => return Err(local(&shown, &error)),
                // Another writer created it just now.
                Ok(_) => return Self::begin(directory, name),
            },
            Err(error) => return Err(local(&shown, &error)),
        };
        if !canonical.is_dir() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} is not a directory", shown.escape_debug())));
        }
        let opened = Directory::new(canonical.clone());
        let names = opened.names().map_err(|error| local(&shown, &error))?;
        let layout = Self::at(&canonical, Place::Directory(opened), name);
        let is_layout = layout.marked(&shown)? || names.iter().any(|name| name == INDEX);
        if !is_layout && !names.is_empty() {
            let message = format!("{} is not an OCI image layout, and is not empty", shown.escape_debug());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(layout)
    }

    fn at(canonical: &Path, place: Place, name: Option<&str>) -> Self {
        let form = match &place {
            Place::Directory(_) => LayoutForm::Directory,
            Place::Archive(_) => LayoutForm::Archive,
        };
        let origin = LayoutPlace { form, path: canonical.to_path_buf() }.to_string();
        let blobs = Arc::new(Blobs::new(place, name.unwrap_or(&origin).to_owned()));
        Self { blobs, origin, names: Mutex::new(None), untagged: Arc::default() }
    }

    /// Whether the file `oci-layout` exists; it must then name version 1.
    fn marked(&self, shown: &str) -> Result<bool, Error> {
        let marker = match self.blobs.small(Path::new(MARKER), 64 << 10) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let version = serde_json::from_slice::<serde_json::Value>(&marker.1).ok();
        let version = version.as_ref().and_then(|value| value.get("imageLayoutVersion")).and_then(|version| version.as_str());
        if !version.is_some_and(|version| version.starts_with("1.")) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} is not a version 1 OCI image layout: its `oci-layout` file does not say so", shown.escape_debug()),
            ));
        }
        Ok(true)
    }

    /// A placeholder repository name for layouts.
    ///
    /// # Errors
    /// None in practice; the name follows the grammar.
    pub fn repository() -> Result<Repository, Error> {
        Repository::parse("layout").map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
    }

    fn names(&self) -> Result<Arc<NamedEntries>, Error> {
        let path = Path::new(INDEX);
        // A layout that is being replaced or was removed says nothing about its content.
        let away = |error: Error| match error.kind {
            ErrorKind::NotFound => Error::new(ErrorKind::Unreachable, error.message),
            _ => error,
        };
        let stamp = match self.blobs.stamp(path) {
            Err(error) if error.kind == ErrorKind::NotFound && !self.blobs.has_begun() => return Ok(Arc::default()),
            other => other.map_err(away)?,
        };
        self.blobs.set_begun();
        let mut names = self.names.lock();
        if let Some((known, names)) = names.as_ref()
            && *known == stamp
        {
            return Ok(Arc::clone(names));
        }
        let (stamp, raw) = self.blobs.small(path, INDEX_LIMIT).map_err(away)?;
        let parsed = Arc::new(NamedEntries::parse(&raw, self.blobs.name())?);
        *names = Some((stamp, Arc::clone(&parsed)));
        Ok(parsed)
    }

    /// The entry of `index.json` for a tag.
    fn tagged(&self, tag: &Tag) -> Result<Descriptor, Error> {
        let names = self.names()?;
        let found = names.tags.get(tag.as_str()).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("tag {tag} does not exist in {}", self.blobs.name())))
    }
}

/// A path to create in an existing directory.
fn in_existing(path: &Path) -> Result<PathBuf, Error> {
    let parent = durable::directory_of(path);
    let canonical = parent.canonicalize().map_err(|error| local(&parent.display().to_string(), &error))?;
    let name = path.file_name().ok_or_else(|| {
        let shown = path.display().to_string();
        Error::new(ErrorKind::Invalid, format!("{} has no file name", shown.escape_debug()))
    })?;
    Ok(canonical.join(name))
}

/// Explains why a file cannot be read as an archive.
fn not_archive(shown: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Invalid, format!("{} is not an OCI archive: {}", shown.escape_debug(), error.to_string().escape_debug()))
        }
        _ => local(shown, error),
    }
}

#[async_trait]
impl Pull for Layout {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn trust(&self) -> Trust {
        Trust::Digest
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn ping(&self, _about: Option<&Repository>) -> Result<(), Error> {
        self.names().map(drop)
    }

    async fn resolve(&self, _repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        match version {
            Version::Tag(tag) => {
                let entry = self.tagged(tag)?;
                Ok(Resolved { digest: entry.digest, media_type: Some(entry.media_type), size: Some(entry.size) })
            }
            Version::Digest(digest) => {
                let stamp = self.blobs.stamp(&blobs::path(digest))?;
                Ok(Resolved { digest: *digest, media_type: None, size: Some(stamp.size) })
            }
        }
    }

    async fn manifest(&self, _repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        let digest = match version {
            Version::Tag(tag) => self.tagged(tag)?.digest,
            Version::Digest(digest) => *digest,
        };
        self.blobs.manifest(&digest)
    }

    async fn blob(&self, _repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        if range.start > range.end || range.end > descriptor.size {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("blob {}: bytes {range:?} are outside its {} bytes", descriptor.digest, descriptor.size),
            ));
        }
        let slice = self.blobs.blob(descriptor)?;
        Ok(blobs::stream(slice, descriptor.digest, range))
    }

    async fn blob_size(&self, _repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        Ok(self.blobs.stamp(&blobs::path(digest))?.size)
    }

    async fn tags(&self, _repository: &Repository, _after: Option<&str>) -> Result<Page, Error> {
        Ok(Page { names: self.names()?.tags.keys().cloned().collect(), next: None })
    }

    async fn repositories(&self, _after: Option<&str>) -> Result<Page, Error> {
        Err(Error::new(ErrorKind::Unsupported, format!("{} is a single repository and has no catalog", self.blobs.name())))
    }

    async fn referrers(&self, _repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let (names, blobs, untagged, subject) = (self.names()?, Arc::clone(&self.blobs), Arc::clone(&self.untagged), *subject);
        blocking(move || blobs.referrers(&names, &subject, &untagged)).await
    }

    async fn odd_names(&self, _repository: &Repository) -> Result<Vec<(String, Descriptor)>, Error> {
        Ok(self.names()?.odd.clone())
    }
}

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod tests;
