//! Edited tags, a publisher, and a reader with no prior state.

use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::artifact::{Kind, ViewMode};
use crate::error::Error;
use crate::layer::Metadata;
use crate::oci::Digest;
use crate::publish::{ArtifactKind, Event, Listener, Next, Options, Outcome, Publisher, Report, Sizes};
use crate::view::snapshot::Snapshot as _;
use crate::view::tests::TagFixture;
pub use crate::view::tests::{repository, tag_key};
use crate::view::{Context, NewNode, Overlay, SetAttributes, TreeEntry, ViewNode, tree_entries};

pub const TIME: (i64, u32) = (1_600_000_000, 5_000_000);

/// Edited tags and their publisher.
pub struct PublishFixture {
    tags: TagFixture,
    pub publisher: Publisher,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl std::ops::Deref for PublishFixture {
    type Target = TagFixture;

    fn deref(&self) -> &TagFixture {
        &self.tags
    }
}

/// One name as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    pub kind: Kind,
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
    pub mtime: Option<(i64, u32)>,
    pub target: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub device: (u32, u32),
    /// The node's first name, and a file's bytes.
    pub first: String,
    pub bytes: Vec<u8>,
}

impl PublishFixture {
    pub fn new() -> Self {
        Self::with(ArtifactKind::Files, None)
    }

    /// Splits trees into small layers and spans, so that a small tree has boundaries.
    pub fn sized(self, sizes: Sizes) -> Self {
        Self { publisher: Publisher { sizes, ..self.publisher }, ..self }
    }

    pub fn with(kind: ArtifactKind, passphrase: Option<&'static str>) -> Self {
        let tags = TagFixture::with_passphrase(passphrase);
        let publisher = Publisher {
            context: Arc::clone(&tags.context),
            push: tags.registry.clone(),
            kind,
            concurrency: NonZeroUsize::new(4).unwrap(),
            sizes: Sizes::default(),
            attach_index: true,
            identities: Arc::default(),
        };
        Self { tags, publisher, events: Arc::default() }
    }

    /// The next process, with no state but the same cache.
    pub async fn restart(&mut self) {
        self.tags.restart().await;
        self.publisher.context = Arc::clone(&self.tags.context);
        self.publisher.identities = Arc::default();
    }

    /// Another machine, with an empty cache.
    pub async fn move_elsewhere(&mut self) {
        self.tags.clear_cache();
        self.restart().await;
    }

    /// The tag after a power cut that lost the file with these staged bytes.
    pub async fn after_losing(&self, overlay: Arc<Overlay>, bytes: &[u8]) -> Arc<Overlay> {
        overlay.upper().sync().unwrap();
        let mut rest = vec![self.state()];
        while let Some(path) = rest.pop() {
            if path.is_dir() {
                rest.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if std::fs::read(&path).unwrap() == bytes {
                std::fs::remove_file(path).unwrap();
            }
        }
        self.again(overlay).await
    }

    pub fn listener(&self) -> Listener {
        let events = Arc::clone(&self.events);
        Arc::new(move |event| events.lock().push(event))
    }

    pub async fn publish(&self, overlay: &Arc<Overlay>) -> Result<(Report, Next), Error> {
        self.publish_with(overlay, Options::default()).await
    }

    pub async fn publish_with(&self, overlay: &Arc<Overlay>, options: Options) -> Result<(Report, Next), Error> {
        self.publisher.publish(overlay, &options, &self.listener()).await
    }

    /// Publishes; returns the new digest.
    pub async fn published(&self, overlay: &Arc<Overlay>) -> Digest {
        let (report, next) = self.publish(overlay).await.unwrap();
        assert_eq!(next, Next::Continues { clean: true });
        digest_of(&report)
    }

    /// Everything that a tag shows to another reader.
    pub async fn seen(&self, digest: &Digest) -> Vec<Seen> {
        let (artifact, context, _directory) = self.elsewhere(digest).await;
        let entries: Vec<_> = tree_entries(&artifact).map(Result::unwrap).collect();
        let mut seen = Vec::new();
        for entry in &entries {
            let mut bytes = Vec::new();
            if let Some(content) = artifact.tree.content(entry.node as u32).filter(|content| !content.extents.is_empty()) {
                let stream = context.artifacts.stream(&repository(), &artifact, content.blob, false).await.unwrap();
                for extent in &content.extents {
                    bytes.extend_from_slice(&stream.read(extent.stream..extent.stream + extent.length).await.unwrap());
                }
            }
            seen.push(of_entry(entry, &entries, bytes));
        }
        seen
    }

    /// Reads everything that an artifact shows, in the process that published it.
    pub async fn read_here(&self, digest: &Digest) {
        let artifacts = &self.publisher.context.artifacts;
        let artifact = artifacts.artifact(&repository(), digest, ViewMode::Merged, false).await.unwrap();
        for blob in 0..artifact.sources().len() as u32 {
            let stream = artifacts.stream(&repository(), &artifact, blob, false).await.unwrap();
            let mut place = 0;
            while place < stream.length() {
                place += stream.read(place..stream.length().min(place + (1 << 20))).await.unwrap().len() as u64;
            }
        }
    }

    /// The same for what is staged.
    pub async fn staged(&self, overlay: &Arc<Overlay>) -> Vec<Seen> {
        let frozen = overlay.freeze().unwrap();
        let entries: Vec<_> = frozen.entries().map(Result::unwrap).collect();
        let mut seen = Vec::new();
        for entry in &entries {
            let mut bytes = Vec::new();
            if entry.kind == Kind::File {
                let reader = frozen.open(entry).await.unwrap();
                while (bytes.len() as u64) < entry.size {
                    bytes.extend_from_slice(&reader.read(bytes.len() as u64, 1 << 20).await.unwrap());
                }
            }
            seen.push(of_entry(entry, &entries, bytes));
        }
        seen
    }

    pub fn tagged(&self, tag: &str) -> Option<Digest> {
        self.registry.tagged("app").get(tag).copied()
    }
}

fn of_entry(entry: &TreeEntry, all: &[TreeEntry], bytes: Vec<u8>) -> Seen {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let first = all.iter().find(|other| other.node == entry.node && other.kind == entry.kind).unwrap();
    Seen {
        path: text(&entry.path),
        kind: entry.kind,
        mode: entry.metadata.mode.filter(|_| entry.kind != Kind::Symlink),
        owner: entry.metadata.owner,
        mtime: entry.metadata.mtime,
        target: entry.target.clone(),
        xattrs: entry.xattrs.clone(),
        device: entry.metadata.device,
        first: text(&first.path),
        bytes,
    }
}

/// Bytes that gain nothing from compression.
pub fn noise(seed: u64, length: u64) -> Vec<u8> {
    (0..length / 8).flat_map(|number| xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), seed).to_le_bytes()).collect()
}

pub fn digest_of(report: &Report) -> Digest {
    match &report.outcome {
        Outcome::Published { digest, .. } => Digest::parse(digest).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Changes by path in an edited tag.
pub struct Edit<'a>(pub &'a PublishFixture, pub &'a Arc<Overlay>);

impl Edit<'_> {
    fn context(&self) -> &Context {
        &self.0.publisher.context
    }

    pub fn find(&self, path: &str) -> ViewNode {
        path.split('/').filter(|name| !name.is_empty()).fold(0, |node, name| self.1.lookup(node, name.as_bytes()).unwrap().expect(name))
    }

    fn place<'p>(&self, path: &'p str) -> (ViewNode, &'p [u8]) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(above), name.as_bytes())
    }

    pub fn make(&self, path: &str, kind: Kind, target: &str) -> ViewNode {
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let metadata = Metadata { mode: Some(mode), owner: Some((7, 8)), ..Metadata::default() };
        let new = NewNode { kind, metadata, target: target.as_bytes().to_vec() };
        let (above, name) = self.place(path);
        self.1.create(self.context(), above, name, &new).unwrap()
    }

    pub fn dir(&self, path: &str) {
        self.make(path, Kind::Directory, "");
    }

    pub async fn file(&self, path: &str, bytes: &[u8]) {
        let (above, name) = self.place(path);
        let node = match self.1.lookup(above, name).unwrap() {
            Some(node) => node,
            None => self.make(path, Kind::File, ""),
        };
        let writer = self.1.open_writer(self.context(), node, true).await.unwrap();
        for (number, piece) in bytes.chunks(1 << 20).enumerate() {
            writer.write((number << 20) as u64, piece).await.unwrap();
        }
        drop(writer);
        self.time(path).await;
    }

    pub fn link(&self, from: &str, to: &str) {
        let (above, name) = self.place(to);
        self.1.link(self.find(from), above, name).unwrap();
    }

    pub fn remove(&self, path: &str) {
        let (above, name) = self.place(path);
        let node = self.find(path);
        let is_directory = self.1.attributes(self.context(), node).unwrap().kind == Kind::Directory;
        self.1.remove(above, name, is_directory).unwrap();
    }

    pub async fn set(&self, path: &str, set: SetAttributes) {
        self.1.set_attributes(self.context(), self.find(path), set).await.unwrap();
    }

    /// Sets a time that is the same in every run.
    pub async fn time(&self, path: &str) {
        self.set(path, SetAttributes { mtime: Some(TIME), ..SetAttributes::default() }).await;
    }

    /// Makes all times the same in every run.
    pub async fn times(&self) {
        let frozen = self.1.freeze().unwrap();
        let paths: Vec<String> = frozen.entries().map(|entry| String::from_utf8(entry.unwrap().path).unwrap()).collect();
        drop(frozen);
        for path in paths.iter().rev() {
            self.time(path).await;
        }
    }

    /// A small tree with some of everything.
    pub async fn sample(&self) {
        self.dir("bin");
        self.file("bin/tool", b"#!/bin/sh\n").await;
        self.set("bin/tool", SetAttributes { mode: Some(0o755), ..SetAttributes::default() }).await;
        self.dir("docs");
        self.dir("docs/empty");
        self.file("docs/a.txt", b"hello").await;
        self.file("docs/nothing", b"").await;
        self.link("docs/a.txt", "docs/same.txt");
        self.make("docs/link", Kind::Symlink, "a.txt");
        self.make("pipe", Kind::Fifo, "");
        self.1.set_xattr(self.find("docs/a.txt"), b"user.colour", b"blue", false, false).unwrap();
        self.set("", SetAttributes { mode: Some(0o750), uid: Some(7), gid: Some(8), ..SetAttributes::default() }).await;
        self.times().await;
    }
}
