//! The reference: one tag as a plain tree in memory, with the minimum that POSIX requires of every operation.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::view::overlay::Replace;

/// When something changed: at an explicitly set time, or at the moment of some operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Set(i64),
    Moment(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub bytes: Vec<u8>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub children: BTreeMap<String, usize>,
    pub mtime: Time,
}

impl Node {
    pub fn new(kind: Kind, mode: u32, owner: (u32, u32), mtime: Time) -> Self {
        let (bytes, target, xattrs, children) = Default::default();
        Self { kind, mode, owner, bytes, target, xattrs, children, mtime }
    }
}

/// A tree of nodes; 0 is the root. Nodes without a name stay: they may be open.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub nodes: Vec<Node>,
    moments: u64,
}

/// The visible properties of a name: everything that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: usize,
    pub bytes: Vec<u8>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same node.
    pub same_as: String,
    /// Only if set explicitly.
    pub mtime: Option<i64>,
}

pub(super) type ModelResult<T> = Result<T, ErrorKind>;

impl Model {
    pub fn new() -> Self {
        Self { nodes: vec![Node::new(Kind::Directory, 0o755, (1000, 1000), Time::Moment(0))], moments: 1 }
    }

    pub fn now(&mut self) -> Time {
        self.moments += 1;
        Time::Moment(self.moments)
    }

    pub fn find(&self, path: &str) -> ModelResult<usize> {
        path.split('/').try_fold(0, |at, name| {
            if self.nodes[at].kind != Kind::Directory {
                return Err(ErrorKind::NotDirectory);
            }
            self.nodes[at].children.get(name).copied().ok_or(ErrorKind::NotFound)
        })
    }

    /// The directory of a path, and its last name.
    pub fn split<'a>(&self, path: &'a str) -> ModelResult<(usize, &'a str)> {
        let (directory, name) = match path.rsplit_once('/') {
            Some((directory, name)) => (self.find(directory)?, name),
            None => (0, path),
        };
        if self.nodes[directory].kind != Kind::Directory {
            return Err(ErrorKind::NotDirectory);
        }
        Ok((directory, name))
    }

    fn named(&self, directory: usize, name: &str) -> Option<usize> {
        self.nodes[directory].children.get(name).copied()
    }

    /// Puts a name, or removes it (`None`).
    fn set(&mut self, directory: usize, name: &str, node: Option<usize>) {
        match node {
            Some(node) => self.nodes[directory].children.insert(name.to_owned(), node),
            None => self.nodes[directory].children.remove(name),
        };
        self.nodes[directory].mtime = self.now();
    }

    fn is_within(&self, directory: usize, other: usize) -> bool {
        directory == other || self.nodes[other].children.values().any(|child| self.is_within(directory, *child))
    }

    pub fn make(&mut self, path: &str, node: Node) -> ModelResult<usize> {
        let (directory, name) = self.split(path)?;
        if self.named(directory, name).is_some() {
            return Err(ErrorKind::Exists);
        }
        self.nodes.push(node);
        let made = self.nodes.len() - 1;
        self.set(directory, name, Some(made));
        Ok(made)
    }

    pub fn remove(&mut self, path: &str, is_directory: bool) -> ModelResult<()> {
        let (directory, name) = self.split(path)?;
        let node = self.named(directory, name).ok_or(ErrorKind::NotFound)?;
        match (is_directory, self.nodes[node].kind == Kind::Directory) {
            (true, false) => return Err(ErrorKind::NotDirectory),
            (false, true) => return Err(ErrorKind::IsDirectory),
            (true, true) if !self.nodes[node].children.is_empty() => return Err(ErrorKind::NotEmpty),
            _ => {}
        }
        self.set(directory, name, None);
        Ok(())
    }

    pub fn link(&mut self, from: &str, to: &str) -> ModelResult<()> {
        let node = self.find(from)?;
        let (directory, name) = self.split(to)?;
        if self.named(directory, name).is_some() {
            return Err(ErrorKind::Exists);
        }
        if self.nodes[node].kind == Kind::Directory {
            return Err(ErrorKind::NotPermitted);
        }
        self.set(directory, name, Some(node));
        Ok(())
    }

    pub fn rename(&mut self, from: &str, to: &str, replace: Replace) -> ModelResult<()> {
        let ((from, old), (to, new)) = (self.split(from)?, self.split(to)?);
        let moved = self.named(from, old).ok_or(ErrorKind::NotFound)?;
        let target = self.named(to, new);
        match (replace, target) {
            (Replace::No, Some(_)) => return Err(ErrorKind::Exists),
            (Replace::Exchange, None) => return Err(ErrorKind::NotFound),
            (_, Some(target)) if target == moved => return Ok(()),
            _ => {}
        }
        let is_directory = |node: usize| self.nodes[node].kind == Kind::Directory;
        if is_directory(moved) && self.is_within(to, moved) {
            return Err(ErrorKind::Invalid);
        }
        if let (Replace::Exchange, Some(target)) = (replace, target) {
            if is_directory(target) && self.is_within(from, target) {
                return Err(ErrorKind::Invalid);
            }
            self.set(from, old, Some(target));
            self.set(to, new, Some(moved));
            return Ok(());
        }
        if let Some(target) = target {
            match (is_directory(moved), is_directory(target)) {
                (true, false) => return Err(ErrorKind::NotDirectory),
                (false, true) => return Err(ErrorKind::IsDirectory),
                (true, true) if !self.nodes[target].children.is_empty() => return Err(ErrorKind::NotEmpty),
                _ => {}
            }
        }
        self.set(from, old, None);
        self.set(to, new, Some(moved));
        Ok(())
    }

    /// Changes a node's bytes.
    pub fn write(&mut self, node: usize, offset: usize, data: &[u8]) {
        let bytes = &mut self.nodes[node].bytes;
        bytes.resize(bytes.len().max(offset + data.len()), 0);
        bytes[offset..offset + data.len()].copy_from_slice(data);
        self.nodes[node].mtime = self.now();
    }

    pub fn truncate(&mut self, node: usize, size: usize) {
        self.nodes[node].bytes.resize(size, 0);
        self.nodes[node].mtime = self.now();
    }

    /// All names by path, with their nodes.
    pub fn paths(&self) -> BTreeMap<String, usize> {
        let mut paths = BTreeMap::new();
        let mut open = vec![(0, String::new())];
        while let Some((directory, prefix)) = open.pop() {
            for (name, node) in &self.nodes[directory].children {
                let path = format!("{prefix}{name}");
                if self.nodes[*node].kind == Kind::Directory {
                    open.push((*node, format!("{path}/")));
                }
                paths.insert(path, *node);
            }
        }
        paths
    }

    /// Everything visible.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        let paths = self.paths();
        let mut first: BTreeMap<usize, (String, usize)> = BTreeMap::new();
        for (path, node) in &paths {
            first.entry(*node).or_insert((path.clone(), 0)).1 += 1;
        }
        let seen = |(path, number): (&String, &usize)| {
            let node = &self.nodes[*number];
            let (same_as, names) = first[number].clone();
            let subdirectories = node.children.values().filter(|child| self.nodes[**child].kind == Kind::Directory).count();
            let links = if node.kind == Kind::Directory { 2 + subdirectories } else { names };
            let mtime = match node.mtime {
                Time::Set(time) => Some(time),
                Time::Moment(_) => None,
            };
            let Node { kind, mode, owner, bytes, target, xattrs, .. } = node.clone();
            (path.clone(), Seen { kind, mode, owner, links, bytes, target, xattrs, same_as, mtime })
        };
        paths.iter().map(seen).collect()
    }

    /// Paths that must differ from `other`, and those that may: moments within one tick
    /// of a clock cannot be distinguished.
    pub fn differences(&self, other: &Self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mine, theirs) = (self.paths(), other.paths());
        // Among the names that both have, a file must have the same first name.
        let first = |paths: &BTreeMap<String, usize>, path: &String| {
            let is_common = |other: &&String| mine.contains_key(*other) && theirs.contains_key(*other);
            paths.iter().filter(|(_, node)| **node == paths[path]).map(|(other, _)| other).find(is_common).cloned()
        };
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for path in mine.keys().chain(theirs.keys()) {
            let (Some(here), Some(there)) = (mine.get(path), theirs.get(path)) else {
                must.insert(path.clone());
                continue;
            };
            let same_links = first(&mine, path) == first(&theirs, path);
            let (mine, theirs) = (&self.nodes[*here], &other.nodes[*there]);
            let same = same_links
                && (mine.kind, &mine.bytes, &mine.target, &mine.xattrs) == (theirs.kind, &theirs.bytes, &theirs.target, &theirs.xattrs)
                && mine.owner == theirs.owner
                && (mine.mode == theirs.mode || mine.kind == Kind::Symlink);
            match (mine.mtime, theirs.mtime) {
                _ if !same => must.insert(path.clone()),
                _ if mine.kind == Kind::Directory || mine.mtime == theirs.mtime => false,
                (Time::Moment(_), Time::Moment(_)) => may.insert(path.clone()),
                _ => must.insert(path.clone()),
            };
        }
        (must, may)
    }
}
