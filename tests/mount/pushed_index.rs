//! `ocifs index`: indexes that are published after the artifact, and mounts that trust them or do not.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;

use crate::support::artifacts::{Draft, LAYER, gzip, noise, tar};
use crate::support::commands::{self, fails, prints};
use crate::support::mounting::Home;
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const MIB: usize = 1 << 20;

/// Bytes that deflate finds much in, so that most of its blocks refer back.
fn words(length: usize) -> Vec<u8> {
    let numbers = noise(7, length / 2);
    numbers.iter().flat_map(|byte| format!("{} ", byte / 3).into_bytes()).take(length).collect()
}

/// A registry with the image `team/app:v1`: one gzip layer with a large file, compressed as any tool does.
fn image(files: &[(&str, &[u8])]) -> Registry {
    let registry = Registry::plain();
    let mut draft = Draft::new();
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(files)));
    draft.image("v1", &[layer]);
    draft.layout().push(&registry.url(), "team/app");
    registry
}

fn read_at(path: &Path, offset: usize) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset as u64).unwrap();
    bytes
}

fn verified(path: &Path) -> String {
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(path, "user.oci.verified", &mut value[..]).unwrap();
    String::from_utf8(value[..length].to_vec()).unwrap()
}

#[test]
fn a_pushed_index_lets_a_mount_that_trusts_it_read_4_kib_of_a_cold_gzip_layer_in_three_round_trips() {
    if lacks(&NEEDS) {
        return;
    }
    let data = words(24 * MIB);
    let registry = image(&[("first", &noise(1, 3 * MIB)), ("big", &data), ("last", b"end")]);
    let proxy = Proxy::start(registry.url());
    let reference = format!("{}/team/app:v1", proxy.host());
    let report = commands::json(&Home::new(), &["index", "push", &reference]);
    assert_eq!(report["layers"].as_array().unwrap().len(), 1);
    assert_eq!(report["layers"][0]["index"]["entries"], 3);
    // The same index again is the same referrer.
    assert_eq!(commands::json(&Home::new(), &["index", "push", &reference])["digest"], report["digest"]);

    let home = Home::new();
    let mount = home.mount(&reference, &["--read-only", "--trust-index", "referrer"]);
    proxy.forget();
    let at = 17 * MIB + 123;
    assert!(read_at(&mount.path("big"), at) == data[at..at + 4096]);
    let seen = proxy.requests();
    // This registry has no API for referrers, so their list takes a request that fails, and one for its tag.
    let asked = seen.iter().filter(|request| request.path.contains("/blobs/") || request.path.contains("/manifests/")).count();
    assert!(asked <= 3 + 1, "{seen:?}");
    let layer = report["layers"][0]["digest"].as_str().unwrap();
    assert!(proxy.sent(layer) < 5 * MIB as u64, "{}", proxy.sent(layer));
    assert_eq!((verified(&mount.path("big")), verified(mount.root())), ("index".to_owned(), "index".to_owned()));
    assert!(std::fs::read(mount.path("big")).unwrap() == data && mount.cat("last").unwrap() == b"end");
    mount.unmount();

    // Without the flag nothing of it is used, even where it is cached by now.
    let mount = home.mount(&reference, &[]);
    assert_eq!(verified(&mount.path("big")), "whole");
    assert!(read_at(&mount.path("big"), at) == data[at..at + 4096]);
    mount.unmount();
    // What was verified as a whole is better than what a stranger says.
    let mount = home.mount(&reference, &["--read-only", "--trust-index", "referrer"]);
    assert_eq!(verified(&mount.path("big")), "whole");
    mount.unmount();
}

#[test]
fn a_pushed_index_of_another_layer_is_refused() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = image(&[("true", b"true"), ("same", b"same")]);
    let proxy = Proxy::start(registry.url());
    let reference = format!("{}/team/app:v1", proxy.host());
    let home = Home::new();
    // The index of another layer, published as that of this one.
    let mut other = Draft::new();
    let layer = other.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("lie!", b"lies"), ("same", b"same")])));
    other.image("v1", &[layer]);
    let (layout, file) = (format!("oci:{}:v1", other.path().display()), home.path("other.index"));
    prints(&home, &["index", "build", &layout, "--output-file", file.to_str().unwrap()]);
    let subject = commands::manifest(&home, &reference);
    let blob = commands::json(&home, &["blob", "put", &format!("{}/team/app", registry.host()), file.to_str().unwrap(), "--descriptor"]);
    let index = json!({
        "mediaType": "application/vnd.ocifs.index.v1+zstd", "digest": blob["digest"], "size": blob["size"],
        "annotations": { "dev.ocifs.index.of": subject["layers"][0]["digest"] },
    });
    let digest = prints(&home, &["resolve", &reference]);
    let digest = digest.trim().rsplit('@').next().unwrap().to_owned();
    let size = prints(&home, &["manifest", "get", &reference]).len();
    let empty = home.write("empty", "{}");
    prints(&home, &["blob", "put", &format!("{}/team/app", registry.host()), empty.to_str().unwrap()]);
    let referrer = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.ocifs.index.v1",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": crate::support::artifacts::digest(b"{}"), "size": 2 },
        "layers": [index], "subject": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size },
    });
    let manifest = home.write("referrer.json", referrer.to_string());
    prints(&home, &["manifest", "put", &format!("{}/team/app:keep", registry.host()), manifest.to_str().unwrap()]);

    let mount = home.mount(&reference, &["--read-only", "--trust-index", "referrer"]);
    assert_eq!(mount.ls("").unwrap(), ["same", "true"]);
    assert_eq!(mount.cat("true").unwrap(), b"true");
    assert_eq!(proxy.count("GET", blob["digest"].as_str().unwrap()), 1, "the index was looked at: {:?}", proxy.requests());
    mount.unmount();
}

#[test]
fn indexes_are_built_and_shown_without_publishing_anything() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = image(&[("a", &words(5 * MIB)), ("b", b"b")]);
    let reference = format!("{}/team/app:v1", registry.host());
    let home = Home::new();
    let before = commands::json(&home, &["index", "show", &reference]);
    assert_eq!((&before["layers"][0]["from"], &before["layers"][0]["index"]), (&json!("nobody"), &json!(null)));
    let file = home.path("layer.index");
    let built = commands::json(&home, &["index", "build", &reference, "--output-file", file.to_str().unwrap()]);
    let shown = commands::json(&home, &["index", "show", file.to_str().unwrap()]);
    assert_eq!(shown["layer"], built["layer"]["digest"]);
    assert_eq!(shown["index"], built["layer"]["index"]);
    assert_eq!(shown["index"]["entries"], 2);
    assert!(shown["index"]["spans"].as_u64().unwrap() >= 5, "{shown}");
    assert_eq!(shown["index"]["size"], std::fs::metadata(&file).unwrap().len());

    prints(&home, &["index", "push", &reference]);
    let after = commands::json(&home, &["index", "show", &reference]);
    assert_eq!(after["layers"][0]["from"], "referrer");
    assert_eq!(after["layers"][0]["index"], built["layer"]["index"]);
    for words in [&["index", "show", &reference][..], &["index", "show", file.to_str().unwrap()]] {
        assert!(prints(&home, words).to_lowercase().contains("entries"), "{words:?}");
    }

    fails(&home, &["index", "build", &reference, "--output-file", "x", "--layer", "7"], 2, "--layer");
    let broken = home.write("broken", "no index");
    fails(&home, &["index", "show", broken.to_str().unwrap()], 1, "index");
}

#[test]
fn trust_in_referrers_is_refused_where_digests_alone_are_trusted() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let point = home.path("point");
    std::fs::create_dir_all(&point).unwrap();
    let point = point.to_str().unwrap();
    let digest = crate::support::artifacts::digest(b"x");
    for (source, flags) in [
        ("127.0.0.1:1/a:b".to_owned(), &["--verify", "strict", "--read-only"][..]),
        ("127.0.0.1:1/a:b".to_owned(), &[]),
        ("127.0.0.1:1/a:b".to_owned(), &["--profile", "small-files", "--read-only"]),
        (format!("127.0.0.1:1/a@{digest}"), &[]),
    ] {
        let words = [&["mount", &source, point, "--trust-index", "referrer"], flags].concat();
        fails(&home, &words, 2, "--trust-index referrer");
    }
}
