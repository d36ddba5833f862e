//! The names and nodes of a tree during a merge: flat arrays and a hash table, addressed by number. Large ones are in scratch files.
//!
//! A removed name stays as a dead record, so that numbers never change; a replaced directory is merely unreachable. Order and numbering of the
//! result depend only on what was set.

use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::artifact::tree::{Draft, Form, Placed, no_room};
use crate::error::Error;
use crate::sys::array::{Array, Scratch};

/// Number of a node during the merge (not its final number).
pub(super) type NodeNumber = u32;

const NONE: u32 = u32::MAX;
/// A removed name that is no longer in its directory's list.
const DETACHED: u32 = u32::MAX;

/// A name in a directory.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Name {
    directory: NodeNumber,
    node: NodeNumber,
    text: u32,
    length: u32,
    /// The next name in the same directory.
    next: u32,
    /// 0 while alive, else the number of the layer that removed it, or [`DETACHED`].
    removed: u32,
}

/// A file or directory.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Node {
    source: u32,
    entry: u32,
    /// The name most recently added to this directory.
    newest: u32,
    form: Form,
}

/// The names and nodes.
pub(super) struct Graph {
    scratch: Scratch,
    names: Array<Name>,
    nodes: Array<Node>,
    text: Array<u8>,
    /// Numbers of names by hash of directory and text, with open addressing; its length is a power of two.
    table: Array<u32>,
    layer: u32,
}

impl Graph {
    /// The root.
    pub const ROOT: NodeNumber = 0;

    /// A graph with a root described by `source`.
    pub fn new(source: u32, scratch: &Scratch) -> Result<Self, Error> {
        let (names, nodes, text, table) = (Array::new(scratch), Array::new(scratch), Array::new(scratch), Array::new(scratch));
        let mut graph = Self { scratch: scratch.clone(), names, nodes, text, table, layer: 1 };
        graph.table.grow(64, NONE).map_err(no_room)?;
        graph.push(source, 0, Form::IMPLIED)?;
        Ok(graph)
    }

    /// An empty array in the same scratch space.
    pub fn array(&self) -> Array<u32> {
        Array::new(&self.scratch)
    }

    /// Later removals belong to the next layer.
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

    /// A new unnamed node.
    pub fn add_node(&mut self, source: u32, entry: u32, directory: bool) -> Result<NodeNumber, Error> {
        self.push(source, entry, if directory { Form::DIRECTORY } else { Form::FILE })
    }

    /// A new directory that no entry describes; takes owner and time from `entry`.
    pub fn add_implied(&mut self, source: u32, entry: u32) -> Result<NodeNumber, Error> {
        self.push(source, entry, Form::IMPLIED)
    }

    fn push(&mut self, source: u32, entry: u32, form: Form) -> Result<NodeNumber, Error> {
        self.nodes.push(Node { source, entry, newest: NONE, form }).map_err(no_room)?;
        Ok((self.nodes.len() - 1) as u32)
    }

    fn node(&self, number: NodeNumber) -> Option<Node> {
        self.nodes.get(number as usize).copied()
    }

    fn change_node(&mut self, number: NodeNumber, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(number as usize) {
            change(node);
        }
    }

    fn name(&self, number: u32) -> Option<Name> {
        self.names.get(number as usize).copied()
    }

    fn change_name(&mut self, number: u32, change: impl FnOnce(&mut Name)) {
        if let Some(name) = self.names.get_mut(number as usize) {
            change(name);
        }
    }

    /// Gives a directory the attributes of an entry.
    pub fn describe(&mut self, node: NodeNumber, source: u32, entry: u32) {
        self.change_node(node, |node| (node.source, node.entry, node.form) = (source, entry, Form::DIRECTORY));
    }

    /// Whether a node is a directory.
    pub fn is_directory(&self, node: NodeNumber) -> bool {
        self.node(node).is_some_and(|node| node.form.is_directory())
    }

    /// The source and entry that describe a node.
    pub fn origin(&self, node: NodeNumber) -> (u32, u32) {
        self.node(node).map_or((NONE, 0), |node| (node.source, node.entry))
    }

    /// The node of a live name.
    pub fn child(&self, directory: NodeNumber, text: &[u8]) -> Option<NodeNumber> {
        self.find(directory, text, |name| name.removed == 0).and_then(|at| self.name(at)).map(|name| name.node)
    }

    /// The node of a name removed by the current layer.
    pub fn removed_child(&self, directory: NodeNumber, text: &[u8]) -> Option<NodeNumber> {
        let layer = self.layer;
        self.find(directory, text, |name| name.removed == layer).and_then(|at| self.name(at)).map(|name| name.node)
    }

    /// Names a node, replacing any node of that name.
    pub fn set(&mut self, directory: NodeNumber, text: &[u8], node: NodeNumber) -> Result<(), Error> {
        let layer = self.layer;
        let known = self
            .find(directory, text, |name| name.removed == 0)
            .or_else(|| self.find(directory, text, |name| name.removed != layer && name.removed != DETACHED));
        if let Some(known) = known {
            self.change_name(known, |name| (name.node, name.removed) = (node, 0));
            return Ok(());
        }
        let at = self.names.len() as u32;
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text).map_err(no_room)?;
        let mut next = NONE;
        self.change_node(directory, |node| next = std::mem::replace(&mut node.newest, at));
        let name = Name { directory, node, text: start, length: text.len() as u32, next, removed: 0 };
        self.names.push(name).map_err(no_room)?;
        self.index(at)
    }

    /// Removes a name of the layers below.
    pub fn remove(&mut self, directory: NodeNumber, text: &[u8]) {
        let layer = self.layer;
        if let Some(found) = self.find(directory, text, |name| name.removed == 0) {
            self.change_name(found, |name| name.removed = layer);
        }
    }

    /// Removes all names of a directory. Detaches them, so that several markers for one directory process its names only once.
    pub fn remove_all(&mut self, directory: NodeNumber) {
        let mut at = NONE;
        self.change_node(directory, |node| at = std::mem::replace(&mut node.newest, NONE));
        while let Some(name) = self.name(at) {
            self.change_name(at, |name| name.removed = DETACHED);
            at = name.next;
        }
    }

    /// Numbers all reachable nodes: directories in breadth-first order, names sorted by bytes.
    pub fn into_draft(mut self) -> Result<Draft, Error> {
        self.table = Array::new(&self.scratch);
        let mut number_of = Array::new(&self.scratch);
        number_of.grow(self.nodes.len(), NONE).map_err(no_room)?;
        let mut numbering = Numbering { number_of, order: Array::new(&self.scratch), draft: Draft::new(&self.scratch) };
        numbering.number(&self, Self::ROOT)?;
        let mut visited = 0;
        while let Some(node) = numbering.order.get(visited).copied() {
            if self.is_directory(node) {
                let mut names = self.living(node)?;
                names.sort_unstable_by(|left, right| self.text_of_number(*left).cmp(self.text_of_number(*right)));
                numbering.list(&self, visited as u32, &names)?;
            }
            visited += 1;
        }
        Ok(numbering.draft)
    }

    /// Numbers of the living names of a directory.
    fn living(&self, directory: NodeNumber) -> Result<Array<u32>, Error> {
        let mut living = Array::new(&self.scratch);
        let mut at = self.node(directory).map_or(NONE, |node| node.newest);
        while let Some(name) = self.name(at) {
            if name.removed == 0 {
                living.push(at).map_err(no_room)?;
            }
            at = name.next;
        }
        Ok(living)
    }

    fn find(&self, directory: NodeNumber, text: &[u8], wanted: impl Fn(&Name) -> bool) -> Option<u32> {
        let mask = self.table.len() - 1;
        let mut slot = hash(directory, text) & mask;
        loop {
            let at = *self.table.get(slot)?;
            let name = self.name(at)?;
            if name.directory == directory && self.text_of(&name) == text && wanted(&name) {
                return Some(at);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn index(&mut self, at: u32) -> Result<(), Error> {
        if self.names.len() * 2 > self.table.len() {
            let length = self.table.len() * 2;
            self.table = Array::new(&self.scratch);
            self.table.grow(length, NONE).map_err(no_room)?;
            for number in 0..self.names.len() as u32 {
                self.insert(number);
            }
        } else {
            self.insert(at);
        }
        Ok(())
    }

    fn insert(&mut self, at: u32) {
        let Some(name) = self.name(at) else { return };
        let mask = self.table.len() - 1;
        let mut slot = hash(name.directory, self.text_of(&name)) & mask;
        while let Some(place) = self.table.get_mut(slot) {
            if *place == NONE {
                *place = at;
                return;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn text_of(&self, name: &Name) -> &[u8] {
        self.text.get(name.text as usize..name.text as usize + name.length as usize).unwrap_or_default()
    }

    fn text_of_number(&self, number: u32) -> &[u8] {
        self.name(number).map(|name| self.text_of(&name)).unwrap_or_default()
    }
}

fn hash(directory: NodeNumber, text: &[u8]) -> usize {
    xxh3_64_with_seed(text, u64::from(directory)) as usize
}

/// Gives reachable nodes their final numbers.
struct Numbering {
    /// Final number of each node of the graph.
    number_of: Array<u32>,
    /// Nodes of the graph in final order.
    order: Array<NodeNumber>,
    draft: Draft,
}

impl Numbering {
    fn number(&mut self, graph: &Graph, node: NodeNumber) -> Result<u32, Error> {
        let Some(slot) = self.number_of.get_mut(node as usize) else { return Ok(NONE) };
        if *slot != NONE {
            return Ok(*slot);
        }
        let number = self.order.len() as u32;
        *slot = number;
        self.order.push(node).map_err(no_room)?;
        let placed = graph.node(node).map_or_else(Placed::default, |node| Placed {
            source: node.source,
            entry: node.entry,
            form: node.form,
            links: if node.form.is_directory() { 2 } else { 0 },
            ..Placed::default()
        });
        self.draft.node(&placed)?;
        Ok(number)
    }

    fn list(&mut self, graph: &Graph, directory: u32, names: &[u32]) -> Result<(), Error> {
        let first = self.draft.name_count();
        let mut subdirectories = 0;
        for name in names.iter().filter_map(|number| graph.name(*number)) {
            let number = self.number(graph, name.node)?;
            self.draft.name(graph.text_of(&name), number)?;
            self.draft.change(number, |placed| {
                if placed.form.is_directory() {
                    placed.parent = directory;
                    subdirectories += 1;
                } else {
                    placed.links = placed.links.saturating_add(1);
                }
            });
        }
        let count = self.draft.name_count() - first;
        self.draft.change(directory, |holder| {
            (holder.first, holder.count) = (first, count);
            holder.links = holder.links.saturating_add(subdirectories);
        });
        Ok(())
    }
}
