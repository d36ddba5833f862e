//! One name of an artifact as lists show it: plain values that become JSON.

use serde::Serialize;

use super::Defaults;
use super::shown::show_time;
use crate::artifact::{NodeId, Tree};

/// One name of an artifact, as lists show it. The keys are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Path in the artifact.
    pub path: String,
    /// `directory`, `file`, `symlink`, `fifo`, `socket`, `char-device` or `block-device`.
    pub kind: &'static str,
    /// Permission bits in octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change, as RFC 3339.
    pub modified: String,
    /// Target of a symlink.
    pub target: Option<String>,
    /// SHA-256 of a file in hexadecimal, where known.
    pub sha256: Option<String>,
}

impl Entry {
    /// The entry of a node at a path; `None` where the tree has no such node.
    pub fn new(tree: &Tree, defaults: &Defaults, node: NodeId, path: String) -> Option<Self> {
        let attributes = defaults.of_node(&tree.node(node)?);
        let content = tree.content(node);
        Some(Self {
            path,
            kind: attributes.kind.name(),
            mode: format!("{:04o}", attributes.mode),
            uid: attributes.uid,
            gid: attributes.gid,
            size: attributes.size,
            modified: show_time(attributes.time.0),
            target: tree.target(node).map(|target| String::from_utf8_lossy(target).into_owned()),
            sha256: content.and_then(|content| content.sha256).map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        })
    }
}
