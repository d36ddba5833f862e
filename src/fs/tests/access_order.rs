//! The order in which files are opened, as mounts remember and follow it.

use std::time::Duration;

use super::test_mount::{Setup, TestMount, add_files};
use crate::artifact::ViewMode;
use crate::layer::parse_access_order;
use crate::oci::Digest;
use crate::registry::{Memory, RequestKind, Trust};

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
