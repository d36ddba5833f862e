//! A view: the content of one directory of the mount, such as a tag, a digest path, one layer or platform, or the
//! metadata of a tag.
//!
//! A view has a number. It is bound to a digest when first entered and keeps it for life:
//! when a tag moves, new lookups get a new view, and processes inside the old one stay on its digest. Two tags
//! with the same digest share a tree but are two views. This module knows nodes, names and bytes of one view; it never
//! decides which view a path leads to, and never resolves a link.
//!
//! # Files
//!
//! - `table` numbers views by their `origin`; `edited` gives one its edits; `pin` and `pins` keep old handles working
//! - `overlay` is an edited tag, `meaning` its recorded flags; `reader` reads files, `attributes`, `xattr` and `metadata` describe them
//! - `snapshot`, `entry` and `compare` are for publishing, `diff` and `status`; `listed` for lists
//! - `authority`, `glob` and `shown` are helpers

mod attributes;
mod authority;
pub mod compare;
mod edited;
mod entry;
mod glob;
mod listed;
mod meaning;
mod metadata;
mod origin;
mod overlay;
mod pin;
mod pins;
mod reader;
pub mod shown;
pub mod snapshot;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod xattr;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub use attributes::{Attributes, Defaults};
pub use authority::Authority;
pub use edited::Begun;
pub use entry::{EntryContent, TreeEntry};
pub use glob::glob;
pub use listed::Entry;
pub use meaning::{ArtifactKind, Meaning};
pub use metadata::Metadata;
pub use origin::{Key, Member, Origin};
pub use overlay::{
    Difference, FileHandle, Forgotten, Frozen, NewNode, Overlay, PathState, Replace, SetAttributes, TreeSnapshot, hash_file, tree_entries,
};
pub use pin::Pin;
pub use reader::Reader;
pub use table::{FIRST_VIEW, VIEW_LIMIT, Views};
pub use xattr::state_name;

use crate::artifact::{Artifact, Artifacts, Kind, NodeId, ViewMode};
use crate::content::Verified;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository};
use crate::staging::{Upper, Uppers};

/// An operation that the kernel has permission-checked arrives here within this time.
const SETTLED: Duration = Duration::from_secs(1);

/// Number of a node inside a view; 0 is the view's own directory.
pub type ViewNode = u64;

/// State shared by all views of a mount.
#[derive(Clone)]
pub struct Context {
    /// Where artifacts come from.
    pub artifacts: Artifacts,
    /// The meaning of edits begun here, and how everything else is shown.
    pub meaning: Meaning,
    /// Defaults for attributes missing from an archive, and the user's overrides.
    pub defaults: Defaults,
    /// The registry or layout as written in references.
    pub authority: Authority,
    /// How long lists of referrers stay fresh.
    pub tag_ttl: Duration,
    /// Where edits are staged; `None` if nothing is writable.
    pub staging: Option<Arc<Uppers>>,
}

/// The content of a bound view.
pub enum Shown {
    /// The files of an artifact.
    Tree(Arc<Artifact>),
    /// Metadata of an artifact.
    Metadata(Metadata),
    /// A new tag, which shows staged files only.
    New,
}

/// The target of a name in a view.
#[derive(Clone, Debug)]
pub enum Found {
    /// A node of the same view.
    Node(ViewNode),
    /// A directory that is itself a view.
    View(Key, Origin),
}

/// One name of a complete listing.
pub struct Name {
    /// The name.
    pub name: Vec<u8>,
    /// Its target.
    pub found: Found,
}

/// One view. Shared by the table, open handles and operations in flight.
pub struct View {
    number: u32,
    /// Held for copying only.
    key: Mutex<Key>,
    origin: Origin,
    shown: OnceCell<Shown>,
    /// The edits of the tag, once it has any.
    overlay: OnceCell<Arc<Overlay>>,
    /// Edits that existed before the view was entered. Held for taking and putting only.
    given: Mutex<Option<Arc<Upper>>>,
    /// Files open through handles from before the first edit.
    pins: Arc<pins::Pins>,
    /// Its content is no longer shown: processes inside get an error.
    closed: AtomicBool,
    /// When the kernel got the attributes of its directory, after it was entered.
    attributes_sent: OnceLock<Instant>,
    /// Files opened while only the transport vouched for them: the kernel may have cached such pages.
    /// Held only for set operations.
    unverified: Mutex<HashSet<ViewNode>>,
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("View").field("number", &self.number).field("key", &self.key()).finish_non_exhaustive()
    }
}

impl View {
    fn new(number: u32, key: Key, origin: Origin) -> Self {
        Self {
            number,
            key: Mutex::new(key),
            origin,
            shown: OnceCell::new(),
            overlay: OnceCell::new(),
            given: Mutex::default(),
            pins: Arc::default(),
            closed: AtomicBool::new(false),
            attributes_sent: OnceLock::new(),
            unverified: Mutex::default(),
        }
    }

    /// The view's number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its key.
    pub fn key(&self) -> Key {
        self.key.lock().clone()
    }

    /// Called by the table of views only.
    fn set_key(&self, key: Key) {
        *self.key.lock() = key;
    }

    /// Whether the kernel got the attributes of its directory after it was entered, long enough ago that no operation in flight was
    /// checked against older ones.
    pub fn has_sent_attributes(&self) -> bool {
        self.attributes_sent.get().is_some_and(|sent| sent.elapsed() >= SETTLED)
    }

    /// Notes that the kernel gets them now.
    pub fn set_attributes_sent(&self) {
        self.attributes_sent.get_or_init(Instant::now);
    }

    /// Its repository.
    pub fn repository(&self) -> &Repository {
        self.origin.repository()
    }

    /// Its content, once entered.
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.get()
    }

    /// The digest that it is bound to, once entered: the expected digest of the tag upstream.
    pub fn digest(&self) -> Option<Digest> {
        if let Some(overlay) = self.overlay() {
            return overlay.binding().expected;
        }
        match self.shown()? {
            Shown::Tree(artifact) => Some(artifact.manifest.digest),
            Shown::Metadata(metadata) => Some(metadata.digest()),
            Shown::New => None,
        }
    }

    /// Binds the view to its digest, unless already bound, and returns its content.
    ///
    /// # Errors
    /// Errors of resolving the tag or reading the artifact; the view then stays unbound and the next caller tries again.
    pub async fn enter(&self, context: &Context) -> Result<&Shown, Error> {
        if let Some(shown) = self.shown.get() {
            return Ok(shown);
        }
        self.shown.get_or_try_init(|| self.bind(context)).await
    }

    async fn bind(&self, context: &Context) -> Result<Shown, Error> {
        let artifacts = &context.artifacts;
        let strict = self.strict(context);
        if let Some(shown) = self.bind_given(context).await? {
            return Ok(shown);
        }
        match &self.origin {
            Origin::Tag(repository, tag) => {
                let digest = artifacts.tag(repository, tag).await?;
                Ok(Shown::Tree(artifacts.artifact(repository, &digest, context.meaning.view, strict).await?))
            }
            Origin::Digest(repository, digest) => {
                Ok(Shown::Tree(artifacts.artifact(repository, digest, context.meaning.view, strict).await?))
            }
            Origin::Platform { repository, digest } => {
                Ok(Shown::Tree(artifacts.artifact(repository, digest, ViewMode::Merged, strict).await?))
            }
            Origin::Layer { repository, manifest, number } => {
                Ok(Shown::Tree(artifacts.layer(repository, manifest, *number, strict).await?))
            }
            Origin::TagMetadata(repository, tag) => {
                let digest = artifacts.tag(repository, tag).await?;
                Ok(Shown::Metadata(Metadata::load(context, repository, &digest, Some(tag), 3).await?))
            }
            Origin::DigestMetadata { repository, digest, depth } => {
                Ok(Shown::Metadata(Metadata::load(context, repository, digest, None, *depth).await?))
            }
        }
    }

    fn strict(&self, context: &Context) -> bool {
        context.meaning.strict || self.origin.is_pinned()
    }

    /// Whether the node is a directory, as far as known without entering.
    pub fn is_directory(&self, context: &Context, node: ViewNode) -> bool {
        if let Some(overlay) = self.overlay() {
            return overlay.attributes(context, node).is_ok_and(|attributes| attributes.kind == Kind::Directory);
        }
        match self.shown() {
            _ if node == 0 => true,
            None | Some(Shown::New) => false,
            Some(Shown::Tree(artifact)) => {
                node_id(node).and_then(|id| artifact.tree.node(id)).is_some_and(|node| node.kind == Kind::Directory)
            }
            Some(Shown::Metadata(metadata)) => metadata.is_directory(node),
        }
    }

    /// Looks up a name in a directory.
    pub async fn lookup(&self, context: &Context, directory: ViewNode, name: &[u8]) -> Result<Option<Found>, Error> {
        let shown = self.enter(context).await?;
        if let Some(overlay) = self.overlay() {
            return Ok(overlay.lookup(directory, name)?.map(Found::Node));
        }
        if !self.is_directory(context, directory) {
            return Err(Error::new(ErrorKind::NotDirectory, "not a directory"));
        }
        match shown {
            Shown::Tree(artifact) => {
                let id = node_id(directory).ok_or_else(no_node)?;
                Ok(artifact.tree.lookup(id, name).map(|node| Found::Node(node.into())))
            }
            Shown::Metadata(metadata) => {
                let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
                metadata.lookup(context, self.number, directory, name).await
            }
            Shown::New => Ok(None),
        }
    }

    /// The current names of a directory of metadata. A tree is listed by [`crate::artifact::Tree::children`].
    pub async fn names(&self, context: &Context, directory: ViewNode) -> Result<Vec<Name>, Error> {
        match self.enter(context).await? {
            Shown::Tree(_) | Shown::New => Err(Error::new(ErrorKind::Other, "a tree is listed by its cookies")),
            Shown::Metadata(metadata) => metadata.names(context, self.number, directory).await,
        }
    }

    /// Attributes of a node. The root of a view not entered yet has the mount's defaults.
    pub fn attributes(&self, context: &Context, node: ViewNode) -> Result<Attributes, Error> {
        let defaults = &context.defaults;
        if let Some(overlay) = self.overlay() {
            return overlay.attributes(context, node);
        }
        match self.shown() {
            None | Some(Shown::New) if node == 0 => Ok(defaults.directory()),
            None | Some(Shown::New) => Err(no_node()),
            Some(Shown::Tree(artifact)) => {
                let node = node_id(node).and_then(|id| artifact.tree.node(id)).ok_or_else(no_node)?;
                Ok(defaults.of_node(&node))
            }
            Some(Shown::Metadata(metadata)) => metadata.attributes(defaults, node).ok_or_else(no_node),
        }
    }

    /// The parent of a directory; the view's own directory is its own parent.
    pub fn parent(&self, directory: ViewNode) -> ViewNode {
        if let Some(overlay) = self.overlay() {
            return overlay.parent(directory).unwrap_or(0);
        }
        match self.shown() {
            Some(Shown::Tree(artifact)) => node_id(directory).map_or(0, |id| artifact.tree.parent(id).into()),
            Some(Shown::Metadata(metadata)) => metadata.parent(directory),
            None | Some(Shown::New) => 0,
        }
    }

    /// The unresolved target of a symlink.
    pub fn target(&self, node: ViewNode) -> Result<Vec<u8>, Error> {
        if let Some(overlay) = self.overlay() {
            return overlay.target(node);
        }
        let target = match self.shown() {
            Some(Shown::Tree(artifact)) => node_id(node).and_then(|id| artifact.tree.target(id)).map(<[u8]>::to_vec),
            Some(Shown::Metadata(metadata)) => metadata.target(node),
            None | Some(Shown::New) => None,
        };
        target.ok_or_else(|| Error::new(ErrorKind::Invalid, "not a symbolic link"))
    }

    /// A reader of a regular file below the edits, pinned to the bytes that the view is bound to.
    pub async fn open(&self, context: &Context, node: ViewNode) -> Result<Reader, Error> {
        let artifact = match self.enter(context).await? {
            Shown::Tree(artifact) => artifact,
            Shown::Metadata(metadata) => return metadata.open(context, node).await,
            Shown::New => return Err(no_node()),
        };
        let id = node_id(node).ok_or_else(no_node)?;
        let attributes = artifact.tree.node(id).ok_or_else(no_node)?;
        match attributes.kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::new(ErrorKind::IsDirectory, "a directory cannot be read as a file")),
            _ => return Err(Error::new(ErrorKind::NotPermitted, "a device or link of an artifact cannot be opened here")),
        }
        let strict = self.strict(context);
        let reader = Reader::of_tree(&context.artifacts, self.repository(), artifact, id, strict).await?;
        context.artifacts.read_ahead(self.repository(), artifact, id, strict);
        Ok(reader)
    }

    /// Whether the kernel may keep its cached pages of a file that is now opened with a reader of these bytes. Pages
    /// read while only the transport vouched for them are dropped once more when all is verified.
    pub fn keeps_pages(&self, node: ViewNode, verified: Verified) -> bool {
        let mut unverified = self.unverified.lock();
        match verified {
            Verified::Partial => {
                unverified.insert(node);
                false
            }
            Verified::Whole | Verified::Index | Verified::Unread => !unverified.remove(&node),
        }
    }
}

/// The tree node behind a view node.
fn node_id(node: ViewNode) -> Option<NodeId> {
    NodeId::try_from(node).ok()
}

fn no_node() -> Error {
    Error::new(ErrorKind::Gone, "the file no longer exists")
}
