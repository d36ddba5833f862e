//! Discarding edits.

use super::super::{Forgotten, SetAttributes};
use super::*;

/// Paths, kinds, bytes and attributes of everything.
async fn everything(fixture: &TagFixture, tag: &Arc<Overlay>) -> Vec<String> {
    let (mut open, mut lines) = (vec![(0, String::new())], Vec::new());
    while let Some((directory, path)) = open.pop() {
        let mut found = Vec::new();
        tag.children(directory, 0, &mut |_, name, node| {
            found.push((format!("{path}/{}", String::from_utf8_lossy(name)), node));
            true
        })
        .unwrap();
        for (path, node) in found {
            let attributes = tag.attributes(&fixture.context, node).unwrap();
            let bytes = match attributes.kind {
                Kind::File => tag.open_reader(&fixture.context, node).await.unwrap().read(0, 4 << 20).await.unwrap(),
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
async fn everything_is_discarded_at_once() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let before = everything(&fixture, &tag).await;
    let edited = node(&tag, "file");
    fixture.write(&tag, "file", b"changed").await;
    fixture.write(&tag, "one", b"changed too").await;
    rename(&tag, "dir/deep", "deep", Replace::Yes).unwrap();
    remove(&tag, "dir/inner", false).unwrap();
    remove(&tag, "dir", true).unwrap();
    fixture.write(&tag, "dir", b"a file now").await;
    fixture.mkdir(&tag, "empty/new");
    tag.set_xattr(node(&tag, "empty"), b"user.x", b"1", false, false).unwrap();
    tag.set_attributes(&fixture.context, node(&tag, "pipe"), SetAttributes { uid: Some(1), ..Default::default() }).await.unwrap();
    let forgotten = discarded(&tag, b"").unwrap();
    assert_eq!(everything(&fixture, &tag).await, before);
    assert!(!tag.is_edited() && fixture.changes(&tag).await.is_empty());
    assert!(forgotten.contains(&Forgotten::Name(0, b"file".to_vec())) && forgotten.contains(&Forgotten::Node(edited)));
    assert_ne!(node(&tag, "file"), edited, "an edited inode does not come to mean other bytes");
    assert_eq!((node(&tag, "one"), fixture.attributes(&tag, "one").links), (node(&tag, "two"), 2));
    fixture.write(&tag, "file", b"edited again").await;
    assert!(tag.is_edited());
    let tag = fixture.again(tag).await;
    assert_eq!(fixture.changes(&tag).await, ["C file"]);
}

#[tokio::test]
async fn one_path_is_discarded_and_its_neighbours_stay() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "dir/inner", b"changed").await;
    fixture.write(&tag, "dir/deep/bottom", b"changed").await;
    remove(&tag, "file", false).unwrap();
    discarded(&tag, b"dir/deep").unwrap();
    assert_eq!(fixture.changes(&tag).await, ["C dir/inner", "R file"]);
    discarded(&tag, b"file").unwrap();
    assert_eq!(fixture.changes(&tag).await, ["C dir/inner"]);
    discarded(&tag, b"dir/inner").unwrap();
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
    assert_eq!(kind(discarded(&tag, b"nothing/here")), ErrorKind::NotFound);
}

#[tokio::test]
async fn missing_parents_of_a_discarded_path_are_recreated() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    for (path, is_directory) in [("dir/deep/bottom", false), ("dir/deep", true), ("dir/inner", false), ("dir", true)] {
        remove(&tag, path, is_directory).unwrap();
    }
    discarded(&tag, b"dir/deep/bottom").unwrap();
    assert_eq!(fixture.read(&tag, "dir/deep/bottom").await, b"bottom");
    assert_eq!(fixture.changes(&tag).await, ["R dir/inner"]);
}

#[tokio::test]
async fn a_discard_after_a_publish_restores_the_published_state() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", b"published").await;
    fixture.mkdir(&tag, "new");
    fixture.write(&tag, "new/file", b"published").await;
    fixture.publish(&tag).await;
    let before = everything(&fixture, &tag).await;
    fixture.write(&tag, "file", b"later").await;
    remove(&tag, "new/file", false).unwrap();
    remove(&tag, "dir/inner", false).unwrap();
    discarded(&tag, b"").unwrap();
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
    assert_eq!(everything(&fixture, &tag).await, before);
}

#[tokio::test]
async fn an_open_discarded_file_stays_usable_without_a_name() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let writer = tag.open_writer(&fixture.context, node(&tag, "file"), false).await.unwrap();
    writer.write(0, b"J").await.unwrap();
    discarded(&tag, b"file").unwrap();
    writer.write(0, b"C").await.unwrap();
    assert_eq!(writer.read(0, 10).await.unwrap(), "Cello");
    assert_eq!(fixture.read(&tag, "file").await, b"hello");
    let number = writer.node();
    assert_eq!(tag.attributes(&fixture.context, number).unwrap().links, 0);
}

#[tokio::test]
async fn a_new_tag_is_emptied() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    fixture.mkdir(&tag, "a");
    fixture.write(&tag, "a/b", b"x").await;
    discarded(&tag, b"").unwrap();
    assert!(tag.is_empty().unwrap() && tag.is_edited());
}

/// A tag of several directories with many files, and edits of all sorts in it.
async fn edited_all_over(fixture: &TagFixture) -> Arc<Overlay> {
    let mut items = Vec::new();
    for directory in ["a", "b"] {
        items.push(Item::Dir(directory));
    }
    let names: Vec<String> = (0..200).flat_map(|number| ["a", "b"].map(|directory| format!("{directory}/{number}"))).collect();
    items.extend(names.iter().map(|name| Item::File(name, b"upstream".to_vec())));
    let tag = fixture.over("v1", fixture.push("v1", &items)).await;
    for number in 0..150 {
        fixture.write(&tag, &format!("a/{number}"), b"changed").await;
        remove(&tag, &format!("b/{number}"), false).unwrap();
    }
    rename(&tag, "b", "a/moved", Replace::Yes).unwrap();
    fixture.mkdir(&tag, "new");
    for number in 0..150 {
        fixture.write(&tag, &format!("new/{number}"), b"new").await;
    }
    fixture.write(&tag, "b", b"a file in the place of a directory").await;
    tag
}

#[tokio::test]
async fn a_discard_blocks_nobody_and_concurrent_changes_stay_edits_or_are_discarded() {
    let fixture = TagFixture::new();
    let tag = edited_all_over(&fixture).await;
    let mut pauses = 0;
    tag.discard(b"", &mut |_| {
        pauses += 1;
        // A name cannot be made while any lock is held.
        fixture.make(&tag, &format!("made-{pauses}"), Kind::File).unwrap();
    })
    .unwrap();
    assert!(pauses > 10, "{pauses} transactions");
    assert!(tag.is_edited());
    let left = fixture.changes(&tag).await;
    assert!(!left.is_empty() && left.iter().all(|line| line.starts_with("A made-")), "{left:?}");
    discarded(&tag, b"").unwrap();
    assert!(!tag.is_edited() && fixture.changes(&tag).await.is_empty());
}

#[tokio::test]
async fn a_killed_discard_leaves_a_valid_state_and_the_next_one_finishes_it() {
    for after in [1, 3, 7] {
        let fixture = TagFixture::new();
        let before = {
            let tag = edited_all_over(&fixture).await;
            let mut left = after;
            let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                tag.discard(b"", &mut |_| {
                    left -= 1;
                    assert!(left > 0, "killed here");
                })
            }));
            assert!(died.is_err());
            everything(&fixture, &tag).await
        };
        let upper = fixture.uppers.find(&tag_key("v1")).unwrap().unwrap();
        let tag = Overlay::open(&fixture.context, upper).await.unwrap();
        assert_eq!(everything(&fixture, &tag).await, before, "after {after} transactions");
        assert!(tag.is_edited());
        discarded(&tag, b"").unwrap();
        assert!(!tag.is_edited() && fixture.changes(&tag).await.is_empty(), "after {after} transactions");
    }
}

#[tokio::test]
async fn discarded_bytes_are_free_at_once() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", &vec![1; 1 << 20]).await;
    fixture.write(&tag, "dir/new", &vec![2; 1 << 20]).await;
    assert!(fixture.uppers.usage().0 >= 2 << 20);
    discarded(&tag, b"dir").unwrap();
    assert!(fixture.uppers.usage().0 < 2 << 20);
    discarded(&tag, b"").unwrap();
    assert_eq!(fixture.uppers.usage().0, 0);
}
