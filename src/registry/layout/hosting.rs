//! A layout as a registry's store: blobs are hard-linked in, manifests put under several tags at once, deletes break nothing.
//!
//! Unlike in a single-user layout, a delete does not cascade: others may be about to refer to the rest. Unreferenced content is collected
//! later, once it is old enough.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Layout;
use super::blobs::{self, Blobs};
use super::entries::{self, Entries};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Digest, Manifest, Tag};

/// The result of a garbage collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Untagged manifests.
    pub manifests: u64,
    /// Other blobs.
    pub blobs: u64,
}

impl Layout {
    /// Whether anything was ever stored here.
    pub fn has_begun(&self) -> bool {
        self.names().is_ok() && self.blobs.has_begun()
    }

    /// Opens a blob, unverified, with its size.
    ///
    /// # Errors
    /// NotFound if it does not exist.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let path = blobs::path(digest);
        let opened = self.blobs.directory()?.open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        opened.map_err(|error| self.blobs.failed(&path, &error))
    }

    /// Adds a file as a blob by a hard link, durably. Its bytes must be on disk and match the digest. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn adopt_blob(&self, digest: &Digest, file: &Path) -> Result<(), Error> {
        self.blobs.begin()?;
        let path = blobs::path(digest);
        self.blobs.directory()?.link(file, &path).map_err(|error| self.blobs.failed(&path, &error))
    }

    /// Puts a manifest under all tags at once, or under none. If it needs a digest that is missing here, returns that digest and puts nothing.
    /// A tag's previous manifest is kept, untagged.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn accept_manifest(&self, manifest: Manifest, tags: Vec<Tag>) -> Result<Option<Digest>, Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            if let Some(missing) = blobs.lacks(&manifest)? {
                return Ok(Some(missing));
            }
            blobs.store(&manifest)?;
            let mut missing = None;
            blobs.edit(|entries| {
                // Check again under the lock, where nothing is removed meanwhile.
                missing = blobs.lacks(&manifest)?;
                if missing.is_none() {
                    put(entries, &manifest, &tags);
                }
                Ok(())
            })?;
            Ok(missing)
        })
        .await
    }

    /// Removes a tag and nothing else.
    ///
    /// # Errors
    /// NotFound if there is no such tag.
    pub async fn remove_tag(&self, tag: Tag) -> Result<(), Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            blobs.edit(|entries| {
                let absent = || Error::new(ErrorKind::NotFound, format!("tag {tag} does not exist in {}", blobs.name()));
                let held = entries.entry(&tag).ok_or_else(absent)?;
                let digest = held.get("digest").and_then(|digest| Digest::parse(digest.as_str()?).ok()).ok_or_else(absent)?;
                entries.unname(&tag, &digest, blobs.name())?;
                stay(entries, held);
                Ok(())
            })
        })
        .await
    }

    /// Removes a manifest and its tags.
    ///
    /// # Errors
    /// NotFound if it does not exist, Conflict while it is a member of an index.
    pub async fn remove_manifest(&self, digest: Digest) -> Result<(), Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            let path = blobs::path(&digest);
            blobs
                .parsed(&digest)?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("manifest {digest} does not exist in {}", blobs.name())))?;
            blobs.edit_then(
                |entries| {
                    entries.forget(&digest, true);
                    match blobs.reached(entries.digests())?.contains(&digest) {
                        true => Err(Error::new(ErrorKind::Conflict, format!("manifest {digest} is a member of an index"))),
                        false => Ok(()),
                    }
                },
                |_, ()| blobs.directory()?.remove(&path).map_err(|error| blobs.failed(&path, &error)),
            )
        })
        .await
    }

    /// Removes unreferenced content older than `before`: blobs, and unless `keeps_untagged` also untagged manifests that are not a member of an
    /// index and do not refer to anything that stays.
    ///
    /// # Errors
    /// Those of the file system; also an unreadable manifest, in which case nothing is removed.
    pub async fn collect(&self, before: SystemTime, keeps_untagged: bool) -> Result<Collected, Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            let mut collected = Collected::default();
            blobs.edit_then(
                |entries| blobs.forget_unused(entries, before, keeps_untagged),
                |_, (kept, manifests)| {
                    collected = Collected { manifests, blobs: 0 };
                    let removed = blobs.remove_others(&kept, before)?;
                    collected.blobs = removed.saturating_sub(manifests);
                    Ok(())
                },
            )?;
            Ok(collected)
        })
        .await
    }
}

/// Names a manifest. The previous manifest of a tag stays, untagged.
fn put(entries: &mut Entries, manifest: &Manifest, tags: &[Tag]) {
    for tag in tags {
        let before = entries.entry(tag);
        entries.name(tag, manifest);
        if let Some(before) = before {
            stay(entries, before);
        }
    }
    // Readers of layouts find referrers among the unnamed entries.
    if tags.is_empty() || manifest.subject().is_some() {
        entries.keep(entries::plain(manifest));
    }
}

/// Keeps an entry without its name.
fn stay(entries: &mut Entries, mut entry: serde_json::Value) {
    let digest = entry.get("digest").and_then(|digest| Digest::parse(digest.as_str()?).ok());
    if let Some(members) = entry.as_object_mut() {
        members.remove("annotations");
    }
    if digest.is_some_and(|digest| !entries.holds(&digest)) {
        entries.keep(entry);
    }
}

impl Blobs {
    /// A digest that a manifest needs and the layout lacks. The subject and non-distributable layers may be missing.
    fn lacks(&self, manifest: &Manifest) -> Result<Option<Digest>, Error> {
        for member in manifest.index().into_iter().flat_map(|index| &index.manifests) {
            if !self.has(member)? {
                return Ok(Some(member.digest));
            }
        }
        self.missing(manifest, 0)
    }

    /// Drops the unreferenced unnamed entries; returns what the others reach, and how many were dropped.
    fn forget_unused(&self, entries: &mut Entries, before: SystemTime, keeps_untagged: bool) -> Result<(HashSet<Digest>, u64), Error> {
        let nameless = entries.nameless();
        let young = |digest: &Digest| keeps_untagged || !self.is_older(&blobs::path(digest), before);
        let named = entries.digests().into_iter().filter(|digest| !nameless.contains(digest) || young(digest));
        let mut kept = self.reached(named.collect())?;
        let mut open: Vec<Digest> = nameless.into_iter().filter(|digest| !kept.contains(digest)).collect();
        // Referrers of referrers stay too.
        loop {
            let mut rest = Vec::new();
            let before = open.len();
            for digest in open {
                let subject = self.parsed(&digest)?.and_then(|manifest| manifest.subject().map(|subject| subject.digest));
                match subject.is_some_and(|subject| kept.contains(&subject)) {
                    true => kept.extend(self.reached(vec![digest])?),
                    false => rest.push(digest),
                }
            }
            open = rest;
            if open.len() == before {
                break;
            }
        }
        for digest in &open {
            entries.forget(digest, false);
        }
        Ok((kept, open.len() as u64))
    }

    /// Removes the old blob files not in `kept`; returns how many.
    fn remove_others(&self, kept: &HashSet<Digest>, before: SystemTime) -> Result<u64, Error> {
        let mut removed = 0;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = Path::new("blobs").join(algorithm.name());
            for name in self.directory()?.names_below(&folder).map_err(|error| self.failed(&folder, &error))? {
                let text = name.to_string_lossy();
                let Ok(digest) = Digest::parse(&format!("{}:{text}", algorithm.name())) else { continue };
                let path = blobs::path(&digest);
                if !kept.contains(&digest) && self.is_older(&path, before) {
                    self.directory()?.remove(&path).map_err(|error| self.failed(&path, &error))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Whether a file was neither written nor linked since.
    fn is_older(&self, path: &Path, before: SystemTime) -> bool {
        let changed = self.open(path).and_then(|(slice, _)| slice.file.metadata().map_err(|error| self.failed(path, &error)));
        changed.is_ok_and(|metadata| {
            let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
            UNIX_EPOCH + Duration::from_secs(seconds) < before
        })
    }
}

/// The directory name of a repository's layout in a store: no repository name contains `+`.
pub fn layout_directory(store: &Path, repository: &crate::oci::Repository) -> PathBuf {
    store.join(repository.as_str().replace('/', "+"))
}
