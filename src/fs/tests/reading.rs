//! Files: bytes, handles, errors, and what the kernel may keep.

use super::super::{KernelCache, Lookup, ROOT, Space};
use super::test_mount::{Setup, TestMount, add_files};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::registry::{Fault, Memory, RequestKind};
use std::sync::Arc;

use parking_lot::Mutex;

fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &[("a.txt", "hello"), ("empty", "")]);
    registry
}

#[tokio::test]
async fn a_file_is_read_by_ranges_up_to_its_end() {
    let mount = TestMount::new(registry());
    let file = mount.entry("app/v1/a.txt").await;
    let open = mount.fs.open(file.inode, false).await.unwrap();
    assert!(open.keep_cache && !open.direct);
    assert_eq!(mount.fs.read(open.handle, 1, 3).await.unwrap(), "ell");
    assert_eq!(mount.fs.read(open.handle, 3, 100).await.unwrap(), "lo");
    assert_eq!(mount.fs.read(open.handle, 5, 100).await.unwrap(), "");
    assert_eq!(mount.fs.read(open.handle, u64::MAX, 100).await.unwrap(), "");
    mount.fs.release(open.handle);
    assert_eq!(mount.fs.read(open.handle, 0, 1).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(mount.text("app/v1/empty").await, "");
}

#[tokio::test]
async fn names_and_pages_inside_a_tag_never_expire_in_the_kernel() {
    let mount = TestMount::new(registry());
    let file = mount.entry("app/v1/a.txt").await;
    assert_eq!((file.name_ttl, file.attributes_ttl), (super::super::FOREVER, super::super::FOREVER));
    assert_eq!((file.attributes.mode, file.attributes.uid, file.attributes.size), (0o644, 1000, 5));
    let directory = mount.entry("app/v1").await;
    assert!(mount.fs.opendir(directory.inode).await.unwrap().immutable);
    let repository = mount.entry("app").await;
    assert!(!mount.fs.opendir(repository.inode).await.unwrap().immutable);
}

#[tokio::test]
async fn small_files_opened_in_order_are_fetched_ahead_each_once() {
    let names: Vec<String> = (0..60).map(|number| format!("d{}/f{number:02}", number / 20)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &files);
    let mount = TestMount::new(registry);
    for name in &names[..3] {
        assert_eq!(mount.text(&format!("app/v1/{name}")).await, *name);
    }
    let ahead = async {
        while mount.registry.count(RequestKind::Blob) <= 3 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ahead).await.expect("nothing was fetched ahead");
    for name in &names {
        assert_eq!(mount.text(&format!("app/v1/{name}")).await, *name);
    }
    assert_eq!(mount.registry.count(RequestKind::Blob), names.len());
}

#[tokio::test]
async fn files_read_once_stay_readable_while_the_registry_is_down() {
    let mount = TestMount::new(registry());
    assert_eq!(mount.text("app/v1/a.txt").await, "hello");
    mount.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(mount.text("app/v1/a.txt").await, "hello");
}

#[tokio::test]
async fn an_offline_mount_shows_only_what_an_earlier_one_saw() {
    let mount = TestMount::new(registry());
    mount.list("").await;
    mount.list("app").await;
    assert_eq!(mount.text("app/v1/a.txt").await, "hello");
    mount.fs.flush().await;
    let mount = mount.again(Setup { offline: true, ..Setup::default() });
    mount.registry.forget_requests();
    assert_eq!(mount.list("").await, ["app"]);
    assert_eq!(mount.list("app/v1").await, ["a.txt", "empty"]);
    assert_eq!(mount.text("app/v1/a.txt").await, "hello");
    for name in ["nothing", "app/nothing", "app/v1/nothing"] {
        mount.absent(name).await;
    }
    assert_eq!(mount.requests(), []);
}

#[tokio::test]
async fn files_listed_but_unreadable_offline_are_unreachable_not_absent() {
    let registry = registry();
    add_files(&registry, "app", "entered", &[("read", "1"), ("unread", &"2".repeat(200_000))]);
    add_files(&registry, "app", "unseen", &[("x", "x")]);
    add_files(&registry, "other", "v1", &[("x", "x")]);
    let mount = TestMount::new(registry);
    mount.list("").await;
    mount.list("app").await;
    assert_eq!(mount.text("app/entered/read").await, "1");
    mount.fs.flush().await;
    let mount = mount.again(Setup { offline: true, ..Setup::default() });
    mount.registry.forget_requests();
    // Looked up before anything is listed, and again after that.
    for _ in 0..2 {
        assert!(matches!(mount.lookup("app/unseen").await, Ok(Lookup::Found(_))));
        assert!(matches!(mount.lookup("app/entered/unread").await, Ok(Lookup::Found(_))));
        assert_eq!(mount.lookup("app/unseen/x").await.unwrap_err().kind, ErrorKind::Unreachable);
        let tag = mount.entry("app/unseen").await;
        assert_eq!(mount.fs.opendir(tag.inode).await.unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(mount.read("app/entered/unread").await.unwrap_err().kind, ErrorKind::Unreachable);
        let other = mount.entry("other").await;
        assert_eq!(mount.fs.opendir(other.inode).await.unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(mount.list("").await, ["app", "other"]);
        assert_eq!(mount.list("app").await, ["entered", "unseen", "v1"]);
    }
    assert_eq!(mount.requests(), []);
}

#[tokio::test]
async fn a_listed_tag_is_found_during_an_outage_but_cannot_be_entered() {
    let registry = registry();
    add_files(&registry, "app", "unseen", &[("x", "x")]);
    let mount = TestMount::with(registry, Setup { tag_ttl: std::time::Duration::ZERO, ..Setup::default() });
    mount.list("app").await;
    for kind in [RequestKind::Manifest, RequestKind::Resolve, RequestKind::Tags, RequestKind::Repositories, RequestKind::Ping] {
        mount.registry.plan(kind, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    }
    let tag = mount.entry("app/unseen").await;
    assert_eq!(mount.fs.opendir(tag.inode).await.unwrap_err().kind, ErrorKind::Unreachable);
    assert_eq!(mount.lookup("app/nothing").await.unwrap_err().kind, ErrorKind::Unreachable, "perhaps it exists");
}

#[tokio::test]
async fn bytes_with_a_wrong_digest_are_an_error_and_leave_the_page_cache() {
    struct Seen(Mutex<Vec<u64>>);
    impl KernelCache for Seen {
        fn forget_inode(&self, inode: u64) {
            self.0.lock().push(inode);
        }
        fn hand_over(&self, _inode: u64) {}
        fn forget_name(&self, _directory: u64, _name: &[u8]) {}
    }
    let registry = registry();
    registry.add_blob_as("app", Digest::of(b"hello"), "jello");
    let mount = TestMount::new(registry);
    let seen = Arc::new(Seen(Mutex::default()));
    mount.fs.set_kernel_cache(seen.clone());
    let error = mount.read("app/v1/a.txt").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity);
    let file = mount.entry("app/v1/a.txt").await;
    match mount.fs.open(file.inode, false).await {
        Err(error) => assert_eq!(error.kind, ErrorKind::Integrity),
        Ok(_) => assert!(seen.0.lock().contains(&file.inode)),
    }
}

#[tokio::test]
async fn pages_of_an_unverified_blob_are_not_kept_across_opens_and_dropped_once_verified() {
    let registry = Memory::new();
    let large = "0123456789abcdef".repeat(200_000);
    add_files(&registry, "app", "v1", &[("large", &large)]);
    let mount = TestMount::new(registry);
    let file = mount.entry("app/v1/large").await.inode;
    let first = mount.fs.open(file, false).await.unwrap();
    assert!(!first.keep_cache, "only the transport vouches for it");
    assert_eq!(mount.xattr("app/v1/large", "user.oci.verified").await.as_deref(), Some("partial"));
    let mut offset = 0;
    while offset < large.len() as u64 {
        offset += mount.fs.read(first.handle, offset, 1 << 20).await.unwrap().len() as u64;
    }
    while mount.xattr("app/v1/large", "user.oci.verified").await.as_deref() == Some("partial") {
        tokio::task::yield_now().await;
    }
    assert!(!mount.fs.open(file, false).await.unwrap().keep_cache, "pages from before may be in memory");
    assert!(mount.fs.open(file, false).await.unwrap().keep_cache);
}

#[tokio::test]
async fn a_missing_blob_is_stale_not_absent() {
    let registry = registry();
    registry.remove_blob("app", &Digest::of(b"hello"));
    let mount = TestMount::new(registry);
    assert_eq!(mount.read("app/v1/a.txt").await.unwrap_err().kind, ErrorKind::Gone);
    assert_eq!(mount.list("app/v1").await, ["a.txt", "empty"]);
}

#[tokio::test]
async fn nothing_can_be_written_on_a_read_only_mount() {
    let mount = TestMount::new(registry());
    let file = mount.entry("app/v1/a.txt").await;
    assert_eq!(mount.fs.open(file.inode, true).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(mount.fs.access(file.inode, true, false).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(mount.fs.access(ROOT, true, false).await.unwrap_err().kind, ErrorKind::ReadOnly);
    let set = mount.fs.setxattr(file.inode, b"user.mine", b"1", false, false).await;
    assert_eq!(set.unwrap_err().kind, ErrorKind::ReadOnly);
    for kind in [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo] {
        for path in ["new", "app/new", "app/v1/new"] {
            assert_eq!(mount.make(path, kind).await.unwrap_err().kind, ErrorKind::ReadOnly, "{kind:?} {path}");
        }
    }
    assert_eq!(mount.remove("app/v1/a.txt").await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(mount.rename("app/v1/a.txt", "app/v1/b.txt").await.unwrap_err().kind, ErrorKind::ReadOnly);
}

#[tokio::test]
async fn files_cannot_be_searched_nor_directories_read() {
    let mount = TestMount::new(registry());
    let file = mount.entry("app/v1/a.txt").await;
    assert_eq!(mount.fs.lookup(file.inode, b"x").await.unwrap_err().kind, ErrorKind::NotDirectory);
    assert_eq!(mount.fs.opendir(file.inode).await.unwrap_err().kind, ErrorKind::NotDirectory);
    let tag = mount.entry("app/v1").await;
    assert_eq!(mount.fs.open(tag.inode, false).await.unwrap_err().kind, ErrorKind::IsDirectory);
    assert_eq!(mount.fs.readlink(file.inode).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(mount.fs.access(file.inode, false, true).await.unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(mount.fs.access(tag.inode, false, true).await.map_err(|error| error.kind), Ok(()));
}

#[tokio::test]
async fn unknown_inodes_are_stale() {
    let mount = TestMount::new(registry());
    for number in [2, 77, u64::MAX, 5 << 41] {
        assert_eq!(mount.fs.getattr(number).await.unwrap_err().kind, ErrorKind::Gone, "{number}");
        mount.fs.forget(number, 1);
    }
}

#[tokio::test]
async fn df_shows_the_cache_budget() {
    let mount = TestMount::new(registry());
    assert_eq!(mount.fs.statfs().await.unwrap(), Space { total: 1 << 30, free: 1 << 29 });
}

#[tokio::test]
async fn a_listing_can_resume_after_any_name() {
    let registry = Memory::new();
    let files: Vec<(String, String)> = (0..50).map(|number| (format!("f{number:02}"), String::new())).collect();
    let borrowed: Vec<(&str, &str)> = files.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
    add_files(&registry, "app", "v1", &borrowed);
    let mount = TestMount::new(registry);
    let directory = mount.entry("app/v1").await;
    let handle = mount.fs.opendir(directory.inode).await.unwrap().handle;
    let mut all = Vec::new();
    mount
        .fs
        .readdirplus(handle, 0, &mut |found| {
            all.push((found.cookie, found.name.to_vec()));
            true
        })
        .unwrap();
    assert_eq!(all.len(), 52);
    for (place, (cookie, _)) in all.iter().enumerate() {
        let mut next = None;
        let mut take = |found: super::super::DirectoryEntry<'_>| {
            next = Some(found.name.to_vec());
            false
        };
        mount.fs.readdirplus(handle, *cookie, &mut take).unwrap();
        assert_eq!(next.as_ref(), all.get(place + 1).map(|(_, name)| name));
    }
}
