//! Tests of the upper, from its rows to its crashes.

mod bytes;
mod crash;
mod damage;
mod freezing;
mod layers;
mod moving;
mod recovery;
mod rows;

use std::path::Path;

use super::*;
use crate::error::ErrorKind;
use crate::layer::Metadata;

pub(super) fn tag_key(tag: &str) -> TagKey {
    TagKey { origin: "https://reg.io".to_owned(), authority: "reg.io".to_owned(), repository: "team/app".to_owned(), tag: tag.to_owned() }
}

pub(super) fn digest(byte: u8) -> Digest {
    Digest::parse(&format!("sha256:{}", format!("{byte:02x}").repeat(32))).unwrap()
}

pub(super) fn bound() -> Binding {
    Binding { under: Some(digest(1)), expected: Some(digest(1)), deleted: false }
}

pub(super) fn file(content: Content) -> Node {
    Node {
        kind: NodeKind::File,
        metadata: Metadata { mode: Some(0o644), owner: Some((1000, 100)), mtime: None, device: (0, 0) },
        ctime: (5, 6),
        links: 1,
        target: Vec::new(),
        content,
        opaque: false,
        parent: 0,
    }
}

pub(super) fn open(directory: &Path) -> Uppers {
    Uppers::open(directory, None).unwrap()
}

/// A new upper of `v1` over a published tag, with its directory.
pub(super) fn begin() -> (tempfile::TempDir, Uppers, Upper) {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    (directory, uppers, upper)
}

/// A complete commit, part by part.
pub(super) fn commit(
    upper: &Upper,
    frozen: FrozenUpper,
    digest: Digest,
    references: &mut dyn Iterator<Item = (NodeKey, TreeNode)>,
    is_open: &dyn Fn(DataId) -> bool,
) -> Result<bool, Error> {
    while upper.refer_some(&frozen, references, is_open)? {}
    let clean = upper.commit_publish(frozen, digest)?;
    upper.collect()?;
    Ok(clean)
}

/// Reopens the upper of `v1` after it was dropped.
pub(super) fn again(uppers: &Uppers) -> Upper {
    uppers.find(&tag_key("v1")).unwrap().unwrap()
}

/// Adds a file with staged bytes to the root.
pub(super) fn add(upper: &Upper, name: &[u8], bytes: &[u8]) -> (NodeKey, DataId) {
    let data = upper.new_data().unwrap();
    data.write_at(0, bytes).unwrap();
    let node = file(Content::Data(data.id()));
    let add = |change: &mut Change<'_>| {
        let key = change.add_node(&node)?;
        change.put_name(0, name, Named::Node(key))?;
        Ok(key)
    };
    (upper.change(add).unwrap(), data.id())
}

/// Gives a node a new file over a base, as the first write does.
pub(super) fn lay(upper: &Upper, key: NodeKey, below: Below) -> DataFile {
    let data = upper.new_over(&below).unwrap();
    let put = |change: &mut Change<'_>| {
        change.put_node(key, &file(Content::Data(data.id())))?;
        change.lay(&data, &below)
    };
    upper.change(put).unwrap();
    data
}

pub(super) fn contents(upper: &Upper, id: DataId) -> Vec<u8> {
    read(&upper.data(id).unwrap())
}

/// All bytes of a staged file. A tree's bytes are its node's path if that has the file's length, else all `t`.
pub(super) fn read(data: &DataFile) -> Vec<u8> {
    read_at(data, 0, u64::MAX)
}

/// Bytes at an offset, fewer only at the end.
pub(super) fn read_at(data: &DataFile, offset: u64, length: u64) -> Vec<u8> {
    let end = data.length().unwrap().min(offset.saturating_add(length));
    let (mut bytes, mut at) = (Vec::new(), offset);
    while at < end {
        let segment = data.segment(at, end).unwrap();
        match segment.held {
            Held::Here(file) => bytes.extend(file.read(&segment.range).unwrap()),
            Held::Tree(tree) => {
                let range = usize::try_from(at).unwrap()..usize::try_from(segment.range.end).unwrap();
                let is_path = tree.path.len() as u64 == tree.size;
                bytes.extend(range.map(|at| if is_path { tree.path[at] } else { b't' }));
            }
        }
        at = segment.range.end;
    }
    bytes
}

pub(super) fn tree_node(number: u32) -> TreeNode {
    TreeNode { manifest: digest(2), node: number, path: format!("p{number}").into_bytes(), sha256: Some([3; 32]), size: 5 }
}

/// All data files below an uppers directory.
pub(super) fn data_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![directory.join("uppers")];
    while let Some(at) = rest.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rest.push(path);
            } else if path.components().any(|part| part.as_os_str() == "data") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn changes_survive_reopening_the_upper() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    assert!(uppers.find(&tag_key("v1")).unwrap().is_none());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    assert!(!upper.is_edited());
    let data = upper.new_data().unwrap();
    data.write_at(0, b"hello").unwrap();
    let node = file(Content::Data(data.id()));
    let key = upper
        .change(|change| {
            let key = change.add_node(&node)?;
            change.put_name(0, b"a\xff", Named::Node(key))?;
            change.put_name(0, b"b", Named::Whiteout)?;
            change.put_xattr(key, b"user.x", Some(b"1"))?;
            assert_eq!(change.rows().node(key)?.as_ref(), Some(&node));
            Ok(key)
        })
        .unwrap();
    assert!(key > STAGED && upper.is_edited());
    drop(upper);
    let upper = uppers.find(&tag_key("v1")).unwrap().unwrap();
    assert!(upper.is_edited());
    assert_eq!(upper.binding(), bound());
    assert_eq!(upper.rows().node(key).unwrap(), Some(node));
    assert_eq!(upper.rows().name(0, b"a\xff").unwrap(), Some(Named::Node(key)));
    assert_eq!(upper.rows().name(0, b"b").unwrap(), Some(Named::Whiteout));
    assert_eq!(upper.rows().xattrs(key).unwrap(), [(b"user.x".to_vec(), b"1".to_vec())]);
    assert_eq!(contents(&upper, data.id()), b"hello");
}

#[test]
fn a_second_opener_is_told_who_holds_the_upper() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (open(directory.path()), open(directory.path()));
    let upper = one.create(&tag_key("v1"), bound(), None).unwrap();
    let busy = two.find(&tag_key("v1")).err().unwrap();
    assert_eq!(busy.kind, ErrorKind::Busy);
    assert!(busy.message.contains(&std::process::id().to_string()), "{busy}");
    assert_eq!(two.create(&tag_key("v1"), bound(), None).err().unwrap().kind, ErrorKind::Busy);
    let listed = two.list().unwrap().pop().unwrap().unwrap();
    assert_eq!((listed.tag_key, listed.holder), (tag_key("v1"), Some(std::process::id())));
    drop(upper);
    assert_eq!(two.list().unwrap().pop().unwrap().unwrap().holder, None);
    assert_eq!(two.create(&tag_key("v1"), bound(), None).err().unwrap().kind, ErrorKind::Exists);
    two.find(&tag_key("v1")).unwrap().unwrap().remove().unwrap();
    assert!(two.list().unwrap().is_empty());
}

#[test]
fn a_frozen_generation_never_changes_and_its_commit_frees_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), Binding::default(), None).unwrap();
    let data = upper.new_data().unwrap();
    data.write_at(0, b"hello").unwrap();
    let id = data.id();
    let key = upper.change(|change| change.add_node(&file(Content::Data(id)))).unwrap();
    drop(data);
    let frozen = upper.freeze().unwrap();
    assert!(upper.data(id).unwrap().is_fixed());
    assert_eq!(upper.freeze().err().unwrap().kind, ErrorKind::Busy);
    assert_eq!(upper.data(id).unwrap().write_at(0, b"j").err().unwrap().kind, ErrorKind::Busy);
    let tree = TreeNode { manifest: digest(2), node: 7, path: b"a".to_vec(), sha256: Some([3; 32]), size: 5 };
    assert!(commit(&upper, frozen, digest(2), &mut [(key, tree.clone())].into_iter(), &|_| false).unwrap());
    assert!(!upper.is_edited());
    assert_eq!(upper.binding().expected, Some(digest(2)));
    let node = upper.rows().node(key).unwrap().unwrap();
    assert_eq!(node.content, Content::Tree(tree));
    assert!(node.metadata.mtime.is_some());
    assert_eq!(upper.data(id).err().unwrap().kind, ErrorKind::Gone);
    assert_eq!(uppers.usage().0, 0);
}

#[test]
fn the_meaning_of_the_edits_is_kept_with_them() {
    let (_directory, uppers, upper) = begin();
    assert_eq!(upper.meaning().unwrap(), None);
    upper.set_meaning("{\"platform\":\"linux/arm64\"}").unwrap();
    assert!(!upper.is_edited());
    drop(upper);
    assert_eq!(again(&uppers).meaning().unwrap().as_deref(), Some("{\"platform\":\"linux/arm64\"}"));
}
