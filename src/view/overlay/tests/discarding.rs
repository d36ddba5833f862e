//! Taking edits back.

use super::super::{Forgotten, SetAttributes};
use super::*;

/// Paths, kinds, bytes and attributes of everything.
async fn everything(world: &World, tag: &Arc<Overlay>) -> Vec<String> {
    let (mut open, mut lines) = (vec![(0, String::new())], Vec::new());
    while let Some((directory, path)) = open.pop() {
        let mut found = Vec::new();
        tag.children(directory, 0, &mut |_, name, node| {
            found.push((format!("{path}/{}", String::from_utf8_lossy(name)), node));
            true
        })
        .unwrap();
        for (path, node) in found {
            let attributes = tag.attributes(&world.context, node).unwrap();
            let bytes = match attributes.kind {
                Kind::File => tag.open_reader(&world.context, node).await.unwrap().read(0, 4 << 20).await.unwrap(),
                _ => ::bytes::Bytes::new(),
            };
            let Attributes { kind, mode, uid, gid, links, time, .. } = attributes;
            lines.push(format!("{path} {kind:?} {mode:o} {uid} {gid} {links} {time:?} {bytes:?} {:?}", tag.xattr_names(node).unwrap()));
            if kind == Kind::Directory {
                open.push((node, path));
            }
        }
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn all_that_was_done_is_taken_back_at_once() {
    let world = World::new();
    let tag = world.sample().await;
    let before = everything(&world, &tag).await;
    let edited = node(&tag, "file");
    world.write(&tag, "file", b"changed").await;
    world.write(&tag, "one", b"changed too").await;
    rename(&tag, "dir/deep", "deep", Replace::Yes).unwrap();
    remove(&tag, "dir/inner", false).unwrap();
    remove(&tag, "dir", true).unwrap();
    world.write(&tag, "dir", b"a file now").await;
    world.mkdir(&tag, "empty/new");
    tag.set_xattr(node(&tag, "empty"), b"user.x", b"1", false, false).unwrap();
    tag.set_attributes(&world.context, node(&tag, "pipe"), SetAttributes { uid: Some(1), ..Default::default() }).await.unwrap();
    let forgotten = tag.discard(b"").unwrap();
    assert_eq!(everything(&world, &tag).await, before);
    assert!(!tag.is_edited() && world.changes(&tag).await.is_empty());
    assert!(forgotten.contains(&Forgotten::Name(0, b"file".to_vec())) && forgotten.contains(&Forgotten::Node(edited)));
    assert_ne!(node(&tag, "file"), edited, "an edited inode does not come to mean other bytes");
    assert_eq!((node(&tag, "one"), world.attributes(&tag, "one").links), (node(&tag, "two"), 2));
    world.write(&tag, "file", b"edited again").await;
    assert!(tag.is_edited());
    let tag = world.again(tag).await;
    assert_eq!(world.changes(&tag).await, ["C file"]);
}

#[tokio::test]
async fn one_path_is_taken_back_and_its_neighbours_stay() {
    let world = World::new();
    let tag = world.sample().await;
    world.write(&tag, "dir/inner", b"changed").await;
    world.write(&tag, "dir/deep/bottom", b"changed").await;
    remove(&tag, "file", false).unwrap();
    tag.discard(b"dir/deep").unwrap();
    assert_eq!(world.changes(&tag).await, ["C dir/inner", "R file"]);
    tag.discard(b"file").unwrap();
    assert_eq!(world.changes(&tag).await, ["C dir/inner"]);
    tag.discard(b"dir/inner").unwrap();
    assert_eq!(world.changes(&tag).await, [""; 0]);
    assert_eq!(kind(tag.discard(b"nothing/here")), ErrorKind::NotFound);
}

#[tokio::test]
async fn directories_on_the_way_to_a_path_are_made_again() {
    let world = World::new();
    let tag = world.sample().await;
    for (path, is_directory) in [("dir/deep/bottom", false), ("dir/deep", true), ("dir/inner", false), ("dir", true)] {
        remove(&tag, path, is_directory).unwrap();
    }
    tag.discard(b"dir/deep/bottom").unwrap();
    assert_eq!(world.read(&tag, "dir/deep/bottom").await, b"bottom");
    assert_eq!(world.changes(&tag).await, ["R dir/inner"]);
}

#[tokio::test]
async fn after_a_publish_edits_are_taken_back_to_what_was_published() {
    let world = World::new();
    let tag = world.sample().await;
    world.write(&tag, "file", b"published").await;
    world.mkdir(&tag, "new");
    world.write(&tag, "new/file", b"published").await;
    world.publish(&tag).await;
    let before = everything(&world, &tag).await;
    world.write(&tag, "file", b"later").await;
    remove(&tag, "new/file", false).unwrap();
    remove(&tag, "dir/inner", false).unwrap();
    tag.discard(b"").unwrap();
    assert_eq!(world.changes(&tag).await, [""; 0]);
    assert_eq!(everything(&world, &tag).await, before);
}

#[tokio::test]
async fn a_file_that_is_open_goes_on_without_a_name() {
    let world = World::new();
    let tag = world.sample().await;
    let writer = tag.open_writer(&world.context, node(&tag, "file"), false).await.unwrap();
    writer.write(0, b"J").await.unwrap();
    tag.discard(b"file").unwrap();
    writer.write(0, b"C").await.unwrap();
    assert_eq!(writer.read(0, 10).await.unwrap(), "Cello");
    assert_eq!(world.read(&tag, "file").await, b"hello");
    let number = writer.node();
    assert_eq!(tag.attributes(&world.context, number).unwrap().links, 0);
}

#[tokio::test]
async fn a_new_tag_is_emptied() {
    let world = World::new();
    let tag = world.empty("v1").await;
    world.mkdir(&tag, "a");
    world.write(&tag, "a/b", b"x").await;
    tag.discard(b"").unwrap();
    assert!(tag.is_empty().unwrap() && tag.is_edited());
}
