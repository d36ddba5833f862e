//! Reads of files that the kernel does not open.

use std::time::Duration;

use super::super::FOREVER;
use super::test_mount::{Setup, TestMount, add_files};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::registry::{Memory, RequestKind};

fn mount(registry: Memory) -> TestMount {
    TestMount::with(registry, Setup { skips_opens: true, strict: true, ..Setup::default() })
}

#[tokio::test]
async fn a_file_that_was_not_opened_is_read_by_its_inode() {
    let registry = Memory::new();
    let names: Vec<String> = (0..100).map(|number| format!("f{number:02}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    add_files(&registry, "app", "v1", &files);
    let mount = mount(registry);
    // More than stay ready, twice.
    for name in names.iter().chain(&names) {
        let inode = mount.entry(&format!("app/v1/{name}")).await.inode;
        assert_eq!(mount.fs.read_unopened(inode, 0, 100).await.unwrap(), *name);
        assert_eq!(mount.fs.read_unopened(inode, 1, 1).await.unwrap(), name[1..2]);
        assert_eq!(mount.fs.seek_unopened(inode, 1, false).await.unwrap(), Some(3));
    }
    let directory = mount.entry("app/v1").await.inode;
    assert_eq!(mount.fs.read_unopened(directory, 0, 1).await.unwrap_err().kind, ErrorKind::IsDirectory);
    assert_eq!(mount.fs.read_unopened(77, 0, 1).await.unwrap_err().kind, ErrorKind::Gone);
}

#[tokio::test]
async fn a_file_that_was_not_opened_keeps_the_bytes_of_its_digest_when_the_tag_moves() {
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &[("a", "old")]);
    let mount = TestMount::with(registry, Setup { skips_opens: true, strict: true, tag_ttl: Duration::ZERO, ..Setup::default() });
    let old = mount.entry("app/v1/a").await.inode;
    add_files(&mount.registry, "app", "v1", &[("a", "new")]);
    let new = mount.entry("app/v1/a").await.inode;
    assert_eq!(mount.fs.read_unopened(old, 0, 9).await.unwrap(), "old");
    assert_eq!(mount.fs.read_unopened(new, 0, 9).await.unwrap(), "new");
}

#[tokio::test]
async fn wrong_bytes_of_a_file_that_was_not_opened_are_an_error_that_is_tried_again_later() {
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &[("a", "hello")]);
    registry.add_blob_as("app", Digest::of(b"hello"), "jello");
    let mount = mount(registry);
    let inode = mount.entry("app/v1/a").await.inode;
    assert_eq!(mount.fs.read_unopened(inode, 0, 9).await.unwrap_err().kind, ErrorKind::Integrity);
    mount.registry.add_blob_as("app", Digest::of(b"hello"), "hello");
    let mended = async {
        while mount.fs.read_unopened(inode, 0, 9).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), mended).await.expect("the error stays");
    // The kernel repeats each failed read at once: that fetched nothing.
    assert_eq!(mount.registry.count(RequestKind::Blob), 2);
}

#[tokio::test]
async fn a_generated_file_that_was_not_opened_is_read_as_its_attributes_showed_it() {
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &[("a", "hello")]);
    let mount = mount(registry);
    let inode = mount.entry("app/.oci/repo.json").await.inode;
    let before = mount.fs.getattr(inode).await.unwrap();
    mount.list("app").await;
    let bytes = mount.fs.read_unopened(inode, 0, 4096).await.unwrap();
    assert_eq!((bytes.len() as u64, before.attributes_ttl), (before.attributes.size, Duration::ZERO));
    let after = mount.fs.getattr(inode).await.unwrap();
    assert_ne!(after.attributes.time, before.attributes.time, "the kernel drops its pages only if the time changes");
    assert_ne!(mount.fs.read_unopened(inode, 0, 4096).await.unwrap(), bytes);
}

#[tokio::test]
async fn absent_names_are_cached_for_as_long_as_an_immutable_tree() {
    let registry = Memory::new();
    let digest = add_files(&registry, "app", "v1", &[("dir/a", "hello")]);
    let writable = TestMount::writable(registry);
    let read_only = writable.clone().again(Setup::default());
    let by_digest = format!("app/@{}", digest.path_name());
    for (mount, path, forever) in [
        (&read_only, "app/v1", true),
        (&read_only, "app/v1/dir", true),
        (&read_only, "app/.oci/tags/v1", false),
        (&writable, "app/v1", false),
        (&writable, by_digest.as_str(), true),
    ] {
        assert_eq!(mount.absent(&format!("{path}/nothing")).await == FOREVER, forever, "{path}");
    }
}
