//! The store beyond the specification: restarts, access, damage, collection, other tools.

use std::path::PathBuf;

use serde_json::json;

use super::hosting::image;
use super::*;
use crate::oci::{Repository, Tag, Version};
use crate::registry::{Layout, Pull};

async fn pushed(server: &TestServer, repository: &str, tag: &str, layer: &[u8]) -> Digest {
    server.push_blob(repository, b"{}").await;
    server.push_blob(repository, layer).await;
    let manifest = image(layer, &json!({}));
    assert_eq!(server.put_manifest(repository, tag, &manifest).await.status().as_u16(), 201);
    Digest::of(manifest.to_string().as_bytes())
}

fn store_of(directory: &TempDir) -> PathBuf {
    directory.path().join("store")
}

/// The file of a repository's blob.
fn blob_file(directory: &TempDir, repository: &str, digest: &Digest) -> PathBuf {
    store_of(directory).join(repository.replace('/', "+")).join("blobs/sha256").join(digest.hex())
}

#[tokio::test]
async fn an_upload_resumes_after_a_restart() {
    let (setup, data) = (Setup::hosting(), noise(5000));
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let location = server.begin("app").await;
    assert_eq!(server.request(Method::PATCH, &location).body(data[..2000].to_vec()).send().await.unwrap().status().as_u16(), 202);
    server.stop().await;
    let server = Setup { directory, ..Setup::hosting() }.start().await;
    let status = server.get(&location).await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, Some("0-1999")));
    let rest = server.request(Method::PUT, &format!("{location}?digest={}", Digest::of(&data))).body(data[2000..].to_vec());
    assert_eq!(rest.send().await.unwrap().status().as_u16(), 201);
    assert_eq!(server.get(&format!("/v2/app/blobs/{}", Digest::of(&data))).await.bytes().await.unwrap(), data);
}

#[tokio::test]
async fn an_interrupted_chunk_keeps_received_bytes() {
    use tokio::io::AsyncWriteExt;
    let server = Setup::hosting().start().await;
    let location = server.begin("app").await;
    let address = server.base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n0123456789");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    loop {
        let status = server.get(&location).await;
        // The upload stays busy until the server notices.
        if status.status().as_u16() == 204 && header(&status, "range") == Some("0-9") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let data = b"0123456789rest";
    let put = server.request(Method::PUT, &format!("{location}?digest={}", Digest::of(data))).body(&data[10..]).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 201);
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let server = Setup::hosting().start().await;
    let location = server.begin("app").await;
    let stolen = location.replace("/app/", "/other/");
    for path in [stolen.as_str(), "/v2/app/blobs/uploads/..", "/v2/app/blobs/uploads/00000000000000000000000000000000"] {
        for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
            let query = if method == Method::PUT { format!("?digest={}", Digest::of(b"")) } else { String::new() };
            let answer = server.request(method, &format!("{path}{query}")).send().await.unwrap();
            assert!(matches!(answer.status().as_u16(), 400 | 404), "{path}");
        }
    }
    assert_eq!(server.get(&location).await.status().as_u16(), 204);
}

#[tokio::test]
async fn every_repository_is_a_layout_and_equal_blobs_are_stored_once() {
    use std::os::unix::fs::MetadataExt;
    let setup = Setup::hosting();
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let digest = pushed(&server, "team/app", "v1", b"layer").await;
    pushed(&server, "other", "v1", b"layer").await;
    let layout = Layout::open(&store_of(&directory).join("team+app")).unwrap();
    let version = Version::Tag(Tag::parse("v1").unwrap());
    let found = layout.manifest(&Layout::repository().unwrap(), &version).await.unwrap();
    assert_eq!(found.digest, digest);
    let inode = |repository| std::fs::metadata(blob_file(&directory, repository, &Digest::of(b"layer"))).unwrap().ino();
    assert_eq!(inode("team/app"), inode("other"));
}

#[tokio::test]
async fn a_digest_of_one_hosted_repository_is_unknown_in_another() {
    let server = Setup::hosting().start().await;
    let digest = pushed(&server, "secret", "v1", b"layer").await;
    server.push_blob("open", b"{}").await;
    let blob = format!("/v2/open/blobs/{}", Digest::of(b"layer"));
    assert_eq!(refusal(server.get(&blob).await).await, (404, "BLOB_UNKNOWN".to_owned()));
    assert_eq!(refusal(server.get(&format!("/v2/open/manifests/{digest}")).await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_damaged_blob_is_cut_off_and_repaired_by_the_next_push() {
    let setup = Setup::hosting();
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let data = noise(3 << 20);
    let digest = server.push_blob("app", &data).await;
    server.stop().await;
    let mut damaged = data.clone();
    damaged[100] ^= 1;
    std::fs::write(blob_file(&directory, "app", &digest), &damaged).unwrap();
    let server = Setup { directory, ..Setup::hosting() }.start().await;
    let path = format!("/v2/app/blobs/{digest}");
    server.get(&path).await.bytes().await.unwrap_err();
    server.push_blob("app", &data).await;
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), data);
}

#[tokio::test]
async fn errors_do_not_reveal_the_store_s_path() {
    let setup = Setup::hosting();
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let manifest = pushed(&server, "app", "v1", b"layer").await;
    pushed(&server, "broken", "v1", b"layer").await;
    std::fs::write(blob_file(&directory, "app", &manifest), "damaged").unwrap();
    std::fs::write(store_of(&directory).join("broken/index.json"), "no JSON").unwrap();
    let store = store_of(&directory).to_str().unwrap().to_owned();
    for (path, word) in [
        ("/v2/app/manifests/v1", "digest"),
        ("/v2/app/manifests/v2", "does not exist"),
        ("/v2/broken/tags/list", "index.json"),
        ("/v2/broken/manifests/v1", "index.json"),
    ] {
        let answer = server.get(path).await;
        assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{path}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(word) && !text.contains(&store), "{path}: {text}");
    }
}

#[tokio::test]
async fn gc_removes_only_unreferenced_content() {
    let setup = Setup::hosting();
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let kept = pushed(&server, "app", "v1", b"kept").await;
    let gone = pushed(&server, "app", "v2", b"gone").await;
    let subject = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": kept.to_string(), "size": 1});
    server.push_blob("app", b"signature").await;
    let referrer = image(b"signature", &json!({"subject": subject}));
    let referrer_digest = Digest::of(referrer.to_string().as_bytes());
    assert_eq!(server.put_manifest("app", &referrer_digest.to_string(), &referrer).await.status().as_u16(), 201);
    let loose = server.push_blob("app", b"loose").await;
    assert_eq!(server.request(Method::DELETE, "/v2/app/manifests/v2").send().await.unwrap().status().as_u16(), 202);
    let store = Store::open(&store_of(&directory)).unwrap();
    // Nothing is old enough yet.
    store.collect(Duration::from_secs(3600), false).await.unwrap();
    assert_eq!(server.get(&format!("/v2/app/manifests/{gone}")).await.status().as_u16(), 200);
    // Ages have a resolution of one second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.collect(Duration::ZERO, true).await.unwrap();
    assert_eq!(server.get(&format!("/v2/app/manifests/{gone}")).await.status().as_u16(), 200);
    let collected = store.collect(Duration::ZERO, false).await.unwrap();
    assert_eq!((collected.manifests, collected.blobs), (1, 1));
    for (path, status) in [
        (format!("manifests/{gone}"), 404),
        (format!("blobs/{}", Digest::of(b"gone")), 404),
        (format!("blobs/{loose}"), 404),
        (format!("manifests/{referrer_digest}"), 200),
        (format!("blobs/{}", Digest::of(b"signature")), 200),
        (format!("manifests/{kept}"), 200),
        (format!("blobs/{}", Digest::of(b"kept")), 200),
    ] {
        assert_eq!(server.get(&format!("/v2/app/{path}")).await.status().as_u16(), status, "{path}");
    }
    let shared = store_of(&directory).join("_blobs/sha256");
    assert!(!shared.join(loose.hex()).exists() && shared.join(Digest::of(b"kept").hex()).exists());
}

#[tokio::test]
async fn abandoned_uploads_expire() {
    let setup = Setup::hosting();
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let location = server.begin("app").await;
    let uploads = || std::fs::read_dir(store_of(&directory).join("_uploads")).unwrap().count();
    let store = Store::open(&store_of(&directory)).unwrap();
    store.collect(Duration::from_secs(3600), false).await.unwrap();
    assert_eq!((uploads(), server.get(&location).await.status().as_u16()), (2, 204));
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.collect(Duration::ZERO, false).await.unwrap();
    assert_eq!((uploads(), server.get(&location).await.status().as_u16()), (0, 404));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_lose_no_tag() {
    let server = Arc::new(Setup::hosting().start().await);
    let writers = (0..16).map(|number| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { pushed(&server, "app", &format!("v{number:02}"), format!("layer {}", number % 3).as_bytes()).await })
    });
    futures_util::future::try_join_all(writers).await.unwrap();
    assert_eq!(server.json("/v2/app/tags/list").await["tags"].as_array().unwrap().len(), 16);
}

#[tokio::test]
async fn a_directory_with_other_content_is_not_a_store() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("letter"), "dear").unwrap();
    assert!(Store::open(directory.path()).is_err());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_new_disk_becomes_a_store() {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("lost+found")).unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(store.repositories().unwrap().is_empty());
}

#[tokio::test]
async fn blobs_are_kept_while_collections_remove_unused_ones() {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(Store::open(&store_of(&directory)).unwrap());
    let (app, digest) = (Repository::parse("app").unwrap(), Digest::of(b"blob"));
    let writer = {
        let (store, sent, adopted) = (Arc::clone(&store), directory.path().join("sent"), blob_file(&directory, "app", &digest));
        std::thread::spawn(move || {
            for _ in 0..500 {
                std::fs::write(&sent, b"blob").unwrap();
                store.keep(&app, &digest, &sent).unwrap();
                std::fs::remove_file(&sent).unwrap();
                assert_eq!(std::fs::read(&adopted).unwrap(), b"blob");
                std::fs::remove_file(&adopted).unwrap();
            }
        })
    };
    while !writer.is_finished() {
        store.collect(Duration::from_secs(3600), true).await.unwrap();
    }
    writer.join().unwrap();
}
