//! The files of an artifact, from its tree: one directory, or recursively.

use crate::artifact::{Kind, NodeId, Tree};
use crate::cli::exit::{Code, Failure};
use crate::cli::terminal::escape;
use crate::path::{components, join, push, typed};
use crate::view::{Defaults, Entry};

/// The entries of a directory, sorted by name; recursive if requested. A file is its own entry.
pub struct Walk<'a> {
    tree: &'a Tree,
    defaults: &'a Defaults,
    recursive: bool,
    /// Open directories: node, path, and cookie of the last name.
    open: Vec<(NodeId, Vec<u8>, u64)>,
    only: Option<(NodeId, Vec<u8>)>,
}

impl<'a> Walk<'a> {
    /// Starts at a path.
    ///
    /// # Errors
    /// NotFound if the artifact has no such path. A symlink in the path is named in the message, since links are not followed.
    pub fn new(tree: &'a Tree, defaults: &'a Defaults, path: &str, recursive: bool) -> Result<Self, Failure> {
        let (mut node, mut at) = (0, Vec::new());
        for name in components(&typed(path)) {
            if let Some(target) = tree.target(node) {
                let (at, target) = (String::from_utf8_lossy(&at), String::from_utf8_lossy(target));
                return Err(missing(path, &format!("{at} is a symlink to {target}, which is not followed")));
            }
            node = tree.lookup(node, name).ok_or_else(|| missing(path, "no such file or directory"))?;
            push(&mut at, name);
        }
        let is_directory = tree.node(node).is_some_and(|node| node.kind == Kind::Directory);
        let (open, only) = if is_directory { (vec![(node, at, 0)], None) } else { (Vec::new(), Some((node, at))) };
        Ok(Self { tree, defaults, recursive, open, only })
    }

    fn entry(&self, node: NodeId, path: &[u8]) -> Option<Entry> {
        Entry::new(self.tree, self.defaults, node, String::from_utf8_lossy(path).into_owned())
    }
}

impl Iterator for Walk<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if let Some((node, path)) = self.only.take() {
            return self.entry(node, &path);
        }
        loop {
            let (directory, path, after) = self.open.last_mut()?;
            let Some(child) = self.tree.children(*directory, *after).next() else {
                self.open.pop();
                continue;
            };
            *after = child.cookie;
            let path = join(path, child.name);
            if self.recursive && self.tree.node(child.node).is_some_and(|node| node.kind == Kind::Directory) {
                self.open.push((child.node, path.clone(), 0));
            }
            return self.entry(child.node, &path);
        }
    }
}

fn missing(path: &str, why: &str) -> Failure {
    Failure::new(Code::NotFound, format!("{path}: {why}"))
}

/// An entry as a line of text; with `long` in the form of `ls -l` and `tar -tv`.
pub fn line(entry: &Entry, long: bool) -> String {
    let slash = if entry.kind == "directory" { "/" } else { "" };
    let name = format!("{}{slash}", escape::terminal(&entry.path));
    if !long {
        return name;
    }
    let target = entry.target.as_ref().map(|target| format!(" -> {}", escape::terminal(target))).unwrap_or_default();
    let owner = format!("{}/{}", entry.uid, entry.gid);
    let time = entry.modified.replace('T', " ");
    format!("{} {owner:>9} {:>11} {} {name}{target}", permissions(entry), entry.size, time.get(..16).unwrap_or(&time))
}

/// `drwxr-xr-x`.
fn permissions(entry: &Entry) -> String {
    let bits = u32::from_str_radix(&entry.mode, 8).unwrap_or_default();
    let first = match entry.kind {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "char-device" => 'c',
        "block-device" => 'b',
        _ => '-',
    };
    let mut shown = String::from(first);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let part = bits >> shift;
        shown.push(if part & 4 != 0 { 'r' } else { '-' });
        shown.push(if part & 2 != 0 { 'w' } else { '-' });
        shown.push(match (bits & special != 0, part & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_shown_as_ls_shows_them() {
        let entry = |kind: &'static str, mode: &str| Entry {
            path: "x".into(),
            kind,
            mode: mode.into(),
            uid: 0,
            gid: 0,
            size: 0,
            modified: "2024-01-31T10:20:30Z".into(),
            target: None,
            sha256: None,
        };
        for (kind, mode, shown) in [
            ("directory", "0755", "drwxr-xr-x"),
            ("file", "0640", "-rw-r-----"),
            ("file", "4755", "-rwsr-xr-x"),
            ("file", "2644", "-rw-r-Sr--"),
            ("directory", "1777", "drwxrwxrwt"),
        ] {
            assert_eq!(permissions(&entry(kind, mode)), shown);
        }
        assert_eq!(line(&entry("directory", "0755"), true), "drwxr-xr-x       0/0           0 2024-01-31 10:20 x/");
    }
}
