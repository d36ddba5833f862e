//! The contract of [`Pull`], for all implementations, over one sample repository.

use std::path::Path;

use serde_json::json;

use super::{collect, reference, repository, tag};
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Repository, Version, media_type};
use crate::registry::{Layout, Memory, Pull};

/// The content of one repository, as plain data.
pub(super) struct Sample {
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) manifests: Vec<String>,
    pub(super) tags: Vec<(String, Digest)>,
    pub(super) layer: Descriptor,
    pub(super) subject: Digest,
    pub(super) referrer: Digest,
}

impl Sample {
    pub(super) fn new() -> Self {
        let data: Vec<u8> = (0..300_000_u32).map(|number| (number * 7 % 251) as u8).collect();
        let plain =
            |media_type: &str, data: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(data).to_string(), "size": data.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": plain(media_type::OCI_EMPTY, b"{}"),
            "layers": [plain("application/vnd.example", &data)],
        })
        .to_string();
        let subject = Digest::of(manifest.as_bytes());
        let referrer = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/vnd.example.note",
            "config": plain(media_type::OCI_EMPTY, b"{}"), "layers": [plain(media_type::OCI_EMPTY, b"{}")],
            "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject.to_string(), "size": manifest.len()},
            "annotations": {"note": "text"},
        })
        .to_string();
        let tags = ["v1", "v2", "V3", "latest", "old"].map(|name| (name.to_owned(), subject)).to_vec();
        Self {
            layer: Descriptor::new("application/vnd.example", Digest::of(&data), data.len() as u64),
            blobs: vec![data, b"{}".to_vec()],
            referrer: Digest::of(referrer.as_bytes()),
            manifests: vec![manifest, referrer],
            tags,
            subject,
        }
    }

    fn memory(&self) -> Memory {
        let memory = Memory::new();
        for blob in &self.blobs {
            memory.add_blob("team/app", "application/octet-stream", blob.clone());
        }
        for manifest in &self.manifests {
            memory.add_manifest("team/app", manifest.clone());
        }
        for (name, digest) in &self.tags {
            memory.tag("team/app", name, *digest);
        }
        memory
    }

    fn layout(&self, directory: &Path) -> Layout {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for bytes in self.blobs.iter().map(Vec::as_slice).chain(self.manifests.iter().map(String::as_bytes)) {
            std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        }
        let size = |digest: &Digest| self.manifests.iter().find(|raw| Digest::of(raw.as_bytes()) == *digest).unwrap().len();
        let entry = |digest: &Digest| json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": size(digest)});
        let mut entries = vec![entry(&self.referrer)];
        for (name, digest) in &self.tags {
            let mut tagged = entry(digest);
            tagged["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            entries.push(tagged);
        }
        std::fs::write(directory.join("index.json"), json!({"schemaVersion": 2, "manifests": entries}).to_string()).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout::open(directory).unwrap()
    }
}

/// Runs the whole suite. `absent` is a repository that does not exist, for implementations that have several.
pub(super) async fn conforms(pull: &dyn Pull, sample: &Sample, absent: Option<&Repository>) {
    pull.ping(None).await.unwrap();
    versions_resolve_and_read_alike(pull, sample).await;
    ranges_are_exact(pull, sample).await;
    lists_are_complete(pull, sample).await;
    what_is_absent_is_not_found(pull, absent).await;
    let referrers = pull.referrers(&repository(), &sample.subject).await.unwrap();
    let found: Vec<_> = referrers.iter().map(|found| (found.digest, found.artifact_type.as_deref(), found.annotation("note"))).collect();
    assert_eq!(found, [(sample.referrer, Some("application/vnd.example.note"), Some("text"))]);
    assert!(pull.referrers(&repository(), &Digest::of(b"nobody")).await.unwrap().is_empty());
}

async fn versions_resolve_and_read_alike(pull: &dyn Pull, sample: &Sample) {
    for version in [tag("v1"), Version::Digest(sample.subject)] {
        let resolved = pull.resolve(&repository(), &version).await.unwrap();
        assert_eq!(resolved.digest, sample.subject);
        let manifest = pull.manifest(&repository(), &version).await.unwrap();
        assert_eq!(manifest.raw, sample.manifests[0].as_bytes());
        assert_eq!((manifest.digest, &manifest.image().unwrap().layers[0].digest), (sample.subject, &sample.layer.digest));
        assert_eq!(resolved.size, Some(manifest.raw.len() as u64));
    }
}

async fn ranges_are_exact(pull: &dyn Pull, sample: &Sample) {
    let size = sample.layer.size;
    for range in [0..size, 0..0, size..size, 0..1, size - 1..size, 65_530..65_550, 1..size] {
        let stream = pull.blob(&repository(), &sample.layer, range.clone()).await.unwrap();
        let expected = &sample.blobs[0][range.start as usize..range.end as usize];
        assert!(collect(stream).await.unwrap() == expected, "{range:?}");
    }
    let outside = pull.blob(&repository(), &sample.layer, 0..size + 1).await.err().unwrap();
    assert_eq!(outside.kind, ErrorKind::Invalid);
    let mut larger = sample.layer.clone();
    larger.size += 1;
    let error = match pull.blob(&repository(), &larger, 0..larger.size).await {
        Ok(stream) => collect(stream).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

async fn lists_are_complete(pull: &dyn Pull, sample: &Sample) {
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = pull.tags(&repository(), after.as_deref()).await.unwrap();
        names.extend(page.names);
        assert!(names.len() < 100, "the list ends");
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    // With the tag schema, the fallback tag is listed too.
    names.retain(|name| !crate::oci::Tag::parse(name).unwrap().is_bookkeeping());
    names.sort();
    let mut expected: Vec<_> = sample.tags.iter().map(|(name, _)| name.clone()).collect();
    expected.sort();
    assert_eq!(names, expected);
    match pull.repositories(None).await {
        Ok(page) => assert!(page.names.contains(&"team/app".to_owned())),
        Err(error) => assert_eq!(error.kind, ErrorKind::Unsupported),
    }
}

async fn what_is_absent_is_not_found(pull: &dyn Pull, absent: Option<&Repository>) {
    let nothing = Digest::of(b"nothing");
    for version in [tag("none"), Version::Digest(nothing)] {
        assert_eq!(pull.resolve(&repository(), &version).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(pull.manifest(&repository(), &version).await.unwrap_err().kind, ErrorKind::NotFound);
    }
    let blob = Descriptor::new("a/b", nothing, 7);
    assert_eq!(pull.blob(&repository(), &blob, 0..7).await.err().unwrap().kind, ErrorKind::NotFound);
    if let Some(absent) = absent {
        assert_eq!(pull.tags(absent, None).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(pull.manifest(absent, &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
    }
}

fn absent() -> Repository {
    Repository::parse("team/none").unwrap()
}

#[tokio::test]
async fn memory_conforms() {
    let sample = Sample::new();
    let memory = sample.memory();
    memory.set_page_size(2);
    conforms(&memory, &sample, Some(&absent())).await;
}

#[tokio::test]
async fn a_layout_conforms() {
    let (sample, directory) = (Sample::new(), tempfile::tempdir().unwrap());
    conforms(&sample.layout(directory.path()), &sample, None).await;
}

/// The archive of a layout, written by `tar`.
fn archived(directory: &Path, file: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(file).unwrap());
    builder.append_dir_all(".", directory).unwrap();
    builder.finish().unwrap();
}

#[tokio::test]
async fn an_archive_of_a_layout_conforms() {
    let (sample, directory) = (Sample::new(), tempfile::tempdir().unwrap());
    let (layout, file) = (directory.path().join("layout"), directory.path().join("layout.tar"));
    sample.layout(&layout);
    archived(&layout, &file);
    conforms(&Layout::open_archive(&file).unwrap(), &sample, None).await;
}

#[tokio::test]
async fn the_http_client_conforms_against_every_kind_of_registry() {
    for manner in reference::MANNERS {
        let sample = Sample::new();
        let server = reference::start(&sample, manner).await;
        conforms(&super::client(&server.authority), &sample, Some(&absent())).await;
    }
}
