//! Trees renumbered since the edits were made.

use std::collections::HashMap;

use super::super::SetAttributes;
use super::super::freeze::renumber::{Numbers, apply};
use super::*;

/// Edits of every kind, whose rows refer to the tree by number.
async fn edited(fixture: &TagFixture) -> Arc<Overlay> {
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", b"changed").await;
    fixture.write(&tag, "dir/deep/new", b"new").await;
    rename(&tag, "dir/deep", "empty/deep", Replace::Yes).unwrap();
    rename(&tag, "symlink", "dir/symlink", Replace::Yes).unwrap();
    link(&tag, "two", "empty/three").unwrap();
    remove(&tag, "one", false).unwrap();
    let set = SetAttributes { mode: Some(0o600), ..Default::default() };
    tag.set_attributes(&fixture.context, node(&tag, "dir/inner"), set).await.unwrap();
    tag.set_xattr(node(&tag, "pipe"), b"user.x", b"1", false, false).unwrap();
    tag
}

async fn shown(fixture: &TagFixture, tag: &Arc<Overlay>) -> Vec<String> {
    let mut lines = fixture.changes(tag).await;
    for path in ["file", "empty/deep/new", "empty/deep/bottom", "empty/three", "dir/inner"] {
        let Attributes { mode, links, size, .. } = fixture.attributes(tag, path);
        lines.push(format!("{path} {mode:o} {links} {size} {:?}", fixture.read(tag, path).await));
    }
    lines.push(format!("{:?}", ["", "dir", "empty", "empty/deep"].map(|path| (list(tag, path), fixture.attributes(tag, path).links))));
    lines.push(format!("{:?} {:?}", tag.xattr_names(node(tag, "pipe")).unwrap(), tag.parent(node(tag, "empty/deep")).unwrap()));
    lines
}

/// Closes the tag, rewrites its rows as if the tree had other numbers, and opens it again.
async fn with_other_numbers(fixture: &TagFixture, tag: Arc<Overlay>, numbers: impl Fn(u64) -> u64) -> Arc<Overlay> {
    let tag_key = tag.tag_key();
    let count = tag.base.tree().unwrap().node_count();
    let places: HashMap<Vec<u8>, u32> = (0..count).map(|id| (tag.base.path(id), id)).collect();
    let under = tag.binding().under.unwrap();
    drop(tag);
    let upper = fixture.uppers.find(&tag_key).unwrap().unwrap();
    let other: Numbers = (1..u64::from(count)).map(|key| (key, numbers(key))).collect();
    let locate = |manifest: &Digest, path: &[u8]| {
        let id = *places.get(path)?;
        Some(if *manifest == under && id != 0 { u32::try_from(numbers(id.into())).unwrap() } else { id })
    };
    apply(&upper, &other, &locate).unwrap();
    Overlay::open(&fixture.context, upper).await.unwrap()
}

#[tokio::test]
async fn edits_are_found_again_by_path() {
    let fixture = TagFixture::new();
    let tag = edited(&fixture).await;
    let before = shown(&fixture, &tag).await;
    let nodes = u64::from(tag.base.tree().unwrap().node_count());
    let tag = with_other_numbers(&fixture, tag, |key| nodes - key).await;
    assert_eq!(shown(&fixture, &tag).await, before);
    let tag = fixture.again(tag).await;
    assert_eq!(shown(&fixture, &tag).await, before);
}

#[tokio::test]
async fn edits_of_published_files_are_found_again_too() {
    let fixture = TagFixture::new();
    let tag = edited(&fixture).await;
    fixture.publish(&tag).await;
    fixture.write(&tag, "file", b"again").await;
    let before = shown(&fixture, &tag).await;
    let nodes = u64::from(tag.base.tree().unwrap().node_count());
    // Rows of the published tree keep their numbers here; those of the tree below have others.
    let published = fixture.artifact(&tag.binding().expected.unwrap()).await;
    let tag_key = tag.tag_key();
    let places: HashMap<Vec<u8>, u32> = (0..tag.base.tree().unwrap().node_count()).map(|id| (tag.base.path(id), id)).collect();
    let under = tag.binding().under.unwrap();
    drop(tag);
    let upper = fixture.uppers.find(&tag_key).unwrap().unwrap();
    let other: Numbers = (1..nodes).map(|key| (key, nodes - key)).collect();
    let locate = |manifest: &Digest, path: &[u8]| {
        if *manifest != under {
            return published.tree.find(path);
        }
        let id = *places.get(path)?;
        Some(if id == 0 { 0 } else { u32::try_from(nodes).unwrap() - id })
    };
    apply(&upper, &other, &locate).unwrap();
    let tag = Overlay::open(&fixture.context, upper).await.unwrap();
    assert_eq!(shown(&fixture, &tag).await, before);
}

#[tokio::test]
async fn a_node_published_under_another_name_and_written_again_is_found_again() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    rename(&tag, "one", "symlink", Replace::Yes).unwrap();
    fixture.write(&tag, "two", b"changed").await;
    fixture.publish(&tag).await;
    fixture.write(&tag, "two", b"again").await;
    let tag = fixture.again(tag).await;
    assert_eq!(fixture.read(&tag, "symlink").await, b"again");
    assert_eq!(fixture.changes(&tag).await, ["C symlink", "C two"]);
}
