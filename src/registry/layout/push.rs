//! Writing into a layout: blobs as files, tags as entries of `index.json`, which is replaced whole under a lock.
//!
//! Acknowledged writes survive a power cut. A manifest is put only if its blobs are there. Nothing is removed except what is deleted and
//! what only that needed (see `sweep`).

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::super::{Push, TagDeletion, UploadSource, Uploaded};
use super::Layout;
use super::blobs::{self, Blobs};
use super::entries::{self, Entries};
use super::local::{INDEX, INDEX_LIMIT, MARKER, local};
use super::place::Incoming;
use super::sweep::Tags;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Hasher, Manifest, Repository, Tag, Version, media_type};

/// How deep nested indexes are examined.
const DEPTH: usize = 4;
/// Bytes read and written at once.
const PIECE: usize = 4 << 20;

impl Blobs {
    /// Creates the files that every layout has, if missing.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let marker = json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes();
        for (name, content) in [(MARKER, marker), (INDEX, Entries::none().bytes())] {
            match self.stamp(Path::new(name)) {
                Err(error) if error.kind == ErrorKind::NotFound => {}
                other => {
                    other?;
                    continue;
                }
            }
            self.place().put(Path::new(name), &content, false).map_err(|error| self.failed(Path::new(name), &error))?;
        }
        self.set_begun();
        Ok(())
    }

    /// Changes `index.json` under the lock.
    pub(super) fn edit(&self, change: impl FnOnce(&mut Entries) -> Result<(), Error>) -> Result<(), Error> {
        self.edit_then(change, |_, ()| Ok(()))
    }

    /// The same, followed by more work before the lock is released.
    pub(super) fn edit_then<T>(
        &self,
        change: impl FnOnce(&mut Entries) -> Result<T, Error>,
        then: impl FnOnce(&Entries, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.begin()?;
        let path = Path::new(INDEX);
        let failed = |error: std::io::Error| self.failed(path, &error);
        let _lock = self.place().lock().map_err(failed)?;
        let (_, before) = self.small(path, INDEX_LIMIT)?;
        let mut entries = Entries::parse(&before, self.name())?;
        let changed = change(&mut entries)?;
        let after = entries.bytes();
        if after.len() as u64 > INDEX_LIMIT {
            let message = format!("{}/{INDEX} would become larger than {} MiB", self.name(), INDEX_LIMIT >> 20);
            return Err(Error::new(ErrorKind::NoSpace, message));
        }
        if after != before {
            self.place().put(path, &after, true).map_err(failed)?;
        }
        then(&entries, changed)
    }

    /// Stores a manifest as a blob.
    pub(super) fn store(&self, manifest: &Manifest) -> Result<(), Error> {
        self.begin()?;
        let path = blobs::path(&manifest.digest);
        self.place().put(&path, &manifest.raw, true).map_err(|error| self.failed(&path, &error))
    }

    /// Whether a file with this digest and size exists.
    pub(super) fn has(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        match self.stamp(&blobs::path(&descriptor.digest)) {
            Ok(stamp) => Ok(stamp.size == descriptor.size),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A blob that a manifest, or a member of it stored here, needs and the layout lacks.
    pub(super) fn missing(&self, manifest: &Manifest, depth: usize) -> Result<Option<Digest>, Error> {
        for member in manifest.index().into_iter().flat_map(|index| &index.manifests).filter(|_| depth > 0) {
            // A member that is not a manifest or not here is not our concern.
            let Ok(Some(member)) = self.parsed(&member.digest) else { continue };
            if let Some(missing) = self.missing(&member, depth - 1)? {
                return Ok(Some(missing));
            }
        }
        let Some(image) = manifest.image() else { return Ok(None) };
        for blob in image.layers.iter().filter(|layer| !media_type::is_elsewhere(&layer.media_type)).chain([&image.config]) {
            if !self.has(blob)? {
                return Ok(Some(blob.digest));
            }
        }
        Ok(None)
    }
}

impl Layout {
    /// Reads an upload into a temporary file, hashing it on the way.
    async fn receive(&self, blob: &Descriptor, source: &dyn UploadSource, uploaded: &Uploaded) -> Result<(Incoming, Hasher, u64), Error> {
        let (blobs, digest, size) = (Arc::clone(&self.blobs), blob.digest, blob.size);
        let mut incoming = blocking(move || {
            blobs.begin()?;
            let path = blobs::path(&digest);
            let incoming = blobs.place().receive(&path, size).map_err(|error| blobs.failed(&path, &error))?;
            Ok((incoming, Hasher::new(digest.algorithm())))
        })
        .await?;
        let mut offset = 0;
        while offset < source.length() {
            let piece = source.read(offset, PIECE).await;
            let piece = piece.map_err(|error| Error::new(ErrorKind::Other, format!("cannot read blob {digest} to store it: {error}")))?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            let blobs = Arc::clone(&self.blobs);
            let (mut file, mut hasher) = incoming;
            incoming = blocking(move || {
                hasher.update(&piece);
                file.write(&piece).map_err(|error| blobs.failed(&blobs::path(&digest), &error))?;
                Ok((file, hasher))
            })
            .await?;
            uploaded(offset);
        }
        Ok((incoming.0, incoming.1, offset))
    }
}

#[async_trait]
impl Push for Layout {
    async fn has_blob(&self, _repository: &Repository, descriptor: &Descriptor) -> Result<bool, Error> {
        self.blobs.has(descriptor)
    }

    /// A layout is one repository, so a blob it has needs no mount.
    async fn mount_blob(&self, _repository: &Repository, descriptor: &Descriptor, _from: &Repository) -> Result<bool, Error> {
        self.blobs.has(descriptor)
    }

    async fn push_blob(
        &self,
        _repository: &Repository,
        descriptor: &Descriptor,
        source: Arc<dyn UploadSource>,
        uploaded: Uploaded,
    ) -> Result<(), Error> {
        let digest = descriptor.digest;
        let (incoming, hasher, length) = self.receive(descriptor, &*source, &uploaded).await?;
        let found = hasher.finish();
        if length != descriptor.size || found != digest {
            let message = format!("blob {digest} of {}: received {length} bytes with digest {found}", self.blobs.name());
            return Err(Error::new(ErrorKind::Integrity, message));
        }
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            let path = blobs::path(&digest);
            incoming.place(&path).map_err(|error| blobs.failed(&path, &error))
        })
        .await
    }

    async fn push_manifest(&self, _repository: &Repository, version: &Version, manifest: &Manifest) -> Result<(), Error> {
        let (blobs, version, mut manifest) = (Arc::clone(&self.blobs), version.clone(), manifest.clone());
        blocking(move || {
            if let Version::Digest(asked) = version {
                manifest.digest = asked;
            }
            let refused = |why: String| Error::new(ErrorKind::Invalid, format!("manifest {} of {}: {why}", manifest.digest, blobs.name()));
            let mut hasher = Hasher::new(manifest.digest.algorithm());
            hasher.update(&manifest.raw);
            if hasher.finish() != manifest.digest {
                return Err(refused("its bytes do not match its digest".to_owned()));
            }
            let complete = || match blobs.missing(&manifest, DEPTH)? {
                Some(missing) => Err(refused(format!("it refers to {missing}, which is not in the layout"))),
                None => Ok(()),
            };
            complete()?;
            blobs.store(&manifest)?;
            match version {
                Version::Digest(_) if manifest.subject().is_none() => Ok(()),
                // Check again under the lock, where nothing is removed meanwhile.
                Version::Digest(_) => blobs.edit(|entries| complete().map(|()| entries.keep(entries::plain(&manifest)))),
                Version::Tag(tag) => blobs.edit(|entries| complete().map(|()| entries.name(&tag, &manifest))),
            }
        })
        .await
    }

    async fn delete_tag(&self, _repository: &Repository, tag: &Tag, digest: &Digest) -> Result<TagDeletion, Error> {
        let (blobs, tag, digest) = (Arc::clone(&self.blobs), tag.clone(), *digest);
        blocking(move || {
            let name = blobs.name().to_owned();
            blobs.edit(|entries| entries.unname(&tag, &digest, &name))?;
            Ok(TagDeletion::Direct)
        })
        .await
    }

    async fn delete_manifest(&self, _repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let (blobs, digest) = (Arc::clone(&self.blobs), *digest);
        blocking(move || {
            blobs.stamp(&blobs::path(&digest))?;
            blobs.drop_manifest(&digest, Tags::Drop)
        })
        .await
    }

    async fn delete_blob(&self, _repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let (blobs, digest) = (Arc::clone(&self.blobs), *digest);
        blocking(move || blobs.drop_blob(&digest)).await
    }

    async fn tidy(&self, _repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let (blobs, digest) = (Arc::clone(&self.blobs), *digest);
        blocking(move || blobs.drop_manifest(&digest, Tags::Keep)).await
    }

    /// Keeps an unnamed entry, by which readers of layouts find a referrer.
    async fn link_referrer(&self, _repository: &Repository, _subject: &Digest, referrer: &Descriptor) -> Result<(), Error> {
        let (blobs, referrer) = (Arc::clone(&self.blobs), referrer.clone());
        blocking(move || {
            let mut entry = json!({"mediaType": referrer.media_type, "digest": referrer.digest.to_string(), "size": referrer.size});
            if let Some(artifact_type) = &referrer.artifact_type {
                entry["artifactType"] = json!(artifact_type);
            }
            blobs.edit(|entries| {
                entries.keep(entry);
                Ok(())
            })
        })
        .await
    }

    async fn may_push(&self, _repository: &Repository) -> Result<(), Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.place().lock().map(drop).map_err(|error| blobs.failed(Path::new(INDEX), &error))).await
    }

    async fn finish(&self) -> Result<(), Error> {
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.place().finish().map_err(|error| local(blobs.name(), &error))).await
    }
}
