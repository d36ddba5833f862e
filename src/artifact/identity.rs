//! One digest of everything that a tree shows, so that two trees compare without their data.
//!
//! An incremental hasher over plain values in walk order, so that an artifact's tree and the frozen state of an edited tag are compared by the same
//! rules. Independent of both.
//!
//! Included: paths, kinds, permission bits, owners, times, device numbers, link targets, extended attributes, which names share a file, and the
//! SHA-256 of files. Not included: layer boundaries, offsets, the permission bits of symlinks (never shown), the time of the root (a tag not yet
//! entered shows another), and attributes provided by the mount itself.

use std::collections::HashMap;

use super::tree::{Kind, NodeId, Tree, UNDATED};
use crate::layer::Metadata;
use crate::oci::{Algorithm, Digest, Hasher};
use crate::path::push;

/// Hashed first; change it whenever the rules change.
const VERSION: &[u8] = b"ocifs tree identity 2\n";

/// Attributes shown if an artifact has none. Permission bits are 0644 and 0755, times [`UNDATED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityDefaults {
    /// Owner and group.
    pub owner: (u32, u32),
}

/// One name of a tree.
#[derive(Clone, Copy, Debug)]
pub struct IdentityEntry<'a> {
    /// Path; empty for the root.
    pub path: &'a [u8],
    /// Equal for all names of one file.
    pub node: u64,
    /// Kind.
    pub kind: Kind,
    /// Attributes.
    pub metadata: Metadata,
    /// Size of a regular file; ignored for anything else.
    pub size: u64,
    /// Number of names of a file.
    pub links: u32,
    /// Target of a symbolic link.
    pub target: &'a [u8],
    /// SHA-256 of a regular file, if known.
    pub sha256: Option<[u8; 32]>,
}

/// The identity of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of names, including the root.
    pub names: u64,
    /// Bytes of regular files, counted at each name.
    pub bytes: u64,
    /// Digest of everything; `None` if the content of some file is unknown.
    pub digest: Option<Digest>,
    /// Whether the digest is independent of the defaults.
    pub absolute: bool,
}

/// Computes the identity of a walked tree: the root first, each directory immediately followed by what is below it, names in byte order.
pub struct TreeIdentity {
    hasher: Hasher,
    defaults: IdentityDefaults,
    /// Position of the first name of every file with several names.
    first_names: HashMap<u64, u64>,
    names: u64,
    bytes: u64,
    complete: bool,
    absolute: bool,
}

impl TreeIdentity {
    /// Starts a walk.
    pub fn new(defaults: &IdentityDefaults) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(VERSION);
        Self { hasher, defaults: *defaults, first_names: HashMap::new(), names: 0, bytes: 0, complete: true, absolute: true }
    }

    /// Adds the next name, with its extended attributes sorted by name.
    pub fn add<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, entry: &IdentityEntry<'_>, xattrs: &[(N, V)]) {
        let number = self.names;
        self.names += 1;
        self.text(entry.path);
        let earlier = if entry.kind == Kind::Directory || entry.links < 2 {
            None
        } else {
            let first = *self.first_names.entry(entry.node).or_insert(number);
            (first != number).then_some(first)
        };
        if entry.kind == Kind::File {
            self.bytes = self.bytes.saturating_add(entry.size);
        }
        if let Some(first) = earlier {
            // Everything else was included at the first name.
            self.hasher.update(&[u8::MAX]);
            self.hasher.update(&first.to_le_bytes());
            return;
        }
        self.hasher.update(&[entry.kind.code()]);
        self.attributes(entry);
        match entry.kind {
            Kind::File => self.content(entry),
            Kind::Symlink => self.text(entry.target),
            Kind::CharDevice | Kind::BlockDevice => {
                let (major, minor) = entry.metadata.device;
                self.hasher.update(&major.to_le_bytes());
                self.hasher.update(&minor.to_le_bytes());
            }
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
        for (name, value) in xattrs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).filter(|(name, _)| !is_own_name(name)) {
            self.hasher.update(&[1]);
            self.text(name);
            self.text(value);
        }
        self.hasher.update(&[0]);
    }

    fn attributes(&mut self, entry: &IdentityEntry<'_>) {
        let mode = entry.metadata.mode_or_default(entry.kind);
        self.absolute &= entry.metadata.owner.is_some();
        let (uid, gid) = entry.metadata.owner.unwrap_or(self.defaults.owner);
        let (seconds, nanoseconds) = if entry.path.is_empty() { (0, 0) } else { entry.metadata.mtime.unwrap_or(UNDATED) };
        for value in [mode & 0o7777, uid, gid, nanoseconds] {
            self.hasher.update(&value.to_le_bytes());
        }
        self.hasher.update(&seconds.to_le_bytes());
    }

    fn content(&mut self, entry: &IdentityEntry<'_>) {
        self.hasher.update(&entry.size.to_le_bytes());
        match entry.sha256 {
            Some(sha256) => self.hasher.update(&sha256),
            None if entry.size == 0 => self.hasher.update(Digest::of(b"").as_bytes()),
            None => self.complete = false,
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text);
    }

    /// Ends the walk.
    pub fn finish(self) -> Identity {
        let digest = self.complete.then(|| self.hasher.finish());
        Identity { names: self.names, bytes: self.bytes, digest, absolute: self.absolute }
    }
}

impl Tree {
    /// The identity of this tree.
    pub fn identity(&self, defaults: &IdentityDefaults) -> Identity {
        let mut identity = TreeIdentity::new(defaults);
        self.walk(&mut |path, node| self.identify(&mut identity, path, node));
        identity.finish()
    }

    fn identify(&self, identity: &mut TreeIdentity, path: &[u8], number: NodeId) {
        let Some(node) = self.node(number) else { return };
        let mut xattrs = self.xattrs(number);
        xattrs.sort_by_key(|(name, _)| *name);
        let entry = IdentityEntry {
            path,
            node: u64::from(number),
            kind: node.kind,
            metadata: node.metadata,
            size: node.size,
            links: node.links,
            target: self.target(number).unwrap_or_default(),
            sha256: self.sha256(number),
        };
        identity.add(&entry, &xattrs);
    }

    /// Visits every name: the root first with an empty path, each directory immediately followed by what is below it, names in byte order. A directory
    /// inside itself is not descended into again.
    pub fn walk(&self, visit: &mut dyn FnMut(&[u8], NodeId)) {
        visit(b"", 0);
        let mut path = Vec::new();
        // Directories being listed: node, cookie after the last child, path length.
        let mut open: Vec<(NodeId, u64, usize)> = vec![(0, 0, 0)];
        while let Some((directory, after, length)) = open.last_mut() {
            path.truncate(*length);
            let Some(child) = self.children(*directory, *after).next() else {
                open.pop();
                continue;
            };
            *after = child.cookie;
            push(&mut path, child.name);
            visit(&path, child.node);
            let is_directory = self.node(child.node).is_some_and(|node| node.kind == Kind::Directory);
            if is_directory && !open.iter().any(|(above, ..)| *above == child.node) {
                open.push((child.node, 0, path.len()));
            }
        }
    }
}

/// Whether the mount itself provides an extended attribute of this name: never listed, part of no tree.
pub fn is_own_name(name: &[u8]) -> bool {
    name.starts_with(b"user.oci.") || name.starts_with(b"user.ocifs.")
}

/// Stand-ins if an artifact has no value; the digest is then valid only for this one document.
pub(super) const NOTHING: IdentityDefaults = IdentityDefaults { owner: (0, 0) };

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: IdentityDefaults = IdentityDefaults { owner: (1, 2) };
    const METADATA: Metadata = Metadata { mode: Some(0o600), owner: Some((5, 6)), mtime: Some((8, 9)), device: (0, 0) };
    const FILE: IdentityEntry<'_> =
        IdentityEntry { path: b"a", node: 7, kind: Kind::File, metadata: METADATA, size: 10, links: 1, target: b"", sha256: Some([1; 32]) };

    fn of(entries: &[IdentityEntry<'_>]) -> Identity {
        let mut identity = TreeIdentity::new(&DEFAULTS);
        for entry in entries {
            identity.add::<&[u8], &[u8]>(entry, &[]);
        }
        identity.finish()
    }

    #[test]
    fn every_visible_attribute_is_part_of_the_identity() {
        let same = of(&[FILE]);
        assert!(same.absolute && same == of(&[FILE]));
        for other in [
            IdentityEntry { path: b"b", ..FILE },
            IdentityEntry { kind: Kind::Fifo, ..FILE },
            IdentityEntry { metadata: Metadata { mode: Some(0o601), ..METADATA }, ..FILE },
            IdentityEntry { metadata: Metadata { owner: Some((5, 7)), ..METADATA }, ..FILE },
            IdentityEntry { metadata: Metadata { mtime: Some((8, 10)), ..METADATA }, ..FILE },
            IdentityEntry { size: 11, ..FILE },
            IdentityEntry { sha256: Some([2; 32]), ..FILE },
        ] {
            assert_ne!(of(&[other]).digest, same.digest, "{other:?}");
        }
        let with = |xattrs: &[(&[u8], &[u8])]| {
            let mut identity = TreeIdentity::new(&DEFAULTS);
            identity.add(&FILE, xattrs);
            identity.finish().digest
        };
        assert_ne!(with(&[(b"user.x", b"1")]), same.digest);
        assert_ne!(with(&[(b"user.x", b"1")]), with(&[(b"user.x", b"2")]));
        assert_eq!(with(&[(b"user.oci.title", b"1")]), same.digest);
        let root = IdentityEntry { path: b"", kind: Kind::Directory, ..FILE };
        assert_eq!(of(&[root]), of(&[IdentityEntry { metadata: Metadata { mtime: None, ..METADATA }, ..root }]));
        assert_ne!(of(&[root]).digest, of(&[IdentityEntry { metadata: Metadata { mode: Some(0o700), ..METADATA }, ..root }]).digest);
    }

    #[test]
    fn unset_attributes_equal_their_defaults() {
        let silent = IdentityEntry { metadata: Metadata::default(), ..FILE };
        let set = Metadata { mode: Some(0o644), owner: Some((1, 2)), mtime: Some(UNDATED), device: (0, 0) };
        let said = IdentityEntry { metadata: set, ..FILE };
        assert_eq!(of(&[silent]).digest, of(&[said]).digest);
        assert!(!of(&[silent]).absolute && of(&[said]).absolute);
        let link = IdentityEntry { kind: Kind::Symlink, target: b"t", ..said };
        assert_eq!(of(&[link]).digest, of(&[IdentityEntry { metadata: Metadata { mode: None, ..set }, ..link }]).digest);
    }

    #[test]
    fn hard_links_differ_from_equal_files() {
        let (one, two) = (IdentityEntry { links: 2, ..FILE }, IdentityEntry { links: 2, path: b"b", ..FILE });
        let other_number = of(&[IdentityEntry { node: 8, ..one }, IdentityEntry { node: 8, ..two }]);
        assert_eq!(of(&[one, two]), other_number);
        assert_ne!(of(&[one, two]).digest, of(&[FILE, IdentityEntry { path: b"b", node: 8, ..FILE }]).digest);
        assert_eq!((other_number.names, other_number.bytes), (2, 20));
    }

    #[test]
    fn a_file_with_unknown_content_has_no_identity_unless_it_is_empty() {
        assert_eq!(of(&[IdentityEntry { sha256: None, ..FILE }]).digest, None);
        let empty = IdentityEntry { sha256: None, size: 0, ..FILE };
        let known = IdentityEntry { sha256: Digest::of(b"").as_bytes().try_into().ok(), size: 0, ..FILE };
        assert_eq!(of(&[empty]), of(&[known]));
    }
}
