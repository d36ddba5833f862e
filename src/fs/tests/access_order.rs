//! The order in which files are opened, as mounts remember and follow it.

use std::time::Duration;

use super::test_mount::{Setup, TestMount, add_files};
use crate::artifact::{ACCESS_ORDER_TYPE, ViewMode};
use crate::error::ErrorKind;
use crate::layer::{encode_access_order, parse_access_order};
use crate::oci::{Digest, media_type};
use crate::registry::{Fault, Memory, RequestKind, Trust};

/// A registry with twenty files as `app:v1`, and their names in an order in which nobody walks.
fn registry() -> (Memory, Digest, Vec<String>) {
    let registry = Memory::with_origin("https://reg.test", Trust::Transport);
    let files: Vec<(String, String)> = (0..20).map(|number| (format!("f{number:02}"), format!("bytes of file {number}"))).collect();
    let digest = add_files(&registry, "app", "v1", &files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    (registry, digest, files.into_iter().rev().map(|(name, _)| name).collect())
}

async fn read(mount: &TestMount, names: &[String]) {
    for name in names {
        mount.read(&format!("app/v1/{name}")).await.unwrap();
    }
}

async fn until_requested(mount: &TestMount, blobs: usize) {
    let requested = async {
        while mount.registry.count(RequestKind::Blob) < blobs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), requested).await.expect("files are fetched ahead");
}

#[tokio::test]
async fn an_edited_tag_remembers_the_order_of_its_published_files() {
    let (registry, _, names) = registry();
    let mount = TestMount::writable(registry);
    mount.put("app/v1/new", "staged").await;
    read(&mount, &names).await;
    let mount = mount.after_eviction(Setup::default()).await;
    mount.requests();
    read(&mount, &names[..1]).await;
    until_requested(&mount, 17).await;
}

#[tokio::test]
async fn an_edited_tag_follows_the_order_of_its_published_files() {
    let (registry, _, names) = registry();
    let mount = TestMount::new(registry);
    read(&mount, &names).await;
    let mount = mount.after_eviction(Setup::writable()).await;
    mount.put("app/v1/new", "staged").await;
    mount.requests();
    read(&mount, &names[..1]).await;
    until_requested(&mount, 17).await;
}

#[tokio::test]
async fn a_short_visit_spoils_no_order() {
    let (registry, digest, names) = registry();
    let mount = TestMount::new(registry);
    read(&mount, &names).await;
    let mount = mount.after_eviction(Setup::default()).await;
    read(&mount, &names[9..10]).await;
    mount.fs.flush().await;
    let order = mount.fs.namespace.context.artifacts.access_order(&digest).await.unwrap().unwrap();
    let paths = parse_access_order(&order).unwrap();
    assert_eq!((paths.len(), paths[0], paths[1]), (20, names[9].as_bytes(), names[0].as_bytes()));
}

#[tokio::test]
async fn the_order_of_blobs_and_one_that_is_not_wanted_are_not_remembered() {
    for setup in [Setup { access_order: false, ..Setup::default() }, Setup { view: ViewMode::Blobs, ..Setup::default() }] {
        let (registry, digest, _) = registry();
        let mount = TestMount::with(registry, setup);
        let name = mount.list("app/v1").await.remove(0);
        mount.read(&format!("app/v1/{name}")).await.unwrap();
        mount.fs.flush().await;
        assert!(mount.fs.namespace.context.artifacts.access_order(&digest).await.unwrap().is_none(), "{name}");
    }
}

/// Publishes an order as a referrer.
fn refer(registry: &Memory, subject: &Digest, order: &[u8]) -> Digest {
    let layer = registry.add_blob("app", ACCESS_ORDER_TYPE, order.to_vec());
    let text = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": ACCESS_ORDER_TYPE,
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": [{"mediaType": ACCESS_ORDER_TYPE, "digest": layer.digest.to_string(), "size": layer.size}],
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject.to_string(), "size": 2}});
    registry.add_manifest("app", text.to_string())
}

#[tokio::test]
async fn a_published_order_is_followed_whatever_else_it_names_and_found_after_the_first_read() {
    let (registry, digest, names) = registry();
    // What does not exist, is no file, or comes twice is passed over.
    let paths: Vec<&[u8]> = [&b"no/such/file"[..], b"f19"].into_iter().chain(names.iter().map(String::as_bytes)).collect();
    refer(&registry, &digest, &encode_access_order(paths));
    let mount = TestMount::new(registry);
    mount.list("app/v1").await;
    assert_eq!(mount.registry.count(RequestKind::Referrers), 0, "nobody reads");
    read(&mount, &names[..1]).await;
    // Those of the order, the order itself.
    until_requested(&mount, 18).await;
    assert_eq!((mount.registry.count(RequestKind::Referrers), mount.registry.count(RequestKind::Blob)), (1, 18));
}

#[tokio::test]
async fn a_broken_order_is_ignored_and_a_registry_without_one_is_asked_once() {
    for order in [None, Some(&b"ocifs access order 1\n../../etc/passwd\0"[..]), Some(&[0; 2 << 20])] {
        let (registry, digest, names) = registry();
        if let Some(order) = order {
            refer(&registry, &digest, order);
        }
        let mount = TestMount::new(registry);
        read(&mount, &names[..1]).await;
        let asked = async {
            while mount.registry.count(RequestKind::Referrers) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("the registry is asked");
        read(&mount, &names).await;
        let mount = mount.after_eviction(Setup::default()).await;
        std::fs::remove_dir_all(mount.cache_directory().join("v2/documents/order")).unwrap();
        read(&mount, &names).await;
        mount.fs.flush().await;
        assert_eq!(mount.registry.count(RequestKind::Referrers), 1);
    }
}

/// A registry with these many tags of twenty files, and their manifests.
fn tags(count: usize) -> (Memory, Vec<Digest>) {
    let registry = Memory::with_origin("https://reg.test", Trust::Transport);
    let names: Vec<String> = (0..20).map(|number| format!("f{number:02}")).collect();
    let add = |tag| {
        let texts: Vec<String> = names.iter().map(|name| format!("{name} of tag {tag}")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
        add_files(&registry, "app", &format!("v{tag}"), &files)
    };
    let digests = (0..count).map(add).collect();
    (registry, digests)
}

async fn read_of_each(mount: &TestMount, tags: std::ops::Range<usize>) {
    for tag in tags {
        mount.read(&format!("app/v{tag}/f07")).await.unwrap();
    }
}

async fn is_stored(mount: &TestMount, manifest: &Digest) -> bool {
    mount.fs.namespace.context.artifacts.access_order(manifest).await.unwrap().is_some()
}

#[tokio::test]
async fn a_mount_that_ends_waits_until_the_orders_that_are_being_stored_are() {
    let (registry, digests) = tags(12);
    let mount = TestMount::new(registry);
    read_of_each(&mount, 0..12).await;
    let ending = async {
        tokio::task::yield_now().await;
        mount.fs.flush().await;
        assert!(is_stored(&mount, digests.last().unwrap()).await);
    };
    tokio::join!(mount.fs.flush(), ending);
}

#[tokio::test]
async fn the_orders_of_many_artifacts_are_stored_early() {
    let (registry, digests) = tags(16);
    let mount = TestMount::new(registry);
    read_of_each(&mount, 0..16).await;
    let stored = async {
        while !is_stored(&mount, &digests[0]).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), stored).await.expect("they do not wait for the interval");
}

#[tokio::test]
async fn two_mounts_keep_what_the_other_one_opened() {
    let (registry, digest, names) = registry();
    let mount = TestMount::new(registry);
    let other = mount.beside(Setup::default());
    read(&mount, &names[..5]).await;
    read(&other, &names[5..9]).await;
    mount.fs.flush().await;
    other.fs.flush().await;
    let order = mount.fs.namespace.context.artifacts.access_order(&digest).await.unwrap().unwrap();
    let expected: Vec<&[u8]> = names[5..9].iter().chain(&names[..5]).map(String::as_bytes).collect();
    assert_eq!(parse_access_order(&order).unwrap(), expected);
}

#[tokio::test]
async fn published_orders_of_many_tags_are_not_looked_up_at_once() {
    let (registry, _) = tags(8);
    registry.plan(RequestKind::Referrers, 0, 100, Fault::Stall);
    let mount = TestMount::new(registry);
    read_of_each(&mount, 0..8).await;
    // All have had their turn.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(mount.registry.count(RequestKind::Referrers), 2);
    mount.registry.release();
}

#[tokio::test]
async fn a_registry_that_denies_published_orders_is_not_asked_for_those_of_other_tags() {
    let (registry, _) = tags(3);
    registry.plan(RequestKind::Referrers, 0, 100, Fault::Error(ErrorKind::Denied));
    let mount = TestMount::new(registry);
    for tag in 0..3 {
        read_of_each(&mount, tag..tag + 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(mount.registry.count(RequestKind::Referrers), 1);
}
