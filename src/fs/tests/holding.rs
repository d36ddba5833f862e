//! How long a tag is held: while there are edits or open writers, and not a moment longer, even while processes are inside.

use std::time::Duration;

use super::super::Lookup;
use super::test_mount::{Setup, TestMount, add_files};
use crate::error::ErrorKind;
use crate::fs::Selection;
use crate::registry::Memory;
use crate::view::SetAttributes;

fn setup() -> Setup {
    Setup { tag_ttl: Duration::ZERO, ..Setup::writable() }
}

/// Two concurrent mounts of one user; the first has published an edit of `a.txt`, whose inode is kept.
async fn published() -> (TestMount, TestMount, u64) {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello")]);
    let mount = TestMount::with(registry, setup());
    let other = mount.beside(setup());
    mount.put("team/app/v1/a.txt", "one").await;
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy);
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    mount.sync().await;
    (mount, other, file)
}

/// Writes through an inode, like a process inside the directory.
async fn write(mount: &TestMount, file: u64, text: &[u8]) -> Result<(), ErrorKind> {
    let open = mount.fs.open(file, true).await.map_err(|error| error.kind)?.handle;
    let written = mount.fs.write(open, 0, text, false).await.map(drop).map_err(|error| error.kind);
    mount.fs.release(open);
    written
}

#[tokio::test]
async fn a_published_tag_is_free_for_another_mount_and_processes_inside_can_edit_again_afterwards() {
    let (mount, other, file) = published().await;
    let bytes = mount.fs.open(file, false).await.unwrap().handle;
    other.put("team/app/v1/a.txt", "two").await;
    assert_eq!(write(&mount, file, b"mine").await, Err(ErrorKind::Busy));
    assert_eq!(mount.fs.read(bytes, 0, 10).await.unwrap(), "one", "it can still be read");
    other.fs.discard(&Selection::All).await.unwrap();
    write(&mount, file, b"two").await.unwrap();
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(mount.fs.staged().await.len(), 1);
    mount.sync().await;
    assert_eq!(mount.entry("team/app/v1/a.txt").await.inode, file, "nothing moved for a process inside");
    assert_eq!(other.text("team/app/v1/a.txt").await, "two");
    mount.fs.release(bytes);
}

#[tokio::test]
async fn an_old_directory_cannot_edit_what_another_mount_published() {
    let (mount, other, file) = published().await;
    other.put("team/app/v1/a.txt", "two").await;
    other.sync().await;
    assert_eq!(write(&mount, file, b"mine").await, Err(ErrorKind::Gone));
    assert_eq!(mount.text("team/app/v1/a.txt").await, "two");
    mount.put("team/app/v1/a.txt", "three").await;
    mount.sync().await;
    assert_eq!(other.text("team/app/v1/a.txt").await, "three");
}

#[tokio::test]
async fn edits_left_by_a_dead_mount_are_shown_before_new_ones_are_added() {
    let (mount, other, file) = published().await;
    other.put("team/app/v1/a.txt", "two").await;
    drop(other);
    assert_eq!(write(&mount, file, b"mine").await, Err(ErrorKind::Gone));
    assert_eq!(mount.text("team/app/v1/a.txt").await, "two");
    assert_eq!(mount.fs.staged().await.len(), 1);
}

#[tokio::test]
async fn reverted_edits_release_the_tag() {
    let (mount, other, file) = published().await;
    write(&mount, file, b"mine").await.unwrap();
    mount.fs.discard(&Selection::All).await.unwrap();
    other.put("team/app/v1/a.txt", "two").await;
}

#[tokio::test]
async fn files_closed_unchanged_or_unlinked_do_not_hold_the_tag() {
    let (mount, other, file) = published().await;
    let writer = mount.fs.open(file, true).await.unwrap().handle;
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy, "a writer is open");
    mount.fs.release(writer);
    free(&other).await;
    other.put("team/app/v1/b.txt", "two").await;
    other.sync().await;
    assert!(matches!(mount.lookup("team/app/v1/b.txt").await, Ok(Lookup::Found(_))));

    let orphan = mount.entry("team/app/v1/a.txt").await.inode;
    let reader = mount.fs.open(orphan, false).await.unwrap().handle;
    mount.remove("team/app/v1/a.txt").await.unwrap();
    mount.sync().await;
    mount.fs.release(reader);
    assert!(mount.fs.staged().await.is_empty(), "bytes without a name are no edit");
    other.put("team/app/v1/b.txt", "three").await;
}

/// Waits until another mount has released the tag.
async fn free(mount: &TestMount) {
    while mount.write("team/app/v1/a.txt", "one").await.is_err_and(|error| error.kind == ErrorKind::Busy) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_in_a_released_tag_takes_the_lock_back() {
    let (mount, other, file) = published().await;
    let (repository, tag) = (super::test_mount::repository("team/app"), crate::oci::Tag::parse("v1").unwrap());
    let view = mount.fs.namespace.views.current(&crate::view::Key::Tag(repository, tag)).unwrap();
    let overlay = view.overlay().unwrap();
    assert!(overlay.is_released() && !mount.fs.namespace.staged.holds(view.number()));
    // Like a change in progress when the lock was released.
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    overlay.set_attributes(&mount.fs.namespace.context, super::super::Inode::decode(file).node(), set).await.unwrap();
    assert!(!overlay.is_released());
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy);
}
