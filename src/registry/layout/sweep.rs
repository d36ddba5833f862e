//! Removes unneeded content from a layout: finds it from the entries of `index.json`, under the lock for index changes.
//!
//! Only content reachable from the dropped manifest is examined, so blobs whose manifest is still to come stay. A writer that found a blob
//! here, and whose manifest comes after the blob was removed, is refused (see `push`) and sends the blob on its next attempt. If any other
//! manifest cannot be read, nothing is removed. Blocks the thread.

use std::collections::HashSet;

use bytes::Bytes;

use super::super::MANIFEST_LIMIT;
use super::blobs::{self, Blobs};
use super::entries::Entries;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, media_type};
use crate::registry::of_manifest;

/// How the tags of a dropped manifest are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    /// They keep the manifest and everything it needs.
    Keep,
    /// They are dropped as well.
    Drop,
}

impl Blobs {
    /// Drops a manifest unless a tag or an index keeps it, the unnamed manifests that refer to it, and what only they needed.
    pub(super) fn drop_manifest(&self, digest: &Digest, tags: Tags) -> Result<(), Error> {
        self.edit_then(
            |entries| {
                entries.forget(digest, tags == Tags::Drop);
                let mut gone = Vec::new();
                if !entries.holds(digest) && !self.is_needed(entries, digest) {
                    gone.push(*digest);
                    self.forget_referrers(entries, &mut gone);
                }
                Ok(gone)
            },
            |entries, gone| self.sweep(entries, gone),
        )
    }

    /// Whether a manifest is part of one that an entry names, as far as can be told.
    fn is_needed(&self, entries: &Entries, digest: &Digest) -> bool {
        self.reached(entries.digests()).is_ok_and(|needed| needed.contains(digest))
    }

    /// Drops the unnamed entries that refer to the dropped manifests, transitively.
    fn forget_referrers(&self, entries: &mut Entries, gone: &mut Vec<Digest>) {
        let mut at = 0;
        while let Some(subject) = gone.get(at).copied() {
            at += 1;
            for referrer in entries.nameless() {
                let manifest = self.parsed(&referrer).ok().flatten();
                if manifest.is_some_and(|manifest| manifest.subject().is_some_and(|named| named.digest == subject)) {
                    entries.forget(&referrer, false);
                    if !entries.holds(&referrer) {
                        gone.push(referrer);
                    }
                }
            }
        }
    }

    /// Removes what the dropped manifests reach and no entry does.
    fn sweep(&self, entries: &Entries, gone: Vec<Digest>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let (needless, needed) = match (self.reached(gone), self.reached(entries.digests())) {
            (Ok(needless), Ok(needed)) => (needless, needed),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "keeping the blobs of a deleted manifest");
                return Ok(());
            }
        };
        for digest in needless.difference(&needed) {
            let path = blobs::path(digest);
            self.place().remove(&path).map_err(|error| self.failed(&path, &error))?;
        }
        Ok(())
    }

    /// Everything the manifests reach, including themselves. Missing ones reach nothing.
    pub(super) fn reached(&self, mut open: Vec<Digest>) -> Result<HashSet<Digest>, Error> {
        let mut found = HashSet::new();
        while let Some(digest) = open.pop() {
            if !found.insert(digest) {
                continue;
            }
            let Some(manifest) = self.parsed(&digest)? else { continue };
            if let Some(image) = manifest.image() {
                found.extend(image.layers.iter().chain([&image.config]).map(|blob| blob.digest));
            }
            for member in manifest.index().into_iter().flat_map(|index| &index.manifests) {
                match media_type::MANIFESTS.contains(&member.media_type.as_str()) {
                    true => open.push(member.digest),
                    false => drop(found.insert(member.digest)),
                }
            }
        }
        Ok(found)
    }

    /// A manifest; `None` if it is not here.
    pub(super) fn parsed(&self, digest: &Digest) -> Result<Option<Manifest>, Error> {
        let raw = match self.small(&blobs::path(digest), MANIFEST_LIMIT) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?.1,
        };
        let what = format!("manifest {digest} of {}", self.name());
        Manifest::parse(Bytes::from(raw), *digest).map(Some).map_err(|error| of_manifest(&what, error))
    }

    /// Removes an unneeded blob.
    pub(super) fn drop_blob(&self, digest: &Digest) -> Result<(), Error> {
        let path = blobs::path(digest);
        self.stamp(&path)?;
        self.edit_then(
            |entries| match self.reached(entries.digests())?.contains(digest) {
                true => Err(Error::new(ErrorKind::Conflict, format!("blob {digest} of {} is part of an artifact", self.name()))),
                false => Ok(()),
            },
            |_, ()| self.place().remove(&path).map_err(|error| self.failed(&path, &error)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::oci::{Descriptor, Repository, Tag, Version};
    use crate::registry::{Layout, Pull, Push};

    struct Place {
        layout: Layout,
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { layout: Layout::open_or_begin(folder.path()).unwrap(), folder }
        }

        async fn blob(&self, content: &'static str) -> Descriptor {
            let blob = Descriptor::new("a/b", Digest::of(content.as_bytes()), content.len() as u64);
            self.layout.push_blob(&repository(), &blob, Arc::new(Bytes::from(content)), Arc::new(|_| {})).await.unwrap();
            blob
        }

        async fn put(&self, version: Option<&str>, value: serde_json::Value) -> Manifest {
            let raw = Bytes::from(value.to_string());
            let digest = Digest::of(&raw);
            let manifest = Manifest::parse(raw, digest).unwrap();
            let version = version.map_or(Version::Digest(digest), |name| Version::Tag(Tag::parse(name).unwrap()));
            self.layout.push_manifest(&repository(), &version, &manifest).await.unwrap();
            manifest
        }

        /// An artifact with its own layer and a config shared by all.
        async fn artifact(&self, version: Option<&str>, layer: &'static str, subject: Option<&Manifest>) -> Manifest {
            let (config, layer) = (self.blob("{}").await, self.blob(layer).await);
            let mut value =
                json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": plain(&config), "layers": [plain(&layer)]});
            if let Some(subject) = subject {
                value["subject"] = plain(&subject.descriptor());
            }
            self.put(version, value).await
        }

        async fn has(&self, content: &str) -> bool {
            self.layout.blob_size(&repository(), &Digest::of(content.as_bytes())).await.is_ok()
        }
    }

    fn plain(descriptor: &Descriptor) -> serde_json::Value {
        json!({"mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size})
    }

    fn repository() -> Repository {
        Layout::repository().unwrap()
    }

    #[tokio::test]
    async fn deleting_a_tag_removes_blobs_only_it_needed() {
        let place = Place::new();
        let one = place.artifact(Some("v1"), "one", None).await;
        place.artifact(Some("v2"), "two", None).await;
        place.blob("on its way").await;
        let sbom = place.artifact(None, "sbom", Some(&one)).await;
        place.artifact(None, "signature", Some(&sbom)).await;
        place.layout.delete_tag(&repository(), &Tag::parse("v1").unwrap(), &one.digest).await.unwrap();
        assert!(place.has("one").await, "only an order to tidy removes blobs");
        place.layout.tidy(&repository(), &one.digest).await.unwrap();
        for (content, stays) in [("one", false), ("sbom", false), ("signature", false), ("two", true), ("{}", true), ("on its way", true)] {
            assert_eq!(place.has(content).await, stays, "{content}");
        }
        assert!(place.layout.referrers(&repository(), &one.digest).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn content_named_by_another_tag_or_index_stays_with_its_referrers() {
        let place = Place::new();
        let one = place.artifact(Some("v1"), "one", None).await;
        place.artifact(None, "sbom", Some(&one)).await;
        let members = json!([plain(&one.descriptor())]);
        let index = place.put(Some("multi"), json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": members})).await;
        place.layout.delete_tag(&repository(), &Tag::parse("v1").unwrap(), &one.digest).await.unwrap();
        place.layout.tidy(&repository(), &one.digest).await.unwrap();
        assert!(place.has("one").await && place.has("sbom").await);
        assert_eq!(place.layout.referrers(&repository(), &one.digest).await.unwrap().len(), 1);
        place.layout.delete_manifest(&repository(), &index.digest).await.unwrap();
        assert!(!place.has("one").await && place.layout.tags(&repository(), None).await.unwrap().names.is_empty());
    }

    #[tokio::test]
    async fn a_manifest_whose_blob_was_just_swept_is_refused() {
        let place = Place::new();
        let one = place.artifact(Some("v1"), "one", None).await;
        place.layout.delete_manifest(&repository(), &one.digest).await.unwrap();
        let tag = Version::Tag(Tag::parse("v2").unwrap());
        assert_eq!(place.layout.push_manifest(&repository(), &tag, &one).await.unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(place.layout.delete_manifest(&repository(), &one.digest).await.unwrap_err().kind, ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_referenced_blob_is_not_deleted_but_a_loose_one_is() {
        let place = Place::new();
        place.artifact(Some("v1"), "one", None).await;
        let loose = place.blob("loose").await;
        let used = place.layout.delete_blob(&repository(), &Digest::of(b"one")).await.unwrap_err();
        assert_eq!(used.kind, ErrorKind::Conflict);
        place.layout.delete_blob(&repository(), &loose.digest).await.unwrap();
        assert!(!place.has("loose").await);
        assert_eq!(place.layout.delete_blob(&repository(), &loose.digest).await.unwrap_err().kind, ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn nothing_is_removed_while_another_manifest_cannot_be_read() {
        let place = Place::new();
        let one = place.artifact(Some("v1"), "one", None).await;
        let two = place.artifact(Some("v2"), "two", None).await;
        std::fs::write(place.folder.path().join(blobs::path(&two.digest)), "broken").unwrap();
        place.layout.delete_manifest(&repository(), &one.digest).await.unwrap();
        assert!(place.has("one").await);
    }
}
