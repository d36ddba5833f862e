//! The identity of a layer's content as a digest, computed from entries before packing or from the index of an existing layer. Equal digests mean
//! equal layers, so a layer is found again without packing it.

use sha2::{Digest as _, Sha256};

use crate::artifact::Kind;
use crate::bounded::BoundedMap;
use crate::layer::{FileKind, LayerIndex, Metadata, PackEntry, Packing, owned_xattrs};
use crate::oci::Digest;
use crate::view::TreeEntry;

/// Digest of the content of a layer.
pub(in crate::publish) type Identity = [u8; 32];

/// The facts that determine the identity of a layer in a registry: its digest, that of its index, its packing, and the title of a raw layer.
pub(in crate::publish) type LayerKey = (Digest, Digest, Packing, Option<String>);

/// Identities of layers computed so far, shared by the publishes of a process: versions of an artifact have most of their layers in common.
#[derive(Default)]
pub struct LayerIdentities(BoundedMap<LayerKey, Option<Identity>, 8192>);

impl LayerIdentities {
    pub(in crate::publish) fn get(&self, key: &LayerKey) -> Option<Option<Identity>> {
        self.0.get(key)
    }

    /// `None` for a layer with files of unknown content.
    pub(in crate::publish) fn put(&self, key: LayerKey, identity: Option<Identity>) {
        self.0.put(key, identity);
    }
}

/// Hashed first; change it whenever the rules or the packer's output change.
const VERSION: &[u8] = b"ocifs layer 1\n";

/// Hashes the entries of a layer in order.
#[derive(Clone)]
pub(in crate::publish) struct LayerIdentity(Sha256);

impl LayerIdentity {
    pub fn new(packing: Packing) -> Self {
        let form = match packing {
            Packing::GzipTar => 0,
            Packing::Tar => 1,
            Packing::Raw => 2,
        };
        Self(Sha256::new().chain_update(VERSION).chain_update([form]))
    }

    /// Adds an entry; `sha256` is a regular file's digest.
    pub fn add(&mut self, entry: &PackEntry, sha256: Option<[u8; 32]>) {
        self.0.update([entry.kind.code()]);
        self.text(&entry.path);
        self.text(&entry.link);
        if entry.kind == FileKind::HardLink {
            // Everything else is the target's.
            return;
        }
        let Metadata { mode, owner, mtime, device } = entry.metadata;
        let mode = if entry.kind == FileKind::Symlink { 0o777 } else { mode.unwrap_or_default() };
        let (owner, mtime) = (owner.unwrap_or_default(), mtime.unwrap_or_default());
        let device = if matches!(entry.kind, FileKind::CharDevice | FileKind::BlockDevice) { device } else { (0, 0) };
        for number in [mode, owner.0, owner.1, mtime.1, device.0, device.1] {
            self.0.update(number.to_le_bytes());
        }
        self.0.update(mtime.0.to_le_bytes());
        if entry.kind == FileKind::File {
            self.0.update(entry.size.to_le_bytes());
            if entry.size > 0 {
                self.0.update(sha256.unwrap_or_default());
            }
        }
        self.0.update((entry.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &entry.xattrs {
            self.text(name);
            self.text(value);
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    pub fn finish(self) -> Identity {
        self.0.finalize().into()
    }
}

/// The identity of an existing layer. `title` is the path of a raw layer. `None` if the content of a file is unknown.
pub(in crate::publish) fn of_index(index: &LayerIndex, packing: Packing, title: Option<&str>) -> Option<Identity> {
    let mut identity = LayerIdentity::new(packing);
    for entry in index.entries() {
        if entry.kind == FileKind::File && entry.size > 0 && entry.sha256.is_none() {
            return None;
        }
        let mut xattrs = owned_xattrs(index.xattrs(entry.number));
        xattrs.sort();
        let archived = PackEntry {
            path: title.map_or_else(|| entry.path.to_vec(), |title| title.as_bytes().to_vec()),
            kind: entry.kind,
            metadata: entry.metadata,
            size: entry.size,
            link: entry.link.to_vec(),
            xattrs,
        };
        identity.add(&archived, entry.sha256);
    }
    Some(identity.finish())
}

/// An entry as archived; with `link`, a further name of that file. Unset attributes get the usual defaults (0644 and 0755, root, the epoch), never
/// anything of this machine. Extended attributes that do not fit into an archive are dropped.
pub(in crate::publish) fn archived(entry: &TreeEntry, link: Option<&[u8]>) -> PackEntry {
    let kind = match (link, entry.kind) {
        (Some(_), _) => FileKind::HardLink,
        (None, Kind::File) => FileKind::File,
        (None, Kind::Directory) => FileKind::Directory,
        (None, Kind::Symlink) => FileKind::Symlink,
        (None, Kind::CharDevice) => FileKind::CharDevice,
        (None, Kind::BlockDevice) => FileKind::BlockDevice,
        (None, Kind::Fifo) => FileKind::Fifo,
        (None, Kind::Socket) => FileKind::Socket,
    };
    let mut xattrs = if link.is_some() { Vec::new() } else { entry.xattrs.clone() };
    // An empty value cannot be archived.
    xattrs.retain(|(_, value)| !value.is_empty());
    xattrs.sort();
    let mut archived = PackEntry {
        path: entry.path.clone(),
        kind,
        metadata: Metadata {
            mode: Some(entry.metadata.mode_or_default(entry.kind)),
            device: if link.is_none() && entry.kind.is_device() { entry.metadata.device } else { (0, 0) },
            ..entry.metadata
        },
        size: if kind == FileKind::File { entry.size } else { 0 },
        link: link.map_or_else(|| if entry.kind == Kind::Symlink { entry.target.clone() } else { Vec::new() }, <[u8]>::to_vec),
        xattrs,
    };
    if !archived.xattrs.is_empty() && archived.check().is_err() {
        archived.xattrs.clear();
    }
    archived
}
