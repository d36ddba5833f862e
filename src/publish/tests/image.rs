//! Container images: new ones, additional layers, indexes.

use serde_json::{Value, json};

use super::fixture::{Edit, PublishFixture, Seen, repository};
use crate::artifact::Kind;
use crate::oci::{Digest, media_type};
use crate::publish::{ArtifactKind, Outcome};
use crate::registry::{Pull as _, RequestKind};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A tar of directories (`d/`), links (`a -> b`, `a = b`) and files with their names as content.
fn archive(names: &[&str]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1000);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_size(0);
        if let Some((path, target)) = name.split_once(" = ") {
            header.set_entry_type(tar::EntryType::Link);
            archive.append_link(&mut header, path, target).unwrap();
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            archive.append_data(&mut header, name, &[][..]).unwrap();
        } else {
            header.set_size(name.len() as u64);
            archive.append_data(&mut header, name, name.as_bytes()).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

fn base(fixture: &PublishFixture, tag: &str, layers: &[&[&str]]) -> Digest {
    let archives: Vec<Vec<u8>> = layers.iter().map(|names| archive(names)).collect();
    let diff_ids: Vec<String> = archives.iter().map(|archive| Digest::of(archive).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]}, "unknown": {"x": 1},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": vec![json!({"created_by": "test"}); layers.len()],
    });
    let layers: Vec<_> = archives.iter().map(|archive| (LAYER, archive.as_slice(), [].as_slice())).collect();
    let config = config.to_string();
    fixture.registry.add_artifact("app", tag, (media_type::OCI_CONFIG, config.as_bytes()), &layers, &[("k", "v")])
}

async fn config(fixture: &PublishFixture, digest: &Digest) -> Value {
    let (artifact, context, _directory) = fixture.elsewhere(digest).await;
    let config = artifact.shown.image().unwrap().config.clone();
    let stream = context.artifacts.blob(&repository(), &config, true).await.unwrap();
    serde_json::from_slice(&stream.read(0..config.size).await.unwrap()).unwrap()
}

/// The significant part of a comparison: directories whose attributes were never written are compared by name only.
fn known(seen: Vec<Seen>) -> Vec<Seen> {
    seen.into_iter().filter(|seen| !seen.path.is_empty()).collect()
}

#[tokio::test]
async fn a_new_image_is_one_layer_with_platform_and_no_time() {
    let fixture = PublishFixture::with(ArtifactKind::Image, None);
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(fixture.seen(&digest).await, staged);
    let config = config(&fixture, &digest).await;
    assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("amd64")));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    assert_eq!(config.get("created"), None);
    assert_eq!(fixture.elsewhere(&digest).await.0.layers().len(), 1);
    let referrers = fixture.registry.referrers(&repository(), &digest).await.unwrap();
    assert_eq!(referrers[0].artifact_type.as_deref(), Some("application/vnd.ocifs.index.v1"));
}

#[tokio::test]
async fn an_edited_image_gets_one_more_layer_showing_the_frozen_tree() {
    let fixture = PublishFixture::new();
    let names = ["etc/", "etc/a", "etc/b", "etc/c = etc/b", "usr/", "usr/deep/", "usr/deep/x", "usr/deep/y", "gone/", "gone/1", "file"];
    let digest = base(&fixture, "v1", &[&names]);
    let overlay = fixture.over("v1", digest).await;
    let edit = Edit(&fixture, &overlay);
    edit.file("etc/a", b"changed").await;
    edit.link("etc/b", "etc/d");
    edit.remove("gone/1");
    edit.remove("gone");
    edit.remove("usr/deep/y");
    edit.remove("file");
    edit.dir("file");
    edit.file("file/inside", b"1").await;
    edit.make("usr/link", Kind::Symlink, "../etc/a");
    edit.times().await;
    let staged = fixture.staged(&overlay).await;
    fixture.registry.forget_requests();
    let new = fixture.published(&overlay).await;
    assert_eq!(known(fixture.seen(&new).await), known(staged));
    let (artifact, ..) = fixture.elsewhere(&new).await;
    let layers = &artifact.shown.image().unwrap().layers;
    assert_eq!(layers.len(), 2);
    assert_eq!(artifact.shown.annotations()["k"], "v");
    let config = config(&fixture, &new).await;
    assert_eq!((&config["config"]["Env"][0], &config["unknown"]["x"]), (&json!("A=b"), &json!(1)));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    // The layer below was neither read nor sent.
    assert_eq!(fixture.registry.count(RequestKind::PushBlob), 4, "layer, index, config of the image, config of the referrer");
}

#[tokio::test]
async fn a_second_edit_through_the_same_view_is_a_second_layer() {
    let fixture = PublishFixture::new();
    let digest = base(&fixture, "v1", &[&["a", "d/", "d/x"]]);
    let overlay = fixture.over("v1", digest).await;
    let edit = Edit(&fixture, &overlay);
    edit.file("new", b"1").await;
    fixture.published(&overlay).await;
    edit.remove("d/x");
    edit.file("new", b"22").await;
    edit.times().await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(known(fixture.seen(&digest).await), known(staged));
    assert_eq!(fixture.elsewhere(&digest).await.0.shown.image().unwrap().layers.len(), 3);
}

#[tokio::test]
async fn beyond_a_hundred_layers_edit_layers_are_squashed() {
    let fixture = PublishFixture::new();
    let lowest = ["d/", "d/old", "d/sub/", "d/sub/x", "keep", "f"];
    let mut layers: Vec<&[&str]> = vec![&lowest];
    layers.extend(std::iter::repeat_n(&["same"][..], 97));
    let digest = base(&fixture, "v1", &layers);
    let overlay = fixture.over("v1", digest).await;
    let edit = Edit(&fixture, &overlay);
    // First edit: a directory is removed, a file becomes a directory.
    for path in ["d/sub/x", "d/sub", "d/old", "d", "f"] {
        edit.remove(path);
    }
    edit.dir("f");
    edit.file("f/inside", b"1").await;
    let first = fixture.published(&overlay).await;
    assert_eq!(fixture.elsewhere(&first).await.0.shown.image().unwrap().layers.len(), 99);
    // Second edit: the directory exists again, without its old content.
    edit.dir("d");
    edit.file("d/new", b"2").await;
    let second = fixture.published(&overlay).await;
    assert_eq!(fixture.elsewhere(&second).await.0.shown.image().unwrap().layers.len(), 100);
    edit.remove("f/inside");
    edit.file("last", b"3").await;
    edit.times().await;
    let staged = fixture.staged(&overlay).await;
    let third = fixture.published(&overlay).await;
    let (artifact, ..) = fixture.elsewhere(&third).await;
    assert_eq!(artifact.shown.image().unwrap().layers.len(), 99);
    assert_eq!(config(&fixture, &third).await["rootfs"]["diff_ids"].as_array().unwrap().len(), 99);
    assert_eq!(known(fixture.seen(&third).await), known(staged));
}

#[tokio::test]
async fn an_edit_of_an_index_replaces_only_the_shown_member() {
    let fixture = PublishFixture::new();
    let (amd, arm) = (base(&fixture, "amd", &[&["a"]]), base(&fixture, "arm", &[&["b"]]));
    let member = |digest: &Digest, architecture: &str| {
        let size = fixture.registry.held("app")[digest].len();
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": size, "platform": {"architecture": architecture, "os": "linux"}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [member(&amd, "amd64"), member(&arm, "arm64")], "annotations": {"k": "v"}});
    let index = fixture.registry.add_manifest("app", index.to_string());
    fixture.registry.tag("app", "v1", index);
    let overlay = fixture.over("v1", index).await;
    let edit = Edit(&fixture, &overlay);
    edit.file("new", b"1").await;
    edit.times().await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(known(fixture.seen(&digest).await), known(staged));
    let (artifact, ..) = fixture.elsewhere(&digest).await;
    let members = &artifact.manifest.index().unwrap().manifests;
    assert_eq!((members.len(), members[1].digest), (2, arm));
    assert_ne!(members[0].digest, amd);
    assert_eq!(artifact.manifest.annotations()["k"], "v");
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert_eq!(report.outcome, Outcome::Unchanged);
}
