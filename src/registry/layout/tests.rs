//! Layouts written by tools, and corrupt ones.

use std::fs;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde_json::json;

use super::*;
use crate::oci::media_type;
use crate::registry::{Push, UploadSource};

fn fixture(name: &str) -> Layout {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).join("layout");
    Layout::open(&directory).unwrap()
}

fn repository() -> Repository {
    Layout::repository().unwrap()
}

fn tag(text: &str) -> Version {
    Version::Tag(Tag::parse(text).unwrap())
}

async fn read(layout: &Layout, descriptor: &Descriptor, range: Range<u64>) -> Result<Vec<u8>, Error> {
    let stream = layout.blob(&repository(), descriptor, range).await?;
    stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

/// A layout with one blob, tagged `v1`.
fn made(data: &[u8]) -> (tempfile::TempDir, Layout, Descriptor) {
    let directory = tempfile::tempdir().unwrap();
    let blobs = directory.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = Descriptor::new("a/b", Digest::of(data), data.len() as u64);
    fs::write(blobs.join(blob.digest.hex()), data).unwrap();
    let plain = json!({"mediaType": "a/b", "digest": blob.digest.to_string(), "size": blob.size});
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": plain, "layers": [plain]}).to_string();
    let digest = Digest::of(manifest.as_bytes());
    fs::write(blobs.join(digest.hex()), &manifest).unwrap();
    let entry = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "v1"}});
    fs::write(directory.path().join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
    fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layout = Layout::open(directory.path()).unwrap();
    (directory, layout, blob)
}

#[tokio::test]
async fn every_fixture_lists_its_tags_and_gives_manifests_and_blobs() {
    let fixtures = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).unwrap();
    let mut seen = 0;
    for entry in fixtures.map(|entry| entry.unwrap()).filter(|entry| entry.path().join("layout").is_dir()) {
        let layout = fixture(entry.file_name().to_str().unwrap());
        let names = layout.tags(&repository(), None).await.unwrap().names;
        assert!(!names.is_empty(), "{}", layout.origin());
        for name in names {
            let resolved = layout.resolve(&repository(), &tag(&name)).await.unwrap();
            let manifest = layout.manifest(&repository(), &tag(&name)).await.unwrap();
            assert_eq!((manifest.digest, Some(manifest.raw.len() as u64)), (resolved.digest, resolved.size));
            for layer in manifest.image().map(|image| image.layers.clone()).unwrap_or_default() {
                let data = read(&layout, &layer, 0..layer.size).await.unwrap();
                assert_eq!(Digest::of(&data), layer.digest);
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[tokio::test]
async fn referrers_are_found_by_subject_and_by_the_tag_schema() {
    let layout = fixture("oras-referrers");
    let subject = layout.resolve(&repository(), &tag("v1")).await.unwrap().digest;
    let types: Vec<_> = layout.referrers(&repository(), &subject).await.unwrap().into_iter().map(|found| found.artifact_type).collect();
    assert!(types.contains(&Some("application/spdx+json".to_owned())), "{types:?}");
    let layout = fixture("oras-fallback");
    let subject = layout.resolve(&repository(), &tag("v1")).await.unwrap().digest;
    let found = layout.referrers(&repository(), &subject).await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
}

#[tokio::test]
async fn a_range_is_exactly_that_range_and_one_outside_is_refused() {
    let data: Vec<u8> = (0..3_000_000_u32).map(|byte| byte as u8).collect();
    let (_directory, layout, blob) = made(&data);
    for range in [0..0, 0..1, 5..5, 255_000..270_000, 0..3_000_000, 2_999_999..3_000_000] {
        let expected = &data[range.start as usize..range.end as usize];
        assert!(read(&layout, &blob, range.clone()).await.unwrap() == expected, "{range:?}");
    }
    for range in [0..3_000_001, Range { start: 2, end: 1 }] {
        assert_eq!(read(&layout, &blob, range).await.unwrap_err().kind, ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_blob_that_is_short_long_or_missing_gives_no_byte() {
    let (directory, layout, blob) = made(b"good bytes");
    let file = directory.path().join("blobs/sha256").join(blob.digest.hex());
    assert_eq!(read(&layout, &blob, 0..blob.size).await.unwrap(), b"good bytes");
    for wrong in ["good byte", "good bytes!"] {
        fs::remove_file(&file).unwrap();
        fs::write(&file, wrong).unwrap();
        assert_eq!(read(&layout, &blob, 0..1).await.unwrap_err().kind, ErrorKind::Integrity, "{wrong}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(read(&layout, &blob, 0..1).await.unwrap_err().kind, ErrorKind::NotFound);
    fs::write(&file, "good bytes").unwrap();
    assert_eq!(read(&layout, &blob, 0..blob.size).await.unwrap(), b"good bytes");
}

#[tokio::test]
async fn a_symlinked_blob_is_read_only_inside_the_layout() {
    let (directory, layout, blob) = made(b"data");
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "data").unwrap();
    let file = directory.path().join("blobs/sha256").join(blob.digest.hex());
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(outside.path(), &file).unwrap();
    let error = read(&layout, &blob, 0..blob.size).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.message.contains(&blob.digest.hex()), "{error}");
    fs::remove_file(&file).unwrap();
    fs::write(directory.path().join("part1"), "data").unwrap();
    std::os::unix::fs::symlink("../../part1", &file).unwrap();
    assert_eq!(read(&layout, &blob, 0..blob.size).await.unwrap(), b"data");
}

#[tokio::test]
async fn a_changed_index_is_read_again() {
    let (directory, layout, _) = made(b"data");
    let index = directory.path().join("index.json");
    let text = fs::read_to_string(&index).unwrap().replace("\"v1\"", "\"other\"");
    fs::write(&index, text).unwrap();
    assert_eq!(layout.tags(&repository(), None).await.unwrap().names, ["other"]);
    assert_eq!(layout.resolve(&repository(), &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_large_or_swapped_manifest_is_an_integrity_error() {
    let (directory, layout, _) = made(b"data");
    let digest = layout.resolve(&repository(), &tag("v1")).await.unwrap().digest;
    let file = directory.path().join("blobs/sha256").join(digest.hex());
    for content in [vec![b' '; 5 << 20], b"{}".to_vec()] {
        fs::write(&file, content).unwrap();
        assert_eq!(layout.manifest(&repository(), &tag("v1")).await.unwrap_err().kind, ErrorKind::Integrity);
    }
}

#[test]
fn directories_that_are_not_layouts_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(Layout::open(&directory.path().join("none")).err().unwrap().kind, ErrorKind::NotFound);
    assert_eq!(Layout::open(directory.path()).err().unwrap().kind, ErrorKind::Invalid);
    fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(Layout::open(directory.path()).err().unwrap().kind, ErrorKind::Invalid);
}

fn pushed(data: &[u8]) -> (Descriptor, Arc<dyn UploadSource>) {
    (Descriptor::new("a/b", Digest::of(data), data.len() as u64), Arc::new(Bytes::copy_from_slice(data)))
}

async fn push(layout: &Layout, data: &[u8]) -> Result<(), Error> {
    let (blob, source) = pushed(data);
    layout.push_blob(&repository(), &blob, source, Arc::new(|_| {})).await
}

/// A manifest over the blob `{}`, made unique by a note.
fn noted(note: &str) -> Manifest {
    let plain = json!({"mediaType": "a/b", "digest": Digest::of(b"{}").to_string(), "size": 2});
    let raw = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": plain, "layers": [], "annotations": {"n": note}});
    let raw = Bytes::from(raw.to_string());
    let digest = Digest::of(&raw);
    Manifest::parse(raw, digest).unwrap()
}

#[tokio::test]
async fn an_empty_target_stays_untouched_until_the_first_push() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["absent", "empty"] {
        let path = directory.path().join(name);
        if name == "empty" {
            fs::create_dir(&path).unwrap();
        }
        let layout = Layout::open_or_begin(&path).unwrap();
        layout.ping(None).await.unwrap();
        assert!(layout.tags(&repository(), None).await.unwrap().names.is_empty());
        for version in [tag("v1"), Version::Digest(Digest::of(b"x"))] {
            assert_eq!(layout.resolve(&repository(), &version).await.unwrap_err().kind, ErrorKind::NotFound);
        }
        assert_eq!(fs::read_dir(&path).map(Iterator::count).unwrap_or(0), 0);
        push(&layout, b"{}").await.unwrap();
        layout.push_manifest(&repository(), &tag("v1"), &noted("one")).await.unwrap();
        assert_eq!(Layout::open(&path).unwrap().origin(), layout.origin());
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
        // From now on a missing index says nothing about tags.
        fs::remove_file(path.join("index.json")).unwrap();
        assert_eq!(layout.tags(&repository(), None).await.unwrap_err().kind, ErrorKind::Unreachable);
    }
}

#[test]
fn no_layout_is_created_among_other_files_or_without_a_parent() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("letter"), "").unwrap();
    let refused = |path: &Path| Layout::open_or_begin(path).err().map(|error| error.kind);
    assert_eq!(refused(directory.path()), Some(ErrorKind::Invalid));
    assert_eq!(refused(&directory.path().join("letter")), Some(ErrorKind::Invalid));
    assert_eq!(refused(&directory.path().join("no/where")), Some(ErrorKind::NotFound));
    std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
    assert!(refused(&directory.path().join("dangling")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_lose_none_of_each_other_s_tags() {
    let (directory, layout, _) = made(b"data");
    push(&layout, b"{}").await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let layout = Layout::open(directory.path()).unwrap();
        writers.spawn(async move {
            for number in 0..10 {
                let name = format!("w{writer}-{number}");
                layout.push_manifest(&repository(), &tag(&name), &noted(&name)).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let names = layout.tags(&repository(), None).await.unwrap().names;
    assert_eq!(names.len(), 41, "{names:?}");
}

#[tokio::test]
async fn a_failed_push_leaves_no_file_and_the_old_index() {
    let (directory, layout, _) = made(b"data");
    let before = fs::read(directory.path().join("index.json")).unwrap();
    let (blob, _) = pushed(b"right");
    let (_, wrong) = pushed(b"wrong");
    let error = layout.push_blob(&repository(), &blob, wrong, Arc::new(|_| {})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity);
    let error = layout.push_manifest(&repository(), &tag("v1"), &noted("x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert_eq!(fs::read(directory.path().join("index.json")).unwrap(), before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    fs::write(directory.path().join("index.json"), "{broken").unwrap();
    push(&layout, b"{}").await.unwrap();
    let error = layout.push_manifest(&repository(), &tag("v2"), &noted("x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    assert_eq!(fs::read(directory.path().join("index.json")).unwrap(), b"{broken");
}

#[tokio::test]
async fn nothing_is_written_through_a_link_leading_outside() {
    let (directory, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(directory.path().join("index.json"), r#"{"manifests":[]}"#).unwrap();
    std::os::unix::fs::symlink(outside.path(), directory.path().join("blobs")).unwrap();
    let layout = Layout::open(directory.path()).unwrap();
    assert!(push(&layout, b"{}").await.is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn pushing_a_blob_again_repairs_a_wrong_one() {
    let (directory, layout, blob) = made(b"data");
    fs::write(directory.path().join("blobs/sha256").join(blob.digest.hex()), "dat").unwrap();
    assert!(!layout.has_blob(&repository(), &blob).await.unwrap());
    push(&layout, b"data").await.unwrap();
    assert_eq!(read(&layout, &blob, 0..4).await.unwrap(), b"data");
}

#[test]
fn layouts_begun_at_the_same_moment_are_one() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    fs::write(&source, b"blob").unwrap();
    let digest = Digest::of(b"blob");
    for round in 0..200 {
        let path = directory.path().join(round.to_string());
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let layout = Layout::open_or_begin(&path).unwrap();
                    layout.adopt_blob(&digest, &source).unwrap();
                });
            }
        });
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
    }
}
