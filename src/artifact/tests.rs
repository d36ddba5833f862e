//! Whole artifacts: every fixture against the tree that its own tool unpacks, then properties of whole artifacts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::listing::differences;
use super::*;
use crate::cache::{self, SpanCache};
use crate::content::{self, Contents, KeyRing};
use crate::error::{Error, ErrorKind};
use crate::layer::LayerIndex;
use crate::oci::{Descriptor, Digest, Repository, Tag, Version, media_type};
use crate::registry::{Fault, Layout, Memory, PlainLayer, Pull, RequestKind, Trust};
use crate::seal::Passphrase;

mod attached_index;
mod odd;
mod published;

/// Artifacts of `pull` with a cache in `directory`.
pub(super) fn artifacts(pull: Arc<dyn Pull>, directory: &Path, offline: bool, secret: Option<&'static str>) -> Artifacts {
    let cache = SpanCache::open(cache::Config { directory: directory.to_owned(), size: 1 << 30, min_free: 0 }).unwrap();
    let mut config = content::Config::new(Arc::clone(&pull), cache.clone());
    if let Some(secret) = secret {
        let source = move || Ok(Some(Passphrase::new(secret.as_bytes().to_vec())));
        config.keys = KeyRing::new(vec![Arc::new(source)]);
    }
    Artifacts::new(pull, Contents::new(config), cache, options(offline))
}

/// Artifacts of `pull` with an option of their own.
fn artifacts_with(pull: Arc<dyn Pull>, directory: &Path, change: impl FnOnce(&mut Options)) -> Artifacts {
    let cache = SpanCache::open(cache::Config { directory: directory.to_owned(), size: 1 << 30, min_free: 0 }).unwrap();
    let mut options = options(false);
    change(&mut options);
    Artifacts::new(Arc::clone(&pull), Contents::new(content::Config::new(pull, cache.clone())), cache, options)
}

fn options(offline: bool) -> Options {
    Options {
        tag_ttl: Duration::from_secs(3600),
        platform: "linux/amd64".parse().unwrap(),
        view: ViewMode::Merged,
        offline,
        strict: false,
        trust_referrers: false,
        access_order: false,
        repositories: Vec::new(),
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

async fn shown(artifacts: &Artifacts, repository: &Repository, name: &str) -> Result<Arc<Artifact>, Error> {
    let digest = artifacts.tag(repository, &tag(name)).await?;
    artifacts.artifact(repository, &digest, ViewMode::Merged, false).await
}

/// Every name of a tree, directories with a slash, with the length and digest of readable content.
async fn contents(artifacts: &Artifacts, repository: &Repository, artifact: &Artifact) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut open = vec![(0, String::new())];
    while let Some((directory, path)) = open.pop() {
        for child in artifact.tree.children(directory, 0) {
            let path = format!("{path}{}", String::from_utf8_lossy(child.name));
            match artifact.tree.node(child.node).unwrap().kind {
                Kind::Directory => open.push((child.node, format!("{path}/"))),
                Kind::File => out.push((path, Digest::of(&bytes_of(artifacts, repository, artifact, child.node).await.unwrap()).hex())),
                _ => {}
            }
        }
    }
    out.sort();
    out
}

async fn bytes_of(artifacts: &Artifacts, repository: &Repository, artifact: &Artifact, node: NodeId) -> Result<Vec<u8>, Error> {
    let content = artifact.tree.content(node).unwrap();
    let mut bytes = vec![0; artifact.tree.node(node).unwrap().size as usize];
    for extent in &content.extents {
        let stream = artifacts.stream(repository, artifact, content.blob, false).await.unwrap();
        let read = stream.read(extent.stream..extent.stream + extent.length).await?;
        bytes[extent.file as usize..][..extent.length as usize].copy_from_slice(&read);
    }
    Ok(bytes)
}

fn find(artifact: &Artifact, path: &str) -> Option<NodeId> {
    artifact.tree.find(path.as_bytes())
}

const SECRET: &str = "correct horse battery staple";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fixture_is_the_tree_that_its_own_tool_unpacks_and_again_offline() {
    let cache = tempfile::tempdir().unwrap();
    let layout_of = Layout::repository().unwrap();
    let (mut failures, mut compared) = (Vec::new(), 0);
    for fixture in std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.join("expected").is_dir()) {
        let pull: Arc<dyn Pull> = Arc::new(Layout::open(&fixture.join("layout")).unwrap());
        let online = artifacts(Arc::clone(&pull), cache.path(), false, Some(SECRET));
        let mut seen = Vec::new();
        for list in std::fs::read_dir(fixture.join("expected")).unwrap().map(|entry| entry.unwrap().path()) {
            // eStargz's plain list is what an unpacker without eStargz support would show.
            let file = list.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(name) = file.strip_suffix(".tsv").filter(|name| !name.ends_with(".plain")) else { continue };
            let artifact = shown(&online, &layout_of, name).await.unwrap();
            let found = differences(&std::fs::read_to_string(&list).unwrap(), &artifact.tree);
            if !found.is_empty() {
                failures.push(format!("{}:{name}\n{}", fixture.display(), found.join("\n")));
            }
            for (path, digest) in contents(&online, &layout_of, &artifact).await {
                let known = artifact.tree.content(find(&artifact, &path).unwrap_or_default()).and_then(|content| content.sha256);
                if known.is_some_and(|known| Digest::from_sha256(known).hex() != digest) {
                    failures.push(format!("{}:{name}: {path} reads as other bytes", fixture.display()));
                }
            }
            seen.push((name.to_owned(), artifact));
            compared += 1;
        }
        online.flush().await;
        let offline = artifacts(pull, cache.path(), true, Some(SECRET));
        for (name, artifact) in seen {
            let again = shown(&offline, &layout_of, &name).await.unwrap();
            assert_eq!(again.tree.as_bytes(), artifact.tree.as_bytes(), "{}:{name}", fixture.display());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(compared > 50, "only {compared} lists were found");
}

/// An in-memory registry and a cache directory.
fn memory() -> (Arc<Memory>, tempfile::TempDir) {
    (Arc::new(Memory::with_origin("https://reg.test", Trust::Transport)), tempfile::tempdir().unwrap())
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(1000);
        builder.append_data(&mut header, path, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

const TITLE: &str = "org.opencontainers.image.title";
const UNPACK: (&str, &str) = ("io.deis.oras.content.unpack", "true");
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/octet-stream";

#[tokio::test]
async fn titles_that_clash_or_escape_lose_no_data() {
    let (registry, cache) = memory();
    let layers: &[PlainLayer<'_>] = &[
        (PLAIN, b"one", &[(TITLE, "a")]),
        (PLAIN, b"two", &[(TITLE, "a")]),
        (PLAIN, b"two", &[(TITLE, "a")]),
        (PLAIN, b"three", &[(TITLE, "a/b")]),
        (PLAIN, b"four", &[(TITLE, "../up")]),
        (PLAIN, b"five", &[(TITLE, "/abs")]),
        (PLAIN, b"six", &[(TITLE, "")]),
        (PLAIN, b"seven", &[(TITLE, "d")]),
        (PLAIN, b"eight", &[(TITLE, "d/inner")]),
        (PLAIN, b"nine", &[]),
    ];
    registry.add_artifact("r", "v1", (media_type::OCI_EMPTY, b"{}"), layers, &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let found = contents(&artifacts, &repository("r"), &artifact).await;
    let short = |data: &[u8]| Digest::of(data).short();
    let mut expected = vec![
        ("a".to_owned(), &b"one"[..]),
        (format!("a~{}", short(b"two")), b"two"),
        (format!("b~{}", short(b"three")), b"three"),
        (format!("up~{}", short(b"four")), b"four"),
        (format!("abs~{}", short(b"five")), b"five"),
        (Digest::of(b"six").path_name(), b"six"),
        ("d".to_owned(), b"seven"),
        (format!("inner~{}", short(b"eight")), b"eight"),
        (Digest::of(b"nine").path_name(), b"nine"),
    ];
    expected.sort();
    let expected: Vec<(String, String)> = expected.into_iter().map(|(name, data)| (name, Digest::of(data).hex())).collect();
    assert_eq!(found, expected);
    let up = find(&artifact, &format!("up~{}", short(b"four"))).unwrap();
    assert_eq!(artifact.tree.xattrs(up), [(&b"user.oci.title"[..], &b"../up"[..])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_trees_and_indexes_are_dropped() {
    let (registry, cache) = memory();
    let layer = tar_of(&[("a", "1"), ("b", "2")]);
    registry.add_artifact("r", "v2", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &layer, &[])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = shown(&artifacts, &repository("r"), "v2").await.unwrap();
    contents(&artifacts, &repository("r"), &artifact).await;
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&*cache.path().join("v2/documents").to_string_lossy())).count()
    };
    let (tree, before) = (Arc::downgrade(&artifact), mapped());
    artifacts.let_go();
    assert!(tree.upgrade().is_some() && mapped() < before, "the index goes, and what is used stays");
    drop(artifact);
    // Prefetch may hold the last one for a moment.
    for _ in 0..1000 {
        artifacts.let_go();
        if tree.upgrade().is_none() && mapped() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} documents are still mapped", mapped());
}

#[tokio::test]
async fn a_titled_manifest_is_a_file_but_not_a_blob() {
    let (registry, cache) = memory();
    registry.add_artifact("r", "v1", (media_type::OCI_EMPTY, b"{}"), &[(PLAIN, b"one", &[(TITLE, "a")])], &[(TITLE, "itself")]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let found = contents(&artifacts, &repository("r"), &artifact).await;
    assert_eq!(found[1], ("itself".to_owned(), artifact.manifest.digest.hex()));
}

#[tokio::test]
async fn a_tag_or_digest_names_a_digest_if_its_manifest_exists() {
    let (registry, cache) = memory();
    let digest = registry.add_artifact("r", "v1", (media_type::OCI_EMPTY, b"{}"), &[(PLAIN, b"one", &[])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    for text in ["v1".to_owned(), digest.to_string()] {
        assert_eq!(artifacts.digest(&repository("r"), &Version::parse(&text).unwrap()).await.unwrap(), digest, "{text}");
    }
    for text in ["v2".to_owned(), Digest::of(b"absent").to_string()] {
        let absent = artifacts.digest(&repository("r"), &Version::parse(&text).unwrap()).await;
        assert_eq!(absent.unwrap_err().kind, ErrorKind::NotFound, "{text}");
    }
}

#[tokio::test]
async fn a_layer_that_cannot_be_unpacked_never_hides_its_neighbours() {
    let (registry, cache) = memory();
    let good = tar_of(&[("docs/x", "x")]);
    let layers: &[PlainLayer<'_>] = &[
        (GZIP, &good, &[(TITLE, "docs"), UNPACK]),
        (GZIP, b"no archive at all", &[(TITLE, "more"), UNPACK]),
        (PLAIN, b"raw", &[(TITLE, "raw")]),
    ];
    registry.add_artifact("r", "v1", (media_type::OCI_EMPTY, b"{}"), layers, &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let names: Vec<String> = contents(&artifacts, &repository("r"), &artifact).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["docs/x".to_owned(), format!("more~{}", Digest::of(b"no archive at all").short()), "raw".to_owned()]);
}

#[tokio::test]
async fn a_broken_layer_fails_an_image_and_names_the_layer() {
    let (registry, cache) = memory();
    let good = tar_of(&[("x", "x")]);
    registry.add_artifact("r", "v1", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &good, &[]), (GZIP, &b"garbage, not a tar"[..], &[])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let error = shown(&artifacts, &repository("r"), "v1").await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Integrity);
    assert!(error.message.contains(&Digest::of(b"garbage, not a tar").hex()), "{error}");
    // A single layer is unaffected by its neighbour.
    let digest = artifacts.tag(&repository("r"), &tag("v1")).await.unwrap();
    let manifest = artifacts.manifest(&repository("r"), &digest).await.unwrap();
    let first = artifacts.layer(&repository("r"), &manifest, 0, false).await.unwrap();
    assert!(find(&first, "x").is_some());
    assert_eq!(artifacts.layer(&repository("r"), &manifest, 2, false).await.err().unwrap().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_single_layer_shows_its_whiteouts() {
    let (registry, cache) = memory();
    let (lower, upper) = (tar_of(&[("a", "1"), ("b", "2")]), tar_of(&[(".wh.a", ""), ("c", "3")]));
    registry.add_artifact("r", "v1", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &lower, &[]), (GZIP, &upper, &[])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let whole = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let names = |artifact: &Artifact| -> Vec<String> {
        artifact.tree.children(0, 0).map(|child| String::from_utf8_lossy(child.name).into_owned()).collect()
    };
    assert_eq!((names(&whole), whole.dialect), (vec!["b".to_owned(), "c".to_owned()], Dialect::Image));
    let alone = artifacts.layer(&repository("r"), &whole.shown, 1, false).await.unwrap();
    assert_eq!(names(&alone), [".wh.a", "c"]);
    let layers = artifacts.artifact(&repository("r"), &whole.manifest.digest, ViewMode::Layers, false).await.unwrap();
    assert_eq!(names(&layers), [format!("00-{}", Digest::of(&lower).short()), format!("01-{}", Digest::of(&upper).short())]);
    let blobs = artifacts.artifact(&repository("r"), &whole.manifest.digest, ViewMode::Blobs, false).await.unwrap();
    let mut expected = vec![Digest::of(b"{}").path_name(), Digest::of(&lower).path_name(), Digest::of(&upper).path_name()];
    expected.sort();
    assert_eq!(names(&blobs), expected);
}

#[tokio::test]
async fn a_sealed_artifact_asks_for_its_key_and_shows_its_blobs() {
    let (registry, cache) = memory();
    registry.add_artifact("r", "v1", (media_type::OCI_EMPTY, b"{}"), &[(PLAIN, b"sealed", &[])], &[("dev.ocifs.seal", "age")]);
    registry.add_artifact(
        "r",
        "v2",
        (media_type::OCI_CONFIG, b"{}"),
        &[(PLAIN, &[7; 100], &[])],
        &[("io.oci-sync.version", "1"), ("io.oci-sync.encrypted", "true")],
    );
    let artifacts = artifacts(registry, cache.path(), false, None);
    for name in ["v1", "v2"] {
        assert_eq!(shown(&artifacts, &repository("r"), name).await.err().unwrap().kind, ErrorKind::KeyMissing);
        let digest = artifacts.tag(&repository("r"), &tag(name)).await.unwrap();
        let blobs = artifacts.artifact(&repository("r"), &digest, ViewMode::Blobs, false).await.unwrap();
        assert_eq!(contents(&artifacts, &repository("r"), &blobs).await.len(), 2);
    }
}

/// An index with a member for each name and platform; `-` means no platform.
fn add_index(registry: &Memory, members: &[(&str, &str)]) -> Digest {
    let entries: Vec<_> = members
        .iter()
        .map(|(name, platform)| {
            let digest = registry.add_artifact("r", name, (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &tar_of(&[(name, name)]), &[])], &[]);
            let mut entry = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": 1});
            if let Some((os, architecture)) = platform.split_once('/') {
                entry["platform"] = json!({"os": os, "architecture": architecture});
            }
            entry
        })
        .collect();
    registry.add_manifest("r", json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string())
}

#[tokio::test]
async fn an_index_shows_and_names_the_member_for_the_platform() {
    let (registry, cache) = memory();
    let digest = add_index(&registry, &[("arm", "linux/arm64"), ("amd", "linux/amd64"), ("att", "unknown/unknown")]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.unwrap();
    assert!(find(&artifact, "amd").is_some());
    assert_eq!(artifact.platform.as_ref().unwrap().to_string(), "linux/amd64");
    assert_ne!(artifact.shown.digest, artifact.manifest.digest);
}

#[tokio::test]
async fn without_a_matching_platform_members_are_directories_and_bad_ones_empty() {
    let (registry, cache) = memory();
    let digest = add_index(&registry, &[("arm", "linux/arm64"), ("win", "windows/amd64"), ("plain", "-"), ("att", "unknown/unknown")]);
    let gone = crate::registry::Pull::resolve(&*registry, &repository("r"), &crate::oci::Version::Tag(tag("win"))).await.unwrap().digest;
    registry.remove_manifest("r", &gone);
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let artifact = artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.unwrap();
    assert_eq!((artifact.dialect, &artifact.platform), (Dialect::Members, &None));
    assert!(find(&artifact, "linux-arm64/arm").is_some());
    assert_eq!(artifact.tree.children(find(&artifact, "windows-amd64").unwrap(), 0).count(), 0);
    assert_eq!(artifact.tree.children(0, 0).count(), 3);
}

#[tokio::test]
async fn a_registry_that_fails_midway_leaves_nothing_wrong_behind() {
    let (registry, cache) = memory();
    let digest = add_index(&registry, &[("arm", "linux/arm64"), ("plain", "-")]);
    registry.plan(RequestKind::Manifest, 2, 1, Fault::Error(ErrorKind::Unreachable));
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let error = artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    registry.mend();
    let artifact = artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.unwrap();
    assert_eq!(artifact.tree.children(0, 0).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_layer_builds_within_bounds_into_one_shared_artifact() {
    let (registry, cache) = memory();
    let names: Vec<String> = (0..3000).map(|number| format!("d{}/f{number}", number % 50)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "data")).collect();
    registry.add_artifact("r", "v1", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &tar_of(&files), &[])], &[]);
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let of_r = repository("r");
    let all = futures_util::future::join_all((0..16).map(|_| shown(&artifacts, &of_r, "v1"))).await;
    let first = all[0].as_ref().unwrap();
    assert!(all.iter().all(|other| Arc::ptr_eq(first, other.as_ref().unwrap())));
    assert_eq!((registry.count(RequestKind::Manifest), registry.count(RequestKind::Blob)), (1, 1));
    assert_eq!(first.tree.node_count(), 1 + 50 + 3000);
}

#[test]
fn index_types_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<LayerIndex>();
    shared::<Tree>();
    shared::<Artifacts>();
}
