//! An edited tag over artifacts in memory, with its upper in a temporary directory.

mod bytes;
mod discarding;
mod model;
mod names;
mod older;
mod publishing;
mod reference;
mod renumbering;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use super::{Frozen, NewNode, Overlay, Replace};
use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::layer::Metadata;
use crate::oci::{Digest, media_type};
use crate::registry::RequestKind;
use crate::staging::{Binding, Uppers};
use crate::view::snapshot::Snapshot as _;
use crate::view::tests::{DEFAULTS, TagFixture, tag_key};
use crate::view::{Attributes, TreeEntry, ViewNode};

/// One entry of an artifact.
pub enum Item<'a> {
    Dir(&'a str),
    File(&'a str, Vec<u8>),
    Link(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    Fifo(&'a str),
}

impl TagFixture {
    /// Adds an image of one layer.
    pub fn push(&self, tag: &str, items: &[Item<'_>]) -> Digest {
        let mut archive = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(1000);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mode(0o644);
            header.set_size(0);
            let (path, data) = match item {
                Item::Dir(path) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    (path, &[][..])
                }
                Item::File(path, data) => {
                    header.set_size(data.len() as u64);
                    (path, data.as_slice())
                }
                Item::Link(path, target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_link_name(target).unwrap();
                    (path, &[][..])
                }
                Item::Symlink(path, target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name(target).unwrap();
                    (path, &[][..])
                }
                Item::Fifo(path) => {
                    header.set_entry_type(tar::EntryType::Fifo);
                    (path, &[][..])
                }
            };
            archive.append_data(&mut header, path, data).unwrap();
        }
        self.push_archive(tag, &archive.into_inner().unwrap())
    }

    pub fn push_archive(&self, tag: &str, archive: &[u8]) -> Digest {
        let layers = [("application/vnd.oci.image.layer.v1.tar", archive, [].as_slice())];
        self.registry.add_artifact("app", tag, (media_type::OCI_CONFIG, b"{}"), &layers, &[])
    }

    /// A small tree with an entry of every kind, and its tag.
    pub async fn sample(&self) -> Arc<Overlay> {
        let digest = self.push("sample", &sample());
        self.over("sample", digest).await
    }

    /// Number of blobs requested since the last call.
    pub fn blobs_read(&self) -> usize {
        let log = self.registry.requests();
        self.registry.forget_requests();
        log.iter().filter(|request| request.kind == RequestKind::Blob).count()
    }

    /// Makes an artifact of a frozen state, as a publish would.
    pub async fn publish(&self, overlay: &Arc<Overlay>) -> bool {
        let frozen = overlay.freeze().unwrap();
        let digest = self.push_frozen(&overlay.tag_key().tag, &frozen).await;
        let artifact = self.artifact(&digest).await;
        overlay.commit_publish(frozen, &artifact).unwrap()
    }

    pub async fn push_frozen(&self, tag: &str, frozen: &Arc<Frozen>) -> Digest {
        let entries: Vec<_> = frozen.entries().map(Result::unwrap).collect();
        let mut archive = tar::Builder::new(Vec::new());
        let mut seen: BTreeMap<ViewNode, Vec<u8>> = BTreeMap::new();
        for entry in entries {
            if entry.kind == Kind::Socket {
                continue;
            }
            let data = match entry.kind {
                Kind::File => {
                    let reader = frozen.open(&entry).await.unwrap();
                    let data = reader.read(0, u32::try_from(entry.size).unwrap()).await.unwrap();
                    assert_eq!(Digest::from_sha256(frozen.sha256(&entry).await.unwrap()), Digest::of(&data));
                    data.to_vec()
                }
                _ => Vec::new(),
            };
            append(&mut archive, &entry, &data, seen.get(&entry.node));
            if entry.kind != Kind::Directory {
                seen.entry(entry.node).or_insert(entry.path);
            }
        }
        self.push_archive(tag, &archive.into_inner().unwrap())
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, entry: &TreeEntry, data: &[u8], linked: Option<&Vec<u8>>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut extensions: Vec<(String, Vec<u8>)> =
        entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{}", text(name)), value.clone())).collect();
    let mtime = entry.metadata.mtime.unwrap_or(DEFAULTS.time);
    extensions.push(("mtime".to_owned(), format!("{}.{:09}", mtime.0, mtime.1).into_bytes()));
    archive.append_pax_extensions(extensions.iter().map(|(name, value)| (name.as_str(), value.as_slice()))).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mtime(u64::try_from(mtime.0).unwrap_or(0));
    let owner = entry.metadata.owner.unwrap_or((DEFAULTS.uid, DEFAULTS.gid));
    header.set_uid(owner.0.into());
    header.set_gid(owner.1.into());
    header.set_mode(entry.metadata.mode.unwrap_or(if entry.kind == Kind::Directory { 0o755 } else { 0o644 }));
    header.set_size(0);
    header.set_entry_type(match (entry.kind, linked) {
        (Kind::Directory, _) => tar::EntryType::Directory,
        (_, Some(_)) => tar::EntryType::Link,
        (Kind::File, _) => tar::EntryType::Regular,
        (Kind::Symlink, _) => tar::EntryType::Symlink,
        (Kind::Fifo, _) => tar::EntryType::Fifo,
        (Kind::CharDevice, _) => tar::EntryType::Char,
        (Kind::BlockDevice, _) => tar::EntryType::Block,
        (Kind::Socket, _) => unreachable!("left out before"),
    });
    if entry.kind.is_device() {
        header.set_device_major(entry.metadata.device.0).unwrap();
        header.set_device_minor(entry.metadata.device.1).unwrap();
    }
    match linked {
        Some(path) => header.set_link_name(text(path)).unwrap(),
        None if entry.kind == Kind::Symlink => header.set_link_name(text(&entry.target)).unwrap(),
        None => header.set_size(data.len() as u64),
    }
    let path = if entry.path.is_empty() { "./".to_owned() } else { text(&entry.path) };
    let data = if linked.is_some() { &[][..] } else { data };
    archive.append_data(&mut header, path, data).unwrap();
    archive.get_mut().flush().unwrap();
}

/// Directories, files, a hard-linked file, links, a pipe.
pub(super) fn sample() -> Vec<Item<'static>> {
    vec![
        Item::Dir("dir"),
        Item::File("dir/inner", b"inner".to_vec()),
        Item::Dir("dir/deep"),
        Item::File("dir/deep/bottom", b"bottom".to_vec()),
        Item::Dir("empty"),
        Item::File("file", b"hello".to_vec()),
        Item::File("one", b"linked".to_vec()),
        Item::Link("two", "one"),
        Item::Fifo("pipe"),
        Item::Symlink("symlink", "dir/inner"),
    ]
}

/// Discards changes below a path. Returns everything that the kernel must forget.
pub(super) fn discarded(overlay: &Overlay, path: &[u8]) -> Result<Vec<super::Forgotten>, Error> {
    let mut forgotten = Vec::new();
    overlay.discard(path, &mut |some| forgotten.extend(some))?;
    Ok(forgotten)
}

/// The node of a path.
pub(super) fn at(overlay: &Overlay, path: &str) -> Option<ViewNode> {
    overlay.merged().find(path.as_bytes()).unwrap()
}

pub(super) fn node(overlay: &Overlay, path: &str) -> ViewNode {
    at(overlay, path).unwrap_or_else(|| panic!("{path} is not there"))
}

/// The directory and the last name of a path.
pub(super) fn split<'a>(overlay: &Overlay, path: &'a str) -> (ViewNode, &'a [u8]) {
    match path.rsplit_once('/') {
        Some((directory, name)) => (node(overlay, directory), name.as_bytes()),
        None => (0, path.as_bytes()),
    }
}

pub(super) fn new(kind: Kind) -> NewNode {
    NewNode { kind, metadata: Metadata { mode: Some(0o640), owner: Some((1, 2)), ..Metadata::default() }, target: Vec::new() }
}

impl TagFixture {
    pub fn attributes(&self, overlay: &Overlay, path: &str) -> Attributes {
        overlay.attributes(&self.context, node(overlay, path)).unwrap()
    }

    pub fn make(&self, overlay: &Overlay, path: &str, kind: Kind) -> Result<ViewNode, Error> {
        let (directory, name) = split(overlay, path);
        overlay.create(&self.context, directory, name, &new(kind))
    }

    pub fn mkdir(&self, overlay: &Overlay, path: &str) -> ViewNode {
        self.make(overlay, path, Kind::Directory).unwrap()
    }

    pub async fn write(&self, overlay: &Arc<Overlay>, path: &str, data: &[u8]) {
        if at(overlay, path).is_none() {
            self.make(overlay, path, Kind::File).unwrap();
        }
        let writer = overlay.open_writer(&self.context, node(overlay, path), true).await.unwrap();
        writer.write(0, data).await.unwrap();
        writer.flush().unwrap();
    }

    pub async fn read(&self, overlay: &Arc<Overlay>, path: &str) -> Vec<u8> {
        let reader = overlay.open_reader(&self.context, node(overlay, path)).await.unwrap();
        reader.read(0, 4 << 20).await.unwrap().to_vec()
    }

    /// All paths that differ, each with a letter for its state.
    pub async fn changes(&self, overlay: &Arc<Overlay>) -> Vec<String> {
        let differences = overlay.differences().await.unwrap();
        let text = |difference: &super::Difference| {
            let letter = match difference.state {
                super::PathState::Added => 'A',
                super::PathState::Changed => 'C',
                super::PathState::Removed => 'R',
                super::PathState::Clean => '?',
            };
            format!("{letter} {}", String::from_utf8_lossy(&difference.path))
        };
        differences.iter().map(text).collect()
    }
}

pub(super) fn remove(overlay: &Overlay, path: &str, is_directory: bool) -> Result<(), Error> {
    let (directory, name) = split(overlay, path);
    overlay.remove(directory, name, is_directory)
}

pub(super) fn rename(overlay: &Overlay, from: &str, to: &str, replace: Replace) -> Result<(), Error> {
    overlay.rename(split(overlay, from), split(overlay, to), replace)
}

pub(super) fn link(overlay: &Overlay, from: &str, to: &str) -> Result<(), Error> {
    let (directory, name) = split(overlay, to);
    overlay.link(node(overlay, from), directory, name)
}

/// Names of a directory as listed, a few at a time.
pub(super) fn list(overlay: &Overlay, path: &str) -> Vec<String> {
    let directory = node(overlay, path);
    let (mut names, mut after) = (Vec::new(), 0);
    loop {
        let before = names.len();
        overlay
            .children(directory, after, &mut |cookie, name, _| {
                if names.len() == before + 2 {
                    return false;
                }
                after = cookie;
                names.push(String::from_utf8(name.to_vec()).unwrap());
                true
            })
            .unwrap();
        if names.len() == before {
            names.sort();
            return names;
        }
    }
}

pub(super) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind
}
