//! Directories that an archive must contain before their content, although another layer holds them.
//!
//! ORAS unpacks the layers of an artifact in parallel, in any order, and creates no directory that a layer does not itself contain. So every archive
//! contains all parents of its entries. A placeholder for another layer's directory has its mode and nothing else, or the archive would change
//! with the directory's time; the layers with the real directories come last, and win.

use super::path_set::PathSet;
use crate::artifact::Kind;
use crate::path::is_within;
use crate::view::TreeEntry;

/// The parent directories of the current entry, outermost first, without the root.
#[derive(Default)]
pub(in crate::publish) struct Above(Vec<(Vec<u8>, Option<u32>)>);

impl Above {
    /// Advances to the next entry of the walk.
    pub fn step(&mut self, entry: &TreeEntry) {
        while self.0.last().is_some_and(|(path, _)| !is_within(&entry.path, path) || *path == entry.path) {
            self.0.pop();
        }
        if entry.kind == Kind::Directory && !entry.path.is_empty() {
            self.0.push((entry.path.clone(), entry.metadata.mode));
        }
    }
}

/// The directories that one archive contains so far.
#[derive(Clone, Default)]
pub(in crate::publish) struct Named {
    all: PathSet,
    /// The parent of the last entry: it and its own parents are contained.
    last: Option<Vec<u8>>,
}

impl Named {
    /// Whether the archive contains this directory.
    pub fn contains(&self, path: &[u8]) -> bool {
        self.all.contains(path)
    }

    /// Directories that the archive must contain before the current entry, outermost first. Records the entry itself as contained.
    pub fn missing(&mut self, above: &Above, entry: &TreeEntry) -> Vec<TreeEntry> {
        let parents = || above.0.iter().filter(|(path, _)| *path != entry.path);
        let inner = parents().next_back().map(|(path, _)| path);
        let mut missing = Vec::new();
        if inner != self.last.as_ref() {
            let absent = parents().filter(|(path, _)| self.all.insert(path));
            missing.extend(absent.map(|(path, mode)| TreeEntry::directory(path.clone(), *mode)));
            self.last = inner.cloned();
        }
        if entry.kind == Kind::Directory {
            self.all.insert(&entry.path);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::plan::groups::tests::entry;

    fn paths(entries: &[TreeEntry]) -> Vec<&str> {
        entries.iter().map(|entry| std::str::from_utf8(&entry.path).unwrap()).collect()
    }

    #[test]
    fn every_parent_is_listed_once_before_its_content() {
        let (mut above, mut named) = (Above::default(), Named::default());
        let mut visit = |path: &str, kind: Kind, here: bool| -> Vec<String> {
            let entry = entry(path, 1, kind, 0);
            above.step(&entry);
            if here { paths(&named.missing(&above, &entry)).into_iter().map(str::to_owned).collect() } else { Vec::new() }
        };
        visit("", Kind::Directory, false);
        visit("a", Kind::Directory, false);
        visit("a/b", Kind::Directory, false);
        assert_eq!(visit("a/b/x", Kind::File, true), ["a", "a/b"]);
        assert!(visit("a/b/y", Kind::File, true).is_empty());
        assert!(visit("a/c", Kind::Directory, true).is_empty());
        assert!(visit("a/c/z", Kind::File, true).is_empty(), "a directory that the archive holds itself needs no placeholder");
        visit("ab", Kind::Directory, false);
        assert_eq!(visit("ab/x", Kind::File, true), ["ab"]);
        assert!(visit("top", Kind::File, true).is_empty());
    }
}
