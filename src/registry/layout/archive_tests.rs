//! Archives that are added to, interrupted, or invalid.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::oci::media_type;
use crate::registry::{Push, UploadSource};

fn repository() -> Repository {
    Layout::repository().unwrap()
}

fn blob(data: &[u8]) -> Descriptor {
    Descriptor::new("a/b", Digest::of(data), data.len() as u64)
}

async fn push(layout: &Layout, data: &[u8]) {
    let source: Arc<dyn UploadSource> = Arc::new(Bytes::copy_from_slice(data));
    layout.push_blob(&repository(), &blob(data), source, Arc::new(|_| {})).await.unwrap();
}

/// Puts an artifact of one layer under a tag.
async fn put(layout: &Layout, name: &str, data: &[u8]) {
    push(layout, b"{}").await;
    push(layout, data).await;
    let plain = |data: &[u8]| json!({"mediaType": "a/b", "digest": Digest::of(data).to_string(), "size": data.len()});
    let raw = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": plain(b"{}"), "layers": [plain(data)]});
    let raw = Bytes::from(raw.to_string());
    let manifest = Manifest::parse(raw.clone(), Digest::of(&raw)).unwrap();
    layout.push_manifest(&repository(), &Version::Tag(Tag::parse(name).unwrap()), &manifest).await.unwrap();
}

async fn tags(file: &Path) -> Vec<String> {
    Layout::open_archive(file).unwrap().tags(&repository(), None).await.unwrap().names
}

struct Place {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { file: folder.path().join("a.tar"), folder }
    }

    async fn with(name: &str, data: &[u8]) -> Self {
        let place = Self::new();
        let layout = Layout::open_or_begin_archive(&place.file).unwrap();
        put(&layout, name, data).await;
        layout.finish().await.unwrap();
        place
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn an_extended_archive_keeps_its_content_and_readers_see_old_or_new() {
    let place = Place::with("v1", &[1; 100_000]).await;
    let before = Layout::open_archive(&place.file).unwrap();
    let layout = Layout::open_or_begin_archive(&place.file).unwrap();
    assert!(layout.has_blob(&repository(), &blob(&[1; 100_000])).await.unwrap());
    put(&layout, "v2", &[2; 600]).await;
    assert_eq!(tags(&place.file).await, ["v1"]);
    layout.finish().await.unwrap();
    assert_eq!((tags(&place.file).await, place.names()), (vec!["v1".to_owned(), "v2".to_owned()], vec!["a.tar".to_owned()]));
    let after = Layout::open_archive(&place.file).unwrap();
    for (layout, data) in [(&before, vec![1; 100_000]), (&after, vec![1; 100_000]), (&after, vec![2; 600])] {
        let stream = layout.blob(&repository(), &blob(&data), 0..data.len() as u64).await.unwrap();
        let read: Vec<Bytes> = futures_util::TryStreamExt::try_collect(stream).await.unwrap();
        assert!(read.concat() == data);
    }
    // The archive contains only the last index.
    let file = fs::File::open(&place.file).unwrap();
    let mut archive = tar::Archive::new(file);
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names.iter().filter(|name| name.as_path() == Path::new("index.json")).count(), 1);
}

#[tokio::test]
async fn nothing_to_add_leaves_the_archive_alone() {
    let place = Place::with("v1", b"data").await;
    let before = fs::metadata(&place.file).unwrap().modified().unwrap();
    let layout = Layout::open_or_begin_archive(&place.file).unwrap();
    layout.finish().await.unwrap();
    drop(layout);
    assert_eq!((fs::metadata(&place.file).unwrap().modified().unwrap(), place.names()), (before, vec!["a.tar".to_owned()]));
}

#[tokio::test]
async fn blobs_of_an_interrupted_writer_are_reused_but_torn_ones_are_not() {
    let place = Place::with("v1", b"data").await;
    let layout = Layout::open_or_begin_archive(&place.file).unwrap();
    for data in [[3; 5000], [4; 5000], [5; 5000]] {
        push(&layout, &data).await;
    }
    drop(layout);
    assert_eq!((tags(&place.file).await, place.names()), (vec!["v1".to_owned()], vec!["a.tar".to_owned(), "a.tar.partial".to_owned()]));
    let partial = place.folder.path().join("a.tar.partial");
    let mut bytes = fs::read(&partial).unwrap();
    // In the middle of the third blob.
    let torn = bytes.len() - 3000;
    bytes[torn] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    let layout = Layout::open_or_begin_archive(&place.file).unwrap();
    let has = async |data: [u8; 5000]| layout.has_blob(&repository(), &blob(&data)).await.unwrap();
    assert_eq!((has([3; 5000]).await, has([4; 5000]).await, has([5; 5000]).await), (true, true, false));
    put(&layout, "v2", &[5; 5000]).await;
    layout.finish().await.unwrap();
    assert_eq!((tags(&place.file).await, place.names()), (vec!["v1".to_owned(), "v2".to_owned()], vec!["a.tar".to_owned()]));
}

#[tokio::test]
async fn a_second_writer_is_refused_and_a_reader_cannot_write() {
    let place = Place::with("v1", b"data").await;
    let first = Layout::open_or_begin_archive(&place.file).unwrap();
    push(&first, b"more").await;
    assert_eq!(Layout::open_or_begin_archive(&place.file).err().unwrap().kind, ErrorKind::Conflict);
    let reader = Layout::open_archive(&place.file).unwrap();
    let source: Arc<dyn UploadSource> = Arc::new(Bytes::from_static(b"more"));
    let refused = reader.push_blob(&repository(), &blob(b"more"), source, Arc::new(|_| {})).await.unwrap_err();
    assert!(refused.kind == ErrorKind::Unsupported && refused.message.contains("ocifs cp"), "{refused}");
    assert_eq!(reader.may_push(&repository()).await.unwrap_err().kind, ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_writer_that_read_the_archive_before_another_changed_it_is_refused() {
    for place in [Place::new(), Place::with("v1", b"data").await] {
        let slow = Layout::open_or_begin_archive(&place.file).unwrap();
        let quick = Layout::open_or_begin_archive(&place.file).unwrap();
        put(&quick, "quick", b"other data").await;
        quick.finish().await.unwrap();
        let before = tags(&place.file).await;
        let source: Arc<dyn UploadSource> = Arc::new(Bytes::from_static(b"late"));
        let refused = slow.push_blob(&repository(), &blob(b"late"), source, Arc::new(|_| {})).await.unwrap_err();
        assert!(refused.kind == ErrorKind::Conflict && refused.message.contains("again"), "{refused}");
        drop(slow);
        assert_eq!((tags(&place.file).await, place.names()), (before, vec!["a.tar".to_owned()]));
        // The same process may go on after it was done.
        put(&quick, "later", b"later data").await;
        quick.finish().await.unwrap();
        assert!(tags(&place.file).await.contains(&"later".to_owned()));
    }
}

#[test]
fn a_named_pipe_is_refused_without_waiting_for_its_writer() {
    let place = Place::new();
    assert!(std::process::Command::new("mkfifo").arg(&place.file).status().unwrap().success());
    for opened in [Layout::open_archive(&place.file), Layout::open_or_begin_archive(&place.file)] {
        assert_eq!(opened.err().unwrap().kind, ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_missing_blob_leaves_no_archive_behind() {
    let place = Place::new();
    let layout = Layout::open_or_begin_archive(&place.file).unwrap();
    let source: Arc<dyn UploadSource> = Arc::new(Bytes::from_static(b"wrong"));
    layout.push_blob(&repository(), &blob(b"right"), source, Arc::new(|_| {})).await.unwrap_err();
    drop(layout);
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn files_that_are_not_oci_archives_are_refused_and_named() {
    let place = Place::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    builder.append_data(&mut header, "manifest.json", &b"[]"[..]).unwrap();
    let docker = builder.into_inner().unwrap();
    let empty = vec![0; 1024];
    for (content, word) in [
        (docker, "docker-archive"),
        (b"\x1f\x8b\x08 and so on".to_vec(), "gzip"),
        (b"plain text".to_vec(), "not an OCI archive"),
        (empty, "no file `oci-layout`"),
    ] {
        fs::write(&place.file, content).unwrap();
        for opened in [Layout::open_archive(&place.file), Layout::open_or_begin_archive(&place.file)] {
            let error = opened.err().unwrap();
            assert!(error.kind == ErrorKind::Invalid && error.message.contains(word), "{error}");
        }
    }
    assert_eq!(Layout::open_archive(&place.folder.path().join("none.tar")).err().unwrap().kind, ErrorKind::NotFound);
    assert_eq!(Layout::open_archive(place.folder.path()).err().unwrap().kind, ErrorKind::Invalid);
    assert_eq!(Layout::open_or_begin_archive(&place.folder.path().join("no/a.tar")).err().unwrap().kind, ErrorKind::NotFound);
}

/// Names of the entries, in order; directories end in a slash.
fn entries(file: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(fs::File::open(file).unwrap());
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_file_follows_its_directories_which_have_one_entry_each() {
    let place = Place::with("v1", b"one").await;
    let layout = Layout::open_or_begin_archive(&place.file).unwrap();
    // A region that is given back takes its directories with it.
    let failing: Arc<dyn UploadSource> = Arc::new(Bytes::from_static(b"short"));
    layout.push_blob(&repository(), &Descriptor::new("a/b", Digest::of(b"x"), 100), failing, Arc::new(|_| {})).await.unwrap_err();
    put(&layout, "v2", b"two").await;
    layout.finish().await.unwrap();
    let names = entries(&place.file);
    assert_eq!(names[..2], ["blobs/", "blobs/sha256/"]);
    assert_eq!(names.iter().filter(|name| name.ends_with('/')).count(), 2, "{names:?}");
    // Resuming a partial archive adds no second entry.
    let stopped = Layout::open_or_begin_archive(&place.folder.path().join("b.tar")).unwrap();
    push(&stopped, b"one").await;
    drop(stopped);
    let resumed = Layout::open_or_begin_archive(&place.folder.path().join("b.tar")).unwrap();
    put(&resumed, "v1", b"one").await;
    resumed.finish().await.unwrap();
    let names = entries(&place.folder.path().join("b.tar"));
    assert_eq!(names.iter().filter(|name| name.ends_with('/')).collect::<Vec<_>>(), ["blobs/", "blobs/sha256/"], "{names:?}");
}
