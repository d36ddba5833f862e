//! Packs into an in-memory registry and back: what arrives, in which order, and that unpacking leads to the same digest.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::oci::{Digest, Manifest, Repository, Tag, Version, media_type};
use crate::registry::{Fault, Layout, Memory, Objects, PlainLayer, RequestKind, Timing, Tls, WebFiles};
use crate::transfer::{self, Destination};

const REPOSITORY: &str = "team/pack";

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

/// Artifacts in the registry by `repository:tag`, and in layouts by `oci:`.
struct Finder {
    memory: Arc<Memory>,
    base: PathBuf,
}

#[async_trait]
impl ArtifactSource for Finder {
    async fn find(&self, reference: &str) -> Result<(transfer::Source, Version), Error> {
        if let Some((directory, digest)) = reference.strip_prefix("oci:").and_then(|rest| rest.split_once('@')) {
            let layout = Layout::open(&self.base.join(directory))?;
            let source = transfer::Source { pull: Arc::new(layout), repository: Layout::repository()? };
            return Ok((source, Version::Digest(Digest::parse(digest).unwrap())));
        }
        let (name, tag) = reference.rsplit_once(':').unwrap();
        let source = transfer::Source { pull: Arc::<Memory>::clone(&self.memory), repository: repository(name) };
        Ok((source, Version::Tag(Tag::parse(tag).unwrap())))
    }
}

struct Place {
    folder: tempfile::TempDir,
    memory: Arc<Memory>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), memory: Arc::new(Memory::new()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    async fn pack_from(&self, base: &Path, text: &str, concurrency: usize) -> Result<Manifest, Error> {
        let file = PackFile::parse(text)?;
        let gatherer = Gatherer {
            base: base.to_path_buf(),
            scratch: self.path("scratch"),
            web: WebFiles::new(Tls::default(), Timing::default()),
            objects: Objects::new(Vec::new(), Duration::from_secs(1)),
        };
        let destination = Destination { push: Arc::<Memory>::clone(&self.memory), repository: repository(REPOSITORY) };
        let tags = vec![Tag::parse("v1").unwrap()];
        let target = PackTarget { destination, tags, concurrency: NonZeroUsize::new(concurrency).unwrap() };
        let finder = Finder { memory: Arc::clone(&self.memory), base: base.to_path_buf() };
        pack(&file, &Arc::new(gatherer), &finder, &target, Arc::default()).await
    }

    async fn pack(&self, text: &str) -> Result<Manifest, Error> {
        self.pack_from(self.folder.path(), text, 4).await
    }

    async fn packed(&self, text: &str) -> Value {
        serde_json::from_slice(&self.pack(text).await.unwrap().raw).unwrap()
    }

    async fn unpack(&self, manifest: &Manifest, name: &str) -> Result<Unpacked, Error> {
        let source = transfer::Source { pull: Arc::<Memory>::clone(&self.memory), repository: repository(REPOSITORY) };
        unpack(&source, manifest, &self.path(name), NonZeroUsize::MIN.saturating_add(3)).await
    }

    /// Packs, unpacks, and packs the result again.
    async fn there_and_back(&self, text: &str) -> (Manifest, Manifest, Unpacked) {
        let there = self.pack(text).await.unwrap();
        let name = format!("back-{}", there.digest.hex());
        let unpacked = self.unpack(&there, &name).await.unwrap();
        let text = fs::read_to_string(self.path(&name).join("pack.yaml")).unwrap();
        let back = self.pack_from(&self.path(&name), &text, 1).await.unwrap_or_else(|error| panic!("{error}\n{text}"));
        (there, back, unpacked)
    }
}

fn titles(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["annotations"]["org.opencontainers.image.title"].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn plain_items_become_layers_in_order_at_any_concurrency() {
    let place = Place::new();
    let names: Vec<String> = (0..20).map(|number| format!("{number}.bin")).collect();
    for name in &names {
        place.write(name, &format!("content of {name}"));
    }
    let items: Vec<String> = names.iter().map(|name| format!("{{from: 'file:{name}'}}")).collect();
    let text = format!("type: a/b\nannotations: {{k: v}}\nitems: [{}]", items.join(", "));
    let mut digests = Vec::new();
    for concurrency in [1, 8] {
        let manifest = place.pack_from(place.folder.path(), &text, concurrency).await.unwrap();
        digests.push(manifest.digest);
        let value: Value = serde_json::from_slice(&manifest.raw).unwrap();
        assert_eq!(titles(&value), names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((&value["artifactType"], &value["annotations"]), (&json!("a/b"), &json!({"k": "v"})));
        assert_eq!((&value["config"]["mediaType"], &value["config"]["data"]), (&json!(media_type::OCI_EMPTY), &json!("e30=")));
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(place.memory.tagged(REPOSITORY)["v1"], digests[0]);
}

#[tokio::test]
async fn file_sources_reject_directories_and_vice_versa() {
    let place = Place::new();
    place.write("dir/file", "x");
    for (text, wanted) in [
        ("items: [{from: 'file:dir'}]", "item[0]: "),
        ("items: [{from: 'file:dir'}]", "is a directory"),
        ("items: [{from: 'file:dir/file'}, {from: 'dir:dir/file'}]", "item[1]: "),
        ("items: [{from: 'dir:dir/file'}]", "is not a directory"),
        ("items: [{from: 'file:none'}]", "item[0]: cannot read"),
        ("config: {from: 'file:none'}\nitems: [{from: 'file:dir/file'}]", "cannot read"),
    ] {
        let error = place.pack(text).await.unwrap_err();
        assert!(error.message.contains(wanted), "{error}");
    }
    assert!(place.memory.tagged(REPOSITORY).is_empty());
}

#[tokio::test]
async fn files_of_a_directory_become_layers_and_an_empty_one_has_none() {
    let place = Place::new();
    for name in ["tree/b.json", "tree/sub/a.tar.gz", "tree/sub/deep/c"] {
        place.write(name, name);
    }
    fs::create_dir(place.path("empty")).unwrap();
    let manifest = place.packed("items: [{from: 'dir://tree', type: x/y, annotations: {k: v}}]").await;
    assert_eq!(titles(&manifest), ["b.json", "sub/a.tar.gz", "sub/deep/c"]);
    let layer = &manifest["layers"][1];
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!((&layer["artifactType"], &layer["annotations"]["k"]), (&json!("x/y"), &json!("v")));
    assert_eq!(layer["annotations"]["io.arenadata.oci-packer.dir"], "tree");
    let manifest = place.packed("items: [{from: 'dir:empty'}]").await;
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], media_type::OCI_EMPTY);
    std::os::unix::fs::symlink(".", place.path("tree/loop")).unwrap();
    let error = place.pack("items: [{from: 'dir:tree'}]").await.unwrap_err();
    assert!(error.message.contains("circles") || error.message.contains("cannot read"), "{error}");
}

#[tokio::test]
async fn equal_files_are_sent_once_and_described_twice() {
    let place = Place::new();
    place.write("a", "same");
    place.write("b", "same");
    let manifest = place.packed("items: [{from: 'file:a'}, {from: 'file:b'}]").await;
    assert_eq!(titles(&manifest), ["a", "b"]);
    assert_eq!(manifest["layers"][0]["digest"], manifest["layers"][1]["digest"]);
    // The layer and the empty config.
    assert_eq!(place.memory.count(RequestKind::PushBlob), 2);
}

#[tokio::test]
async fn a_failed_upload_leaves_no_manifest_and_the_next_pack_completes_it() {
    let place = Place::new();
    place.write("a", "one");
    place.write("b", "two");
    let text = "items: [{from: 'file:a'}, {from: 'file:b'}]";
    place.memory.plan(RequestKind::PushBlob, 1, 1, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(place.pack_from(place.folder.path(), text, 1).await.unwrap_err().kind, ErrorKind::Unreachable);
    assert_eq!(place.memory.count(RequestKind::PushManifest), 0);
    assert!(place.memory.tagged(REPOSITORY).is_empty());
    place.memory.forget_requests();
    place.pack(text).await.unwrap();
    assert_eq!(place.memory.count(RequestKind::PushBlob), 2);
}

#[tokio::test]
async fn items_with_platforms_become_index_members_in_order() {
    let place = Place::new();
    let platforms = ["linux/amd64", "linux/arm64", "linux/riscv64", "windows(10.0.17763)/amd64", "linux/arm/v6"];
    let mut items = Vec::new();
    for (number, platform) in platforms.iter().enumerate() {
        place.write(&format!("{number}.tar"), platform);
        items.push(format!("{{from: 'file:{number}.tar', platform: '{platform}', type: 'item/{number}'}}"));
    }
    let index = place.packed(&format!("type: whole/index\nitems: [{}]", items.join(", "))).await;
    assert_eq!((&index["mediaType"], &index["artifactType"]), (&json!(media_type::OCI_INDEX), &json!("whole/index")));
    let listed: Vec<Value> = index["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"].clone()).collect();
    assert_eq!(listed[0], json!({"architecture": "amd64", "os": "linux"}));
    assert_eq!(listed[3], json!({"architecture": "amd64", "os": "windows", "os.version": "10.0.17763"}));
    assert_eq!(listed[4], json!({"architecture": "arm", "os": "linux", "variant": "v6"}));
    assert_eq!((listed.len(), &index["manifests"][2]["artifactType"]), (5, &json!("item/2")));
    let held = place.memory.held(REPOSITORY);
    let member = held.get(&Digest::parse(index["manifests"][2]["digest"].as_str().unwrap()).unwrap()).unwrap();
    let member: Value = serde_json::from_slice(member).unwrap();
    assert_eq!((titles(&member), &member["layers"][0]["artifactType"]), (vec!["2.tar"], &Value::Null));
}

#[tokio::test]
async fn an_artifact_becomes_a_member_unchanged() {
    let place = Place::new();
    place.write("a", "file");
    let layers: [PlainLayer<'_>; 1] = [("a/b", b"theirs", &[])];
    let theirs = place.memory.add_artifact("other/app", "v1", (media_type::OCI_CONFIG, b"{}"), &layers, &[]);
    let index = place.packed("items: [{from: 'cr://other/app:v1', platform: linux/amd64, annotations: {k: v}}, {from: 'file:a'}]").await;
    let first = &index["manifests"][0];
    assert_eq!((&first["digest"], &first["annotations"]), (&json!(theirs.to_string()), &json!({"k": "v"})));
    assert!(place.memory.held(REPOSITORY).contains_key(&theirs));
    let error = place.pack("items: [{from: 'file:a'}, {from: 'cr://other/app:none'}]").await.unwrap_err();
    assert!(error.kind == ErrorKind::NotFound && error.message.starts_with("item[1]: "), "{error}");
}

#[tokio::test]
async fn unpacked_artifacts_pack_to_the_same_digest() {
    let place = Place::new();
    for name in ["a.tar.gz", "sub/b.json", "tree/x/y", "tree/z", "config.json"] {
        place.write(name, name);
    }
    place.write("empty", "");
    let layers: [PlainLayer<'_>; 2] = [("a/b", b"one", &[]), ("a/b", b"two", &[])];
    place.memory.add_artifact("other/app", "v1", (media_type::OCI_CONFIG, b"{}"), &layers, &[]);
    fs::create_dir(place.path("nothing")).unwrap();
    let title = "org.opencontainers.image.title";
    for (text, files, members) in [
        ("items: [{from: 'file:a.tar.gz'}]".to_owned(), 1, 0),
        ("type: x/y\nannotations: {k: v}\nitems: [{from: 'file:sub/b.json', type: q/r}, {from: 'dir:tree'}, {from: 'file:empty'}]".to_owned(), 4, 0),
        (format!("config: {{from: 'file:config.json', type: c/d, platform: linux/arm/v7, annotations: {{a: b}}}}\nitems: [{{from: 'file:a.tar.gz', mediaType: m/n, annotations: {{{title}: 'deep/er/name'}}}}]"), 2, 0),
        (format!("items: [{{from: 'file:a.tar.gz', annotations: {{{title}: ''}}}}, {{from: 'file:empty', annotations: {{{title}: '../../escape'}}}}]"), 2, 0),
        ("items: [{from: 'dir:nothing'}]".to_owned(), 0, 0),
        ("type: t/t\nitems: [{from: 'file:a.tar.gz', platform: linux/amd64, config: {from: 'file:config.json'}}, {from: 'file:sub/b.json', platform: linux/arm64/v8, type: i/i}]".to_owned(), 3, 0),
        ("items: [{from: 'cr://other/app:v1', platform: linux/amd64, annotations: {k: v}}, {from: 'file:empty'}, {from: 'dir:tree', platform: a/b}]".to_owned(), 0, 3),
    ] {
        let (there, back, unpacked) = place.there_and_back(&text).await;
        assert_eq!(there.digest, back.digest, "{text}\n{}\n{}", String::from_utf8_lossy(&there.raw), String::from_utf8_lossy(&back.raw));
        assert_eq!(unpacked, Unpacked { files, members, is_same: true }, "{text}");
    }
    assert!(!place.path("escape").exists());
}

#[tokio::test]
async fn manifests_a_pack_cannot_reproduce_are_unpacked_and_reported() {
    let place = Place::new();
    place.write("a", "file");
    let manifest = place.pack("items: [{from: 'file:a'}]").await.unwrap();
    let mut value: Value = serde_json::from_slice(&manifest.raw).unwrap();
    value["x"] = json!(1);
    let digest = place.memory.add_manifest(REPOSITORY, serde_json::to_string_pretty(&value).unwrap());
    place.memory.tag(REPOSITORY, "odd", digest);
    let raw = place.memory.held(REPOSITORY)[&digest].clone();
    let odd = Manifest::parse(raw, digest).unwrap();
    assert_eq!(place.unpack(&odd, "odd").await.unwrap(), Unpacked { files: 1, members: 0, is_same: false });
    assert_eq!(fs::read_to_string(place.path("odd/files/a")).unwrap(), "file");
}

#[tokio::test]
async fn a_failed_unpack_leaves_nothing_and_non_empty_targets_are_refused() {
    let place = Place::new();
    place.write("a", "file");
    let manifest = place.pack("items: [{from: 'file:a'}]").await.unwrap();
    place.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(0));
    assert_eq!(place.unpack(&manifest, "new").await.unwrap_err().kind, ErrorKind::Integrity);
    let names = || fs::read_dir(place.folder.path()).unwrap().count();
    assert_eq!(names(), 1);
    fs::create_dir(place.path("new")).unwrap();
    place.unpack(&manifest, "new").await.unwrap();
    let error = place.unpack(&manifest, "new").await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("not empty"), "{error}");
}
