//! A layout as the store of a registry: blobs that are linked in, manifests under several tags at once, deletes that break nothing.
//!
//! Unlike a layout that one user writes, nothing goes along with what is deleted: others may be about to refer to it. What nothing
//! refers to is collected later, once it is old enough.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::Pull;
use super::Layout;
use super::blobs::{self, Blobs};
use super::entries::{self, Entries};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, Tag};

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests without a tag.
    pub manifests: u64,
    /// Other blobs.
    pub blobs: u64,
}

impl Layout {
    /// Whether anything was ever put here.
    pub fn has_begun(&self) -> bool {
        self.names().is_ok() && self.blobs.has_begun()
    }

    /// Opens a blob, unchecked, with its size.
    ///
    /// # Errors
    /// NotFound if there is none.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let path = blobs::path(digest);
        let opened = self.blobs.directory()?.open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        opened.map_err(|error| self.blobs.failed(&path, &error))
    }

    /// Takes a file over as a blob, by a hard link, durably. Its bytes must be on disk and have the digest. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn adopt_blob(&self, digest: &Digest, file: &Path) -> Result<(), Error> {
        self.blobs.begin()?;
        let path = blobs::path(digest);
        self.blobs.directory()?.link(file, &path).map_err(|error| self.blobs.failed(&path, &error))
    }

    /// Puts a manifest under all of the tags at once, or under none, and answers a digest that it needs and that is not here, if there
    /// is any; then nothing is put. What held a tag before stays, without it.
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
                // Once more where nothing is removed meanwhile.
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

    /// The manifests that refer to a digest. Those without a type of their own have that of their config, as the distribution
    /// specification wants it in this list.
    ///
    /// # Errors
    /// Those of [`Pull::referrers`].
    pub async fn referring(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let mut found = self.referrers(&Self::repository()?, subject).await?;
        for referrer in found.iter_mut().filter(|referrer| referrer.artifact_type.is_none()) {
            let manifest = self.blobs.parsed(&referrer.digest)?;
            referrer.artifact_type = manifest.as_ref().and_then(Manifest::image).map(|image| image.config.media_type.clone());
        }
        Ok(found)
    }

    /// Removes a tag, and nothing else.
    ///
    /// # Errors
    /// NotFound if there is no such tag.
    pub async fn remove_tag(&self, tag: Tag) -> Result<(), Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            blobs.edit(|entries| {
                let absent = || Error::new(ErrorKind::NotFound, format!("tag {tag} does not exist in {}", blobs.origin()));
                let held = entries.entry(&tag).ok_or_else(absent)?;
                let digest = held.get("digest").and_then(|digest| Digest::parse(digest.as_str()?).ok()).ok_or_else(absent)?;
                entries.unname(&tag, &digest, blobs.origin())?;
                stay(entries, held);
                Ok(())
            })
        })
        .await
    }

    /// Removes a manifest with its tags.
    ///
    /// # Errors
    /// NotFound if there is none, Conflict while an index has it as a member.
    pub async fn remove_manifest(&self, digest: Digest) -> Result<(), Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            let path = blobs::path(&digest);
            blobs
                .parsed(&digest)?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("manifest {digest} does not exist in {}", blobs.origin())))?;
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

    /// Removes what nothing refers to and what is older than `before`: blobs, and unless `keeps_untagged` manifests without a tag that
    /// are no member of an index and refer to nothing that stays.
    ///
    /// # Errors
    /// Those of the file system, and a manifest that cannot be read: then nothing is removed.
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

/// Names a manifest. What held one of the tags stays without it.
fn put(entries: &mut Entries, manifest: &Manifest, tags: &[Tag]) {
    for tag in tags {
        let before = entries.entry(tag);
        entries.name(tag, manifest);
        if let Some(before) = before {
            stay(entries, before);
        }
    }
    // Readers of layouts find referrers among the entries without a name.
    if tags.is_empty() || manifest.subject().is_some() {
        entries.keep(entries::plain(manifest));
    }
}

/// Keeps an entry that lost its name.
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
    /// What a manifest needs and the layout lacks. A subject may be missing, and layers that lie elsewhere by their media type.
    fn lacks(&self, manifest: &Manifest) -> Result<Option<Digest>, Error> {
        for member in manifest.index().into_iter().flat_map(|index| &index.manifests) {
            if !self.has(member)? {
                return Ok(Some(member.digest));
            }
        }
        self.missing(manifest, 0)
    }

    /// Drops the entries without a name that nothing refers to; what the others reach, and how many were dropped.
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

    /// Removes the old files of blobs that are not among `kept`; how many.
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

/// The name of a repository's layout in a directory of many: no name holds a `+`.
pub fn layout_directory(store: &Path, repository: &crate::oci::Repository) -> PathBuf {
    store.join(repository.as_str().replace('/', "+"))
}
