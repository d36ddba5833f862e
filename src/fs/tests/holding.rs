//! How long a tag is held: while there are edits or open writers, and not a moment longer, whoever is still inside.

use std::time::Duration;

use super::super::Lookup;
use super::world::{Setup, World, add_files};
use crate::error::ErrorKind;
use crate::fs::Selection;
use crate::registry::Memory;
use crate::view::SetAttributes;

fn setup() -> Setup {
    Setup { tag_ttl: Duration::ZERO, ..Setup::writable() }
}

/// Two mounts of one user at once; the first has published an edit of `a.txt`, whose inode is kept.
async fn published() -> (World, World, u64) {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello")]);
    let world = World::with(registry, setup());
    let other = world.beside(setup());
    world.put("team/app/v1/a.txt", "one").await;
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy);
    let file = world.entry("team/app/v1/a.txt").await.inode;
    world.sync().await;
    (world, other, file)
}

/// Writes through an inode, as somebody who is inside does.
async fn write(world: &World, file: u64, text: &[u8]) -> Result<(), ErrorKind> {
    let open = world.fs.open(file, true).await.map_err(|error| error.kind)?.handle;
    let written = world.fs.write(open, 0, text, false).await.map(drop).map_err(|error| error.kind);
    world.fs.release(open);
    written
}

#[tokio::test]
async fn a_published_tag_is_free_for_another_mount_and_whoever_is_inside_edits_on_once_that_is_done() {
    let (world, other, file) = published().await;
    let bytes = world.fs.open(file, false).await.unwrap().handle;
    other.put("team/app/v1/a.txt", "two").await;
    assert_eq!(write(&world, file, b"mine").await, Err(ErrorKind::Busy));
    assert_eq!(world.fs.read(bytes, 0, 10).await.unwrap(), "one", "it can still be read");
    other.fs.discard(&Selection::All).await.unwrap();
    write(&world, file, b"two").await.unwrap();
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(world.fs.staged().await.len(), 1);
    world.sync().await;
    assert_eq!(world.entry("team/app/v1/a.txt").await.inode, file, "nothing moved for whoever is inside");
    assert_eq!(other.text("team/app/v1/a.txt").await, "two");
    world.fs.release(bytes);
}

#[tokio::test]
async fn what_another_mount_published_meanwhile_is_not_edited_through_the_old_directory() {
    let (world, other, file) = published().await;
    other.put("team/app/v1/a.txt", "two").await;
    other.sync().await;
    assert_eq!(write(&world, file, b"mine").await, Err(ErrorKind::Gone));
    assert_eq!(world.text("team/app/v1/a.txt").await, "two");
    world.put("team/app/v1/a.txt", "three").await;
    world.sync().await;
    assert_eq!(other.text("team/app/v1/a.txt").await, "three");
}

#[tokio::test]
async fn edits_that_a_dead_mount_left_meanwhile_are_shown_before_anything_is_added() {
    let (world, other, file) = published().await;
    other.put("team/app/v1/a.txt", "two").await;
    drop(other);
    assert_eq!(write(&world, file, b"mine").await, Err(ErrorKind::Gone));
    assert_eq!(world.text("team/app/v1/a.txt").await, "two");
    assert_eq!(world.fs.staged().await.len(), 1);
}

#[tokio::test]
async fn edits_that_are_taken_back_free_the_tag() {
    let (world, other, file) = published().await;
    write(&world, file, b"mine").await.unwrap();
    world.fs.discard(&Selection::All).await.unwrap();
    other.put("team/app/v1/a.txt", "two").await;
}

#[tokio::test]
async fn a_file_that_is_closed_unchanged_or_has_lost_its_name_does_not_keep_the_tag() {
    let (world, other, file) = published().await;
    let writer = world.fs.open(file, true).await.unwrap().handle;
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy, "a writer is open");
    world.fs.release(writer);
    free(&other).await;
    other.put("team/app/v1/b.txt", "two").await;
    other.sync().await;
    assert!(matches!(world.lookup("team/app/v1/b.txt").await, Ok(Lookup::Found(_))));

    let orphan = world.entry("team/app/v1/a.txt").await.inode;
    let reader = world.fs.open(orphan, false).await.unwrap().handle;
    world.remove("team/app/v1/a.txt").await.unwrap();
    world.sync().await;
    world.fs.release(reader);
    assert!(world.fs.staged().await.is_empty(), "bytes without a name are no edit");
    other.put("team/app/v1/b.txt", "three").await;
}

/// Waits until another mount has given up the tag.
async fn free(world: &World) {
    while world.write("team/app/v1/a.txt", "one").await.is_err_and(|error| error.kind == ErrorKind::Busy) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_in_a_released_tag_takes_the_lock_back() {
    let (world, other, file) = published().await;
    let (repository, tag) = (super::world::repository("team/app"), crate::oci::Tag::parse("v1").unwrap());
    let view = world.fs.views.current(&crate::view::Key::Tag(repository, tag)).unwrap();
    let overlay = view.overlay().unwrap();
    assert!(overlay.is_released() && !world.fs.staged.holds(view.number()));
    // As a change that was under way when the lock was given up.
    let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    overlay.set_attributes(&world.fs.context, super::super::Inode::decode(file).node(), set).await.unwrap();
    assert!(!overlay.is_released());
    assert_eq!(other.write("team/app/v1/a.txt", "x").await.unwrap_err().kind, ErrorKind::Busy);
}
