//! Edits of other tools' artifacts: unchanged parts stay byte for byte, changed ones keep their form.

use serde_json::{Value, json};

use super::fixture::{Edit, PublishFixture, Seen, digest_of};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::oci::{Digest, media_type};
use crate::registry::{PlainLayer, RequestKind};
use crate::staging::Binding;

const TITLE: &str = "org.opencontainers.image.title";

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
        header.set_mtime(1000);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// The artifact of `oras push a.txt sub/b.bin dir/`.
fn oras(fixture: &PublishFixture) -> Digest {
    let directory = packed(&[("dir/", b""), ("dir/one", b"1"), ("dir/two", b"2")]);
    let unpack = [(TITLE, "dir"), ("io.deis.oras.content.unpack", "true")];
    let layers = [
        ("text/plain", &b"alpha"[..], &[(TITLE, "a.txt"), ("mine", "stays")][..]),
        ("application/x-b", &b"beta"[..], &[(TITLE, "sub/b.bin")][..]),
        ("application/vnd.oci.image.layer.v1.tar+gzip", directory.as_slice(), &unpack[..]),
    ];
    let annotations = [("k", "v"), ("org.opencontainers.image.created", "2024-05-06T07:08:09Z")];
    fixture.registry.add_artifact("app", "v1", ("application/vnd.example.config", b"{}"), &layers, &annotations)
}

fn manifest(fixture: &PublishFixture, digest: &Digest) -> Value {
    serde_json::from_slice(&fixture.registry.held("app")[digest]).unwrap()
}

/// Names, kinds and contents.
fn contents(seen: Vec<Seen>) -> Vec<(String, Kind, Vec<u8>)> {
    seen.into_iter().map(|seen| (seen.path, seen.kind, seen.bytes)).collect()
}

#[tokio::test]
async fn a_changed_titled_file_stays_one_and_its_neighbours_stay_byte_for_byte() {
    let fixture = PublishFixture::new();
    let digest = oras(&fixture);
    let before = manifest(&fixture, &digest);
    let overlay = fixture.over("v1", digest).await;
    Edit(&fixture, &overlay).file("a.txt", b"changed").await;
    let staged = contents(fixture.staged(&overlay).await);
    let digest = fixture.published(&overlay).await;
    let after = manifest(&fixture, &digest);
    let layers = after["layers"].as_array().unwrap();
    assert_eq!(layers[0]["mediaType"], "text/plain");
    assert_eq!((&layers[0]["annotations"]["mine"], &layers[0]["annotations"][TITLE]), (&"stays".into(), &"a.txt".into()));
    assert_eq!(layers[0]["digest"], Digest::of(b"changed").to_string());
    assert_eq!(layers[layers.len() - 2..], before["layers"].as_array().unwrap()[1..]);
    assert_eq!((&after["config"], &after["annotations"]), (&before["config"], &before["annotations"]));
    assert_eq!(contents(fixture.seen(&digest).await), staged);
    fixture.registry.forget_requests();
    assert_eq!(fixture.publish(&overlay).await.unwrap().0.sent, (0, 0));
}

#[tokio::test]
async fn new_files_and_those_of_a_changed_directory_are_repacked() {
    let fixture = PublishFixture::new();
    let digest = oras(&fixture);
    let before = manifest(&fixture, &digest);
    let overlay = fixture.over("v1", digest).await;
    let edit = Edit(&fixture, &overlay);
    edit.file("new", b"new").await;
    let staged = contents(fixture.staged(&overlay).await);
    let digest = fixture.published(&overlay).await;
    assert_eq!(contents(fixture.seen(&digest).await), staged);
    let after = manifest(&fixture, &digest);
    assert_eq!(after["layers"].as_array().unwrap()[..3], before["layers"].as_array().unwrap()[..]);
    edit.file("dir/one", b"other").await;
    edit.remove("sub/b.bin");
    let staged = contents(fixture.staged(&overlay).await);
    let digest = fixture.published(&overlay).await;
    assert_eq!(contents(fixture.seen(&digest).await), staged);
    let after = manifest(&fixture, &digest);
    let layers = after["layers"].as_array().unwrap();
    assert_eq!(layers[0], before["layers"][0]);
    assert!(!layers.contains(&before["layers"][1]) && !layers.contains(&before["layers"][2]));
}

#[tokio::test]
async fn an_archive_is_repacked_with_its_media_type_and_keeps_the_rest() {
    let fixture = PublishFixture::new();
    let chart = packed(&[("chart/Chart.yaml", b"name: x"), ("chart/values.yaml", b"a: 1")]);
    let layer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let provenance = "application/vnd.cncf.helm.chart.provenance.v1.prov";
    let config = ("application/vnd.cncf.helm.config.v1+json", &b"{\"name\":\"x\"}"[..]);
    let layers = [(layer, chart.as_slice(), &[][..]), (provenance, &b"signed"[..], &[][..])];
    let digest =
        fixture.registry.add_artifact("app", "v1", config, &layers, &[(TITLE, "x"), ("org.opencontainers.image.version", "1.0.0")]);
    let before = manifest(&fixture, &digest);
    let overlay = fixture.over("v1", digest).await;
    let edit = Edit(&fixture, &overlay);
    edit.file("chart/values.yaml", b"a: 2").await;
    edit.file("chart/more", b"more").await;
    let staged = contents(fixture.staged(&overlay).await);
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert!(report.notes.iter().any(|note| note.contains("provenance")), "{:?}", report.notes);
    let digest = digest_of(&report);
    let after = manifest(&fixture, &digest);
    assert_eq!(contents(fixture.seen(&digest).await), staged);
    assert_eq!(after["layers"][0]["mediaType"], layer);
    assert_eq!((&after["layers"][1], &after["config"]), (&before["layers"][1], &before["config"]));
    assert_eq!((after["layers"].as_array().unwrap().len(), &after["annotations"]), (2, &before["annotations"]));
}

#[tokio::test]
async fn a_list_of_blobs_accepts_new_content_but_no_new_names() {
    let fixture = PublishFixture::new();
    let config = ("application/vnd.wasm.config.v0+json", &b"{}"[..]);
    let digest = fixture.registry.add_artifact("app", "v1", config, &[("application/wasm", b"\0asm", &[("a", "b")])], &[]);
    let overlay = fixture.over("v1", digest).await;
    let edit = Edit(&fixture, &overlay);
    edit.file("module.wasm", b"\0asm2").await;
    let digest = fixture.published(&overlay).await;
    let after = manifest(&fixture, &digest);
    assert_eq!(after["layers"][0]["digest"], Digest::of(b"\0asm2").to_string());
    assert_eq!((&after["layers"][0]["mediaType"], &after["layers"][0]["annotations"]["a"]), (&"application/wasm".into(), &"b".into()));
    assert_eq!(after["layers"].as_array().unwrap().len(), 1);
    edit.file("more", b"1").await;
    let error = fixture.publish(&overlay).await.unwrap_err();
    assert_eq!((error.kind, fixture.tagged("v1")), (ErrorKind::Unsupported, Some(digest)));
    assert!(error.message.contains("`more`"), "{error}");
}

/// An artifact whose config lists its layers' digests, like other tools' models and WebAssembly components.
fn listing(fixture: &PublishFixture, tag: &str, (config_type, config): (&str, &Value), layers: &[PlainLayer<'_>]) -> Digest {
    fixture.registry.add_artifact("app", tag, (config_type, config.to_string().as_bytes()), layers, &[])
}

/// The config of a manifest.
fn config_of(fixture: &PublishFixture, manifest: &Value) -> Value {
    let digest = Digest::parse(manifest["config"]["digest"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&fixture.registry.held("app")[&digest]).unwrap()
}

#[tokio::test]
async fn a_config_with_layer_digests_is_updated_to_the_new_layers() {
    let fixture = PublishFixture::new();
    let of = |bytes: &[u8]| Digest::of(bytes).to_string();
    let weights = [
        ("application/vnd.cncf.model.weight.v1.raw", &b"one"[..], &[("org.cncf.model.filepath", "a.bin")][..]),
        ("application/vnd.cncf.model.weight.v1.raw", &b"two"[..], &[("org.cncf.model.filepath", "b.bin")][..]),
    ];
    let model = json!({"descriptor": {}, "modelfs": {"type": "layers", "diffIds": [of(b"one"), of(b"two")]}, "config": {"x": 1}});
    let wasm = json!({"architecture": "wasm", "os": "wasip1", "layerDigests": [of(b"\0asm")]});
    let docker = json!({"config": {"format": "gguf"}, "rootfs": {"type": "rootfs", "diff_ids": [of(b"gguf")]}});
    let modules = [("application/wasm", &b"\0asm"[..], &[][..])];
    let ggufs = [("application/vnd.docker.ai.gguf.v3", &b"gguf"[..], &[][..])];
    let cases = [
        ("application/vnd.cncf.model.config.v1+json", &model, &weights[..], "b.bin", "/modelfs/diffIds"),
        ("application/vnd.wasm.config.v0+json", &wasm, &modules[..], "module.wasm", "/layerDigests"),
        ("application/vnd.docker.ai.model.config.v0.1+json", &docker, &ggufs[..], "model.gguf", "/rootfs/diff_ids"),
    ];
    for (number, (config_type, config, layers, file, place)) in cases.into_iter().enumerate() {
        let tag = format!("v{number}");
        let digest = listing(&fixture, &tag, (config_type, config), layers);
        let overlay = fixture.over(&tag, digest).await;
        Edit(&fixture, &overlay).file(file, b"changed").await;
        let (report, _) = fixture.publish(&overlay).await.unwrap();
        let after = manifest(&fixture, &digest_of(&report));
        let is_index = |layer: &Value| layer["mediaType"].as_str().unwrap().contains("ocifs");
        let real: Vec<&Value> =
            after["layers"].as_array().unwrap().iter().filter(|layer| !is_index(layer)).map(|layer| &layer["digest"]).collect();
        let mut expected = config.clone();
        *expected.pointer_mut(place).unwrap() = json!(real);
        assert_eq!(config_of(&fixture, &after), expected);
        assert_eq!((&after["config"]["mediaType"], report.notes), (&config_type.into(), Vec::<String>::new()));
    }
}

#[tokio::test]
async fn an_unknown_layer_list_in_a_config_stays_and_stale_digests_are_noted() {
    let fixture = PublishFixture::new();
    let config = json!({"model": {"path": "w.bin", "digest": Digest::of(b"W").to_string()}});
    let layers = [("application/vnd.kitops.modelkit.model.v1.tar", &b"W"[..], &[(TITLE, "w.bin")][..])];
    let digest = listing(&fixture, "v1", ("application/vnd.kitops.modelkit.config.v1+json", &config), &layers);
    let overlay = fixture.over("v1", digest).await;
    Edit(&fixture, &overlay).file("w.bin", b"changed").await;
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert_eq!(config_of(&fixture, &manifest(&fixture, &digest_of(&report))), config);
    assert!(report.notes.iter().any(|note| note.contains(&Digest::of(b"W").to_string())), "{:?}", report.notes);
}

#[tokio::test]
async fn unknown_sealing_formats_are_refused() {
    let fixture = PublishFixture::new();
    let config = (media_type::OCI_EMPTY, &b"{}"[..]);
    let digest = fixture.registry.add_artifact("app", "v1", config, &[("a/b", b"x", &[])], &[("dev.ocifs.seal", "age")]);
    let upper = fixture.uppers.create(
        &super::fixture::tag_key("v1"),
        Binding { under: Some(digest), expected: Some(digest), deleted: false },
        None,
    );
    let opened = crate::view::Overlay::open(&fixture.publisher.context, upper.unwrap()).await;
    assert_eq!(opened.err().map(|error| error.kind), Some(ErrorKind::KeyMissing));
}

#[tokio::test]
async fn a_renamed_tag_of_another_tool_keeps_its_manifest() {
    let fixture = PublishFixture::new();
    let digest = oras(&fixture);
    let renamed = fixture.begin("v2", Binding { under: Some(digest), expected: None, deleted: false }).await;
    fixture.registry.forget_requests();
    let digest_now = fixture.published(&renamed).await;
    assert_eq!((digest_now, fixture.tagged("v2"), fixture.tagged("v1")), (digest, Some(digest), Some(digest)));
    assert_eq!(fixture.registry.count(RequestKind::PushBlob), 0);
    assert_eq!(renamed.binding().expected, Some(digest));
}
