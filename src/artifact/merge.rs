//! Merges the entries of layers into a tree: whiteouts, opaque markers, replacements, hard links.
//!
//! A pure function of its inputs. A path passes only through links of its own layer. A name costs a few dozen bytes of scratch space and no heap
//! object; attributes stay in the indexes until the tree is encoded.

mod graph;
mod input;
mod links;
mod mark;

use std::collections::BTreeMap;

use graph::{Graph, NodeNumber};
pub(super) use input::{Entries, MergeSource, Placing, RawFile, Shown};
pub(super) use links::find_directory;
use links::{NodeNames, through};
pub(super) use mark::{Mark, mark};

use super::tree::{Draft, Encoder, no_room};
use crate::error::{Error, ErrorKind};
use crate::layer::{Entry, FileKind, safe_name};
use crate::path::{below, components, is_component, join, split};
use crate::sys::array::{Array, Scratch};

/// Most nodes of one tree; a larger artifact is refused. Twice the limit on a layer's entries: each costs some hundred bytes on disk.
const NODE_LIMIT: usize = 10_000_000;
/// Deepest directory; anything deeper could not be named by any path (4096 bytes).
const DEPTH_LIMIT: usize = 2048;
/// Most warnings kept.
const WARNING_LIMIT: usize = 100;

/// The current occupant of a path, before something is put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupied {
    /// Nothing, and every parent is a directory or can be created.
    Free,
    /// A directory.
    Directory,
    /// A file from this source and entry.
    File(u32, u32),
    /// A parent is not a directory.
    Blocked,
}

/// A tree under construction.
pub(super) struct Merge<'a> {
    graph: Graph,
    /// Hard links of the current layer whose target did not exist yet.
    deferred: Array<u32>,
    /// The merged layers, by source number: they hold the link targets.
    layers: BTreeMap<u32, &'a dyn Entries>,
    warnings: Vec<String>,
}

/// Number of the source without attributes.
const BARE: u32 = u32::MAX;

impl<'a> Merge<'a> {
    /// An empty tree, built in this scratch space.
    pub fn new(scratch: &Scratch) -> Result<Self, Error> {
        Ok(Self { graph: Graph::new(BARE, scratch)?, deferred: Array::new(scratch), layers: BTreeMap::new(), warnings: Vec::new() })
    }

    /// Merges a layer on top.
    pub fn layer(&mut self, source: u32, layer: &'a dyn Entries, placing: &Placing) -> Result<(), Error> {
        self.layers.insert(source, layer);
        if placing.whiteouts {
            self.graph.next_layer();
            for entry in (0..layer.entry_count()).filter_map(|number| layer.entry(number)) {
                self.remove_below(&entry, placing);
            }
        }
        for entry in (0..layer.entry_count()).filter_map(|number| layer.entry(number)) {
            if !self.entry(source, &entry, placing)? {
                self.deferred.push(entry.number).map_err(no_room)?;
            }
        }
        // A hard link may precede its target.
        let deferred = std::mem::replace(&mut self.deferred, self.graph.array());
        for entry in deferred.iter().filter_map(|number| layer.entry(*number)) {
            if !self.entry(source, &entry, placing)? {
                self.warn(|| format!("hard link {} has no target {}", show(entry.path), show(entry.link)));
            }
        }
        Ok(())
    }

    /// Creates a directory that no entry describes, and its parents.
    pub fn directory(&mut self, path: &[u8]) -> Result<(), Error> {
        self.make_directories(path, BARE, 0, None).map(|_| ())
    }

    /// Puts a whole blob at a path, which the caller knows to be free.
    pub fn raw(&mut self, source: u32, path: &[u8]) -> Result<(), Error> {
        let (above, name) = split(path);
        let directory = self.make_directories(above, source, 0, None)?.unwrap_or(Graph::ROOT);
        let node = self.graph.add_node(source, 0, false)?;
        self.graph.set(directory, name, node)?;
        self.bounded()
    }

    /// The current occupant of a path.
    pub fn occupied(&self, path: &[u8]) -> Occupied {
        let mut directory = Graph::ROOT;
        let mut components = components(path).peekable();
        while let Some(component) = components.next() {
            match self.graph.child(directory, component) {
                None => return Occupied::Free,
                Some(node) if self.graph.is_directory(node) => directory = node,
                Some(node) if components.peek().is_none() => {
                    let (source, entry) = self.graph.origin(node);
                    return Occupied::File(source, entry);
                }
                Some(_) => return Occupied::Blocked,
            }
        }
        Occupied::Directory
    }

    /// Why entries were dropped.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Records why an entry was dropped.
    pub fn warn(&mut self, text: impl FnOnce() -> String) {
        if self.warnings.len() < WARNING_LIMIT {
            self.warnings.push(text());
        }
    }

    /// The bytes of the tree.
    pub fn encode(self, sources: &[MergeSource<'_>]) -> Result<Array<u8>, Error> {
        let draft: Draft = self.graph.into_draft()?;
        Encoder::encode(draft, sources, &self.warnings)
    }

    /// First pass over a layer: applies its whiteouts to the layers below, wherever they are in the layer.
    fn remove_below(&mut self, entry: &Entry<'_>, placing: &Placing) {
        let (above, name) = match mark(entry.path) {
            Mark::Whiteout { directory, name } => (directory, Some(name)),
            Mark::Opaque { directory } => (directory, None),
            Mark::None | Mark::Hidden => return,
        };
        let mut directory = Graph::ROOT;
        for component in components(&placing.at).chain(components(above)) {
            match self.graph.child(directory, component) {
                Some(node) if self.graph.is_directory(node) => directory = node,
                _ => return,
            }
        }
        match name {
            Some(name) => self.graph.remove(directory, name),
            None => self.graph.remove_all(directory),
        }
    }

    /// Places an entry. `false` if it is a hard link whose target does not exist (yet).
    fn entry(&mut self, source: u32, entry: &Entry<'_>, placing: &Placing) -> Result<bool, Error> {
        if placing.whiteouts && mark(entry.path) != Mark::None || placing.estargz && mark::is_estargz(entry.path) {
            return Ok(true);
        }
        let path = place_of(placing, entry.path);
        if path.is_empty() {
            if entry.kind == FileKind::Directory {
                self.graph.describe(Graph::ROOT, source, entry.number);
            } else {
                self.warn(|| "skipped an entry for the root that is not a directory".to_owned());
            }
            return Ok(true);
        }
        let target = match entry.kind {
            FileKind::HardLink => match self.link_target(source, entry, placing) {
                Some(node) if self.graph.is_directory(node) => {
                    self.warn(|| format!("skipped hard link {} to a directory", show(entry.path)));
                    return Ok(true);
                }
                Some(node) => Some(node),
                None => return Ok(false),
            },
            _ => None,
        };
        let (above, name) = split(&path);
        let Some(directory) = self.make_directories(above, source, entry.number, Some(placing))? else {
            self.warn(|| format!("skipped entry {}: nested too deeply", show(entry.path)));
            return Ok(true);
        };
        match target {
            Some(node) => self.graph.set(directory, name, node)?,
            None => self.add((directory, name), source, entry)?,
        }
        self.bounded()?;
        Ok(true)
    }

    /// Gives a name the node of an entry. A directory that is there keeps its content.
    fn add(&mut self, (directory, name): (NodeNumber, &[u8]), source: u32, entry: &Entry<'_>) -> Result<(), Error> {
        let is_directory = entry.kind == FileKind::Directory;
        match self.graph.child(directory, name).filter(|node| is_directory && self.graph.is_directory(*node)) {
            Some(node) => self.graph.describe(node, source, entry.number),
            None => {
                let node = self.graph.add_node(source, entry.number, is_directory)?;
                self.graph.set(directory, name, node)?;
            }
        }
        Ok(())
    }

    fn link_target(&self, source: u32, entry: &Entry<'_>, placing: &Placing) -> Option<NodeNumber> {
        let path = place_of(placing, entry.link);
        let (above, name) = split(&path);
        let directory = find_directory(self, above, placing, |link| self.graph.origin(link).0 == source)?;
        // A name that this very layer whites out still existed in the tree below.
        self.graph.child(directory, name).or_else(|| self.graph.removed_child(directory, name))
    }

    /// Returns the parent directory of a path. Creates missing directories, and replaces anything that is not a directory, unless it is a link to one.
    /// `None` if it would be too deep.
    fn make_directories(&mut self, path: &[u8], source: u32, entry: u32, links: Option<&Placing>) -> Result<Option<NodeNumber>, Error> {
        let mut way = vec![Graph::ROOT];
        for component in components(path) {
            let Some(directory) = way.last().copied().filter(|_| way.len() <= DEPTH_LIMIT) else { return Ok(None) };
            let there = self.graph.child(directory, component);
            if let Some(node) = there.filter(|node| self.graph.is_directory(*node)) {
                way.push(node);
                continue;
            }
            let link = there.filter(|link| self.graph.origin(*link).0 == source).zip(links);
            if let Some(other) = link.and_then(|(link, placing)| through(self, link, &way, placing)) {
                way = other;
            } else {
                let node = self.graph.add_implied(source, entry)?;
                self.graph.set(directory, component, node)?;
                way.push(node);
            }
        }
        self.bounded()?;
        Ok(way.last().copied().filter(|_| way.len() <= DEPTH_LIMIT))
    }

    fn bounded(&self) -> Result<(), Error> {
        if self.graph.node_count() > NODE_LIMIT || !self.graph.has_room() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("artifact has more than {NODE_LIMIT} files, or names of more than 4 GiB"),
            ));
        }
        Ok(())
    }
}

/// The tree path of a path in a layer. Invalid file names are replaced by safe ones.
pub(super) fn place_of(placing: &Placing, path: &[u8]) -> Vec<u8> {
    let place = join(&placing.at, below(path, &placing.strip).unwrap_or(path));
    if components(&place).all(is_component) {
        return place;
    }
    components(&place).map(safe_name).collect::<Vec<_>>().join(&b'/')
}

fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string().chars().take(300).collect()
}

impl NodeNames for Merge<'_> {
    fn child(&self, directory: u32, name: &[u8]) -> Option<u32> {
        self.graph.child(directory, name)
    }
    fn is_directory(&self, node: u32) -> bool {
        self.graph.is_directory(node)
    }
    fn target(&self, node: u32) -> Option<&[u8]> {
        let (source, entry) = self.graph.origin(node);
        self.layers.get(&source)?.entry(entry).filter(|entry| entry.kind == FileKind::Symlink).map(|entry| entry.link)
    }
}

#[cfg(test)]
mod tests;
