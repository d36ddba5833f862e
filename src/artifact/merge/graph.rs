//! The names and nodes of a tree while it is merged: flat vectors and one hash table, addressed by numbers.
//!
//! A name that is removed stays as a dead record, so that numbers never move; a directory that is replaced is
//! simply not reachable any more. Order and numbers of the result depend only on what was set.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::artifact::Error;
use crate::artifact::tree::{Draft, Placed};

/// Number of a node while merging (not its final number).
pub(super) type NodeNumber = u32;

const NONE: u32 = u32::MAX;
/// A removed name that is not in its directory's list any more.
const DETACHED: u32 = u32::MAX;

/// A name in a directory.
struct Name {
    directory: NodeNumber,
    node: NodeNumber,
    text: u32,
    length: u16,
    /// The next name of the same directory.
    next: u32,
    /// 0 while alive, else the number of the layer that removed it, or [`DETACHED`].
    removed: u32,
}

/// A file or directory.
struct Node {
    source: u32,
    entry: u32,
    /// Last name that was added to this directory.
    newest: u32,
    directory: bool,
    implied: bool,
}

/// Names and nodes.
pub(super) struct Graph {
    names: Vec<Name>,
    nodes: Vec<Node>,
    text: Vec<u8>,
    /// Numbers of names by hash of directory and text, open addressing; a power of two long.
    table: Vec<u32>,
    layer: u32,
}

impl Graph {
    /// The root.
    pub const ROOT: NodeNumber = 0;

    /// A root described by `source`.
    pub fn new(source: u32) -> Self {
        let mut graph = Self { names: Vec::new(), nodes: Vec::new(), text: Vec::new(), table: vec![NONE; 64], layer: 1 };
        graph.push(source, 0, true, true);
        graph
    }

    /// Removals from now on are those of another layer.
    pub fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Number of nodes, reachable or not.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Whether numbers and text offsets still fit.
    pub fn has_room(&self) -> bool {
        self.text.len() < (u32::MAX - 65536) as usize && self.names.len() < (u32::MAX - 65536) as usize
    }

    /// A new node, not named yet.
    pub fn add_node(&mut self, source: u32, entry: u32, directory: bool) -> NodeNumber {
        self.push(source, entry, directory, false)
    }

    /// A new directory that no entry describes; it takes owner and time of `entry`.
    pub fn add_implied(&mut self, source: u32, entry: u32) -> NodeNumber {
        self.push(source, entry, true, true)
    }

    fn push(&mut self, source: u32, entry: u32, directory: bool, implied: bool) -> NodeNumber {
        self.nodes.push(Node { source, entry, newest: NONE, directory, implied });
        (self.nodes.len() - 1) as u32
    }

    /// Gives a directory the attributes of an entry.
    pub fn describe(&mut self, node: NodeNumber, source: u32, entry: u32) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.source, node.entry, node.implied) = (source, entry, false);
        }
    }

    /// Whether a node is a directory.
    pub fn is_directory(&self, node: NodeNumber) -> bool {
        self.nodes.get(node as usize).is_some_and(|node| node.directory)
    }

    /// Source and entry that describe a node.
    pub fn origin(&self, node: NodeNumber) -> (u32, u32) {
        self.nodes.get(node as usize).map_or((NONE, 0), |node| (node.source, node.entry))
    }

    /// The node of a living name.
    pub fn child(&self, directory: NodeNumber, text: &[u8]) -> Option<NodeNumber> {
        self.find(directory, text, |name| name.removed == 0).and_then(|at| self.names.get(at as usize)).map(|name| name.node)
    }

    /// The node of a name that this layer removed.
    pub fn removed_child(&self, directory: NodeNumber, text: &[u8]) -> Option<NodeNumber> {
        let layer = self.layer;
        self.find(directory, text, |name| name.removed == layer).and_then(|at| self.names.get(at as usize)).map(|name| name.node)
    }

    /// Names a node, in place of what had the name.
    pub fn set(&mut self, directory: NodeNumber, text: &[u8], node: NodeNumber) {
        let layer = self.layer;
        let known = self
            .find(directory, text, |name| name.removed == 0)
            .or_else(|| self.find(directory, text, |name| name.removed != layer && name.removed != DETACHED));
        if let Some(name) = known.and_then(|at| self.names.get_mut(at as usize)) {
            (name.node, name.removed) = (node, 0);
            return;
        }
        let at = self.names.len() as u32;
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        let next = self.nodes.get_mut(directory as usize).map_or(NONE, |node| std::mem::replace(&mut node.newest, at));
        self.names.push(Name { directory, node, text: start, length: text.len() as u16, next, removed: 0 });
        self.index(at);
    }

    /// Removes a name of the layers below.
    pub fn remove(&mut self, directory: NodeNumber, text: &[u8]) {
        let layer = self.layer;
        let found = self.find(directory, text, |name| name.removed == 0);
        if let Some(name) = found.and_then(|at| self.names.get_mut(at as usize)) {
            name.removed = layer;
        }
    }

    /// Removes every name of a directory. Detached, so that many marks for one directory cost its names once.
    pub fn remove_all(&mut self, directory: NodeNumber) {
        let mut at = self.nodes.get_mut(directory as usize).map_or(NONE, |node| std::mem::replace(&mut node.newest, NONE));
        while let Some(name) = self.names.get_mut(at as usize) {
            name.removed = DETACHED;
            at = name.next;
        }
    }

    /// Numbers everything reachable: directories in breadth-first order, their names sorted by bytes.
    pub fn into_draft(mut self) -> Result<Draft, Error> {
        self.table = Vec::new();
        let mut numbering = Numbering { number_of: vec![NONE; self.nodes.len()], order: Vec::new(), draft: Draft::default() };
        numbering.number(&self, Self::ROOT);
        let mut names = Vec::new();
        let mut visited = 0;
        while let Some(node) = numbering.order.get(visited).copied() {
            if self.is_directory(node) {
                names.clear();
                names.extend(self.living(node));
                names.sort_unstable_by(|left, right| self.text_of(left).cmp(self.text_of(right)));
                numbering.list(&self, visited as u32, &names)?;
            }
            visited += 1;
        }
        Ok(numbering.draft)
    }

    fn living(&self, directory: NodeNumber) -> impl Iterator<Item = &Name> {
        let first = self.nodes.get(directory as usize).map_or(NONE, |node| node.newest);
        let chain = std::iter::successors(self.names.get(first as usize), |name| self.names.get(name.next as usize));
        chain.filter(|name| name.removed == 0)
    }

    fn find(&self, directory: NodeNumber, text: &[u8], wanted: impl Fn(&Name) -> bool) -> Option<u32> {
        let mask = self.table.len() - 1;
        let mut slot = hash(directory, text) & mask;
        loop {
            let at = *self.table.get(slot)?;
            let name = self.names.get(at as usize)?;
            if name.directory == directory && self.text_of(name) == text && wanted(name) {
                return Some(at);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn index(&mut self, at: u32) {
        if self.names.len() * 2 > self.table.len() {
            self.table = vec![NONE; self.table.len() * 2];
            for number in 0..self.names.len() as u32 {
                self.insert(number);
            }
        } else {
            self.insert(at);
        }
    }

    fn insert(&mut self, at: u32) {
        let Some(name) = self.names.get(at as usize) else { return };
        let mask = self.table.len() - 1;
        let mut slot = hash(name.directory, self.text_of(name)) & mask;
        while let Some(place) = self.table.get_mut(slot) {
            if *place == NONE {
                *place = at;
                return;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn text_of(&self, name: &Name) -> &[u8] {
        self.text.get(name.text as usize..name.text as usize + usize::from(name.length)).unwrap_or_default()
    }
}

fn hash(directory: NodeNumber, text: &[u8]) -> usize {
    xxh3_64_with_seed(text, u64::from(directory)) as usize
}

/// Gives reachable nodes their final numbers.
struct Numbering {
    /// Final number of each node of the graph.
    number_of: Vec<u32>,
    /// Nodes of the graph in final order.
    order: Vec<NodeNumber>,
    draft: Draft,
}

impl Numbering {
    fn number(&mut self, graph: &Graph, node: NodeNumber) -> u32 {
        let Some(slot) = self.number_of.get_mut(node as usize) else { return NONE };
        if *slot == NONE {
            *slot = self.order.len() as u32;
            self.order.push(node);
            let placed = graph.nodes.get(node as usize).map_or_else(Placed::default, |node| Placed {
                source: node.source,
                entry: node.entry,
                directory: node.directory,
                implied: node.implied,
                links: if node.directory { 2 } else { 0 },
                ..Placed::default()
            });
            self.draft.nodes.push(placed);
        }
        *slot
    }

    fn list(&mut self, graph: &Graph, directory: u32, names: &[&Name]) -> Result<(), Error> {
        let first = self.draft.name_count();
        let mut subdirectories = 0;
        for name in names {
            let number = self.number(graph, name.node);
            self.draft.name(graph.text_of(name), number)?;
            if let Some(placed) = self.draft.nodes.get_mut(number as usize) {
                if placed.directory {
                    placed.parent = directory;
                    subdirectories += 1;
                } else {
                    placed.links = placed.links.saturating_add(1);
                }
            }
        }
        let count = self.draft.name_count() - first;
        if let Some(holder) = self.draft.nodes.get_mut(directory as usize) {
            (holder.first, holder.count) = (first, count);
            holder.links = holder.links.saturating_add(subdirectories);
        }
        Ok(())
    }
}
