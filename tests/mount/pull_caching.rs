//! Commands that read artifacts use what is in the cache, and store no content in it.

use std::path::Path;

use crate::support::artifacts::{self, Draft, LAYER, gzip, noise};
use crate::support::commands::{fails, prints};
use crate::support::layouts::Layout;
use crate::support::mounting::{Home, text};
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const REGISTRY: [Need; 1] = [Need::Tool("docker-registry")];

/// The streams, indexes and trees in the cache of a home.
fn content(home: &Home) -> Vec<String> {
    let root = home.path("cache/ocifs/v2");
    let names = |directory: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path().display().to_string()).collect()
    };
    let mut found: Vec<String> = names(&root.join("streams")).iter().flat_map(|shard| names(shard.as_ref())).collect();
    for part in ["work", "documents/index", "documents/tree", "documents/envelope"] {
        found.extend(names(&root.join(part)));
    }
    found
}

fn files() -> Vec<(String, Vec<u8>)> {
    (0..60).map(|number| (format!("d/f{number:02}"), noise(number, 70_000))).collect()
}

/// An artifact with a compressed image, tag `image`, and the same as files, tag `raw`.
fn artifact() -> Draft {
    let files = files();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let mut artifact = Draft::new();
    let half = |part: &[(&str, &[u8])]| artifact.blob(&format!("{LAYER}+gzip"), &gzip(&artifacts::tar(part)));
    let layers = [half(&files[..40]), half(&files[40..])];
    artifact.image("image", &layers);
    let mut titled = files.clone();
    let large = noise(99, 3_000_000);
    titled.push(("large", &large));
    artifact.files("raw", &titled);
    artifact
}

fn assert_pulled(out: &Path) {
    for (path, bytes) in files() {
        assert!(std::fs::read(out.join(&path)).unwrap() == bytes, "{path}");
    }
}

#[test]
fn commands_that_read_artifacts_store_no_content() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    artifact().layout().push(&registry.url(), "app");
    Layout::fixture("oci-sync-go").push(&registry.url(), "sealed");
    let passphrase = home.write_private("passphrase", "correct horse battery staple\n");
    let (image, raw) = (format!("{}/app:image", registry.host()), format!("{}/app:raw", registry.host()));
    let (sealed, passphrase) = (format!("{}/sealed:sealed", registry.host()), passphrase.to_str().unwrap());
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let digest = artifacts::digest(&noise(99, 3_000_000));
    let blob = format!("{}/app@{digest}", registry.host());
    let commands: [&[&str]; 10] = [
        &["pull", &image, &path("image")],
        &["pull", &image, &path("image")],
        &["pull", &raw, &path("raw"), "--verify", "strict"],
        &["pull", &raw, &path("raw")],
        &["pull", &sealed, &path("sealed"), "--passphrase-file", passphrase],
        &["pull", &image, "-o", "-", "--path", "d/f07"],
        &["cp", &image, &format!("oci:{}:v1", path("copy"))],
        &["unpack", &raw, &path("unpacked")],
        &["unpack", &image, &path("unpacked-image")],
        &["blob", "get", &blob, "-o", &path("blob")],
    ];
    for command in commands {
        let output = home.run(command);
        assert!(output.status.success(), "{command:?}: {}", text(&output));
        assert_eq!(content(&home), [""; 0], "{command:?}");
    }
    assert_pulled(&home.path("image"));
    assert_pulled(&home.path("raw"));
    assert!(std::fs::read_dir(home.path("sealed")).unwrap().next().is_some());
}

#[test]
fn a_pull_reads_what_is_cached_while_the_registry_is_down() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, mut registry) = (Home::new(), Registry::plain());
    artifact().layout().push(&registry.url(), "app");
    let (image, raw) = (format!("{}/app:image", registry.host()), format!("{}/app:raw", registry.host()));
    let out = home.path("out");
    prints(&home, &["warm", &image]);
    let before = content(&home);
    assert!(!before.is_empty());
    prints(&home, &["pull", &raw, home.path("raw").to_str().unwrap()]);
    registry.stop();
    prints(&home, &["pull", &image, out.to_str().unwrap()]);
    assert_pulled(&out);
    assert_eq!(content(&home), before);
    // What was pulled is not cached.
    fails(&home, &["pull", &raw, home.path("again").to_str().unwrap(), "--io-timeout", "2s"], 14, "");
}

#[test]
fn a_glob_fetches_only_the_spans_it_needs_where_an_index_is_attached() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    let source = home.path("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..60 {
        std::fs::write(source.join(format!("f{number:02}")), noise(number, 300_000)).unwrap();
    }
    let reference = format!("{}/app:v1", registry.host());
    prints(&home, &["push", &reference, ".", "-q"].map(|argument| if argument == "." { source.to_str().unwrap() } else { argument }));
    let out = home.path("out");
    prints(&home, &["pull", &format!("{}/app:v1", proxy.host()), out.to_str().unwrap(), "--path", "**/f31"]);
    let sent: u64 = proxy.requests().iter().filter(|request| request.path.contains("/blobs/")).map(|request| request.sent).sum();
    assert!((300_000..4_000_000).contains(&sent), "{sent} of 18 MB were fetched");
    assert_eq!(content(&home).iter().filter(|path| path.contains("/streams/")).count(), 0);
}
