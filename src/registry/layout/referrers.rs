//! The referrers in a layout: those of the referrers tag schema, and untagged manifests with a subject, each of which is read once.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::blobs::Blobs;
use super::names::NamedEntries;
use crate::error::Error;
use crate::oci::{Descriptor, Digest, Manifest};

/// Most bytes of descriptors kept for a layout; others are read again whenever they are listed.
const KEPT: usize = 8 << 20;
/// Bytes of a descriptor besides its annotations.
const DESCRIPTOR: usize = 512;

/// The subject of an untagged manifest.
struct Known {
    subject: Option<Digest>,
    /// Its own descriptor, if it has a subject and there was room.
    descriptor: Option<Descriptor>,
}

/// The subjects of the untagged manifests of a layout, as far as they were read. At most as many entries as its `index.json` has.
#[derive(Default)]
pub(super) struct Untagged {
    known: HashMap<Digest, Known>,
    /// Bytes of all descriptors.
    kept: usize,
}

impl Blobs {
    /// The manifests that refer to a digest. Those without an artifact type get their config's type, as the distribution specification
    /// demands. Blocks; `untagged` stays locked meanwhile.
    pub(super) fn referrers(&self, names: &NamedEntries, subject: &Digest, untagged: &Mutex<Untagged>) -> Result<Vec<Descriptor>, Error> {
        let mut found = match names.tags.get(&subject.path_name()) {
            Some(entry) => self.manifest(&entry.digest)?.index().map(|index| index.manifests.clone()).unwrap_or_default(),
            None => Vec::new(),
        };
        for referrer in found.iter_mut().filter(|referrer| referrer.artifact_type.is_none()) {
            // One broken manifest must not hide the others.
            referrer.artifact_type = self.parsed(&referrer.digest).ok().flatten().as_ref().and_then(config_type);
        }
        untagged.lock().add_referrers(&mut found, names, subject, |digest| self.manifest(digest));
        Ok(found)
    }
}

impl Untagged {
    fn add_referrers(
        &mut self,
        found: &mut Vec<Descriptor>,
        names: &NamedEntries,
        subject: &Digest,
        read: impl Fn(&Digest) -> Result<Manifest, Error>,
    ) {
        self.forget_others(names);
        let mut listed: HashSet<Digest> = found.iter().map(|referrer| referrer.digest).collect();
        for entry in &names.untagged {
            let descriptor = match self.known.get(&entry.digest) {
                Some(known) if known.subject != Some(*subject) => continue,
                Some(Known { descriptor: Some(descriptor), .. }) => descriptor.clone(),
                _ => match read(&entry.digest) {
                    Ok(manifest) if self.learn(&manifest) == Some(*subject) => described(&manifest),
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "cannot read an untagged manifest; not listed as a referrer");
                        continue;
                    }
                },
            };
            if listed.insert(entry.digest) {
                found.push(descriptor);
            }
        }
    }

    /// Records a manifest; returns its subject.
    fn learn(&mut self, manifest: &Manifest) -> Option<Digest> {
        let subject = manifest.subject().map(|subject| subject.digest);
        let descriptor = subject.map(|_| described(manifest)).filter(|descriptor| self.kept + weight(descriptor) <= KEPT);
        self.kept += descriptor.as_ref().map_or(0, weight);
        self.known.insert(manifest.digest, Known { subject, descriptor });
        subject
    }

    /// Forgets manifests that are not listed any more.
    fn forget_others(&mut self, names: &NamedEntries) {
        if self.known.len() > names.untagged.len() {
            let listed: HashSet<Digest> = names.untagged.iter().map(|entry| entry.digest).collect();
            self.known.retain(|digest, _| listed.contains(digest));
            self.kept = self.known.values().filter_map(|known| known.descriptor.as_ref()).map(weight).sum();
        }
    }
}

fn described(manifest: &Manifest) -> Descriptor {
    let mut descriptor = manifest.descriptor();
    descriptor.artifact_type = descriptor.artifact_type.or_else(|| config_type(manifest));
    descriptor
}

fn config_type(manifest: &Manifest) -> Option<String> {
    manifest.image().map(|image| image.config.media_type.clone())
}

fn weight(descriptor: &Descriptor) -> usize {
    DESCRIPTOR + descriptor.annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    /// An untagged manifest that refers to something, with an annotation of this length.
    fn manifest(name: &str, subject: Option<&Digest>, annotation: usize) -> Manifest {
        let empty = |digest: &Digest| json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest.to_string(), "size": 2});
        let mut raw = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": empty(&Digest::of(b"{}")), "layers": [],
            "annotations": {"name": name, "long": "x".repeat(annotation)},
        });
        if let Some(subject) = subject {
            raw["subject"] = empty(subject);
        }
        let raw = Bytes::from(raw.to_string());
        Manifest::parse(raw.clone(), Digest::of(&raw)).unwrap()
    }

    /// A layout's untagged manifests, and how often they were read.
    struct Scene {
        manifests: Vec<Manifest>,
        untagged: Untagged,
        reads: Cell<usize>,
    }

    impl Scene {
        fn new(manifests: Vec<Manifest>) -> Self {
            Self { manifests, untagged: Untagged::default(), reads: Cell::new(0) }
        }

        /// The number of referrers, and of manifests that were read for that.
        fn ask(&mut self, subject: &Digest) -> (usize, usize) {
            let untagged = self.manifests.iter().map(Manifest::descriptor).collect();
            let (names, mut found) = (NamedEntries { untagged, ..NamedEntries::default() }, Vec::new());
            self.reads.set(0);
            let read = |digest: &Digest| {
                self.reads.set(self.reads.get() + 1);
                let known = self.manifests.iter().find(|manifest| manifest.digest == *digest).cloned();
                known
                    .filter(|manifest| manifest.annotations().get("name").is_none_or(|name| name != "broken"))
                    .ok_or_else(|| Error::new(ErrorKind::Integrity, "broken"))
            };
            self.untagged.add_referrers(&mut found, &names, subject, read);
            (found.len(), self.reads.get())
        }
    }

    #[test]
    fn each_untagged_manifest_is_read_once_and_forgotten_with_its_entry() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let mut scene = Scene::new(vec![
            manifest("a", Some(&one), 0),
            manifest("b", Some(&other), 0),
            manifest("c", None, 0),
            manifest("d", Some(&one), 0),
            manifest("a", Some(&one), 0),
        ]);
        assert_eq!(scene.ask(&one), (2, 4));
        assert_eq!((scene.ask(&one), scene.ask(&other), scene.ask(&Digest::of(b"none"))), ((2, 0), (1, 0), (0, 0)));
        scene.manifests.push(manifest("e", Some(&one), 0));
        assert_eq!((scene.ask(&one), scene.ask(&one)), ((3, 1), (3, 0)));
        scene.manifests.truncate(1);
        assert_eq!(scene.ask(&one), (1, 0));
        assert_eq!((scene.untagged.known.len(), scene.untagged.kept), (1, weight(&scene.manifests[0].descriptor())));
    }

    #[test]
    fn a_broken_manifest_is_not_listed_and_asked_for_again() {
        let one = Digest::of(b"one");
        let mut scene = Scene::new(vec![manifest("broken", Some(&one), 0), manifest("a", Some(&one), 0)]);
        assert_eq!((scene.ask(&one), scene.ask(&one)), ((1, 2), (1, 1)));
    }

    #[test]
    fn descriptors_beyond_the_limit_are_read_again_when_listed() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let large = |name: &str| manifest(name, Some(&one), KEPT / 2);
        let mut scene = Scene::new(vec![large("a"), large("b"), manifest("c", Some(&other), 0)]);
        assert_eq!((scene.ask(&one), scene.ask(&one), scene.ask(&other)), ((2, 3), (2, 1), (1, 0)));
        assert!(scene.untagged.kept <= KEPT);
    }

    #[test]
    fn a_referrer_without_an_artifact_type_has_that_of_its_config() {
        let one = Digest::of(b"one");
        assert_eq!(described(&manifest("a", Some(&one), 0)).artifact_type.as_deref(), Some("application/vnd.oci.empty.v1+json"));
    }
}
