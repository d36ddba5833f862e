//! The tree of an artifact onto a disk: files, directories, links, their modes, times, attributes and holes.
//!
//! - `selection`: which names are extracted
//! - `walk`: the selected names of a tree, in order
//! - `run`: the passes over the tree, and the threads that write files
//! - `directory`: directories on the disk
//! - `clash`: names that are one name on a file system that folds case
//! - `file`: the bytes of one file
//! - `special`: what has no bytes
//! - `attributes`: modes, owners, times and extended attributes
//! - `place`: a name gets what it shall stand for, whatever stands there now
//! - `queue`: work that waits for threads
//! - `notes`: what was done, and what was left out
//!
//! A name stands for a whole file or for what it stood for before: a file is written without a name, or under a name of its own in the
//! same directory, and gets its name once all of its bytes are there and verified. Nothing is written outside of the directory, since
//! every name is opened relative to its parent and no link is followed. Modes and times of directories come last. Nothing is flushed
//! to the disk: that is left to the system, as `cp` and `tar` do. Never resolves a tag, never writes to a terminal.

mod attributes;
mod clash;
mod directory;
mod file;
mod notes;
mod place;
mod queue;
mod run;
mod selection;
mod special;
#[cfg(test)]
mod tests;
mod walk;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::artifact::{Artifact, Artifacts, Kind, Node, NodeId};
use crate::content::Download;
use crate::error::{Error, ErrorKind};
use crate::layer::Extent;
use crate::oci::Repository;
use crate::view;

pub use directory::Target;
pub use file::stream;
pub use notes::{Case, Summary};
pub use run::extract;
pub use selection::Selection;
pub use walk::visit;

/// A failure of the disk. `what` completes "cannot …".
fn of_disk(what: impl std::fmt::Display, error: std::io::Error) -> Error {
    let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    let error = Error::io(format_args!("cannot {what}"), error);
    match error.kind {
        ErrorKind::NoSpace => error.append("; what is complete stays, so free some space and run it again"),
        _ if is_denied => error.with_kind(ErrorKind::NotPermitted),
        _ => error,
    }
}

/// The artifact, and how its bytes are read.
#[derive(Clone)]
pub struct Source {
    /// Where its bytes come from.
    pub artifacts: Artifacts,
    /// The repository that they are asked from.
    pub repository: Repository,
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Blobs are checked whole before their first byte is used.
    pub strict: bool,
}

impl Source {
    /// A reader of a file.
    ///
    /// # Errors
    /// Gone for anything but a regular file; errors of opening its stream.
    pub async fn open(&self, node: NodeId) -> Result<view::Reader, Error> {
        view::Reader::of_tree(&self.artifacts, &self.repository, &self.artifact, node, self.strict).await
    }

    /// A download of a file that is a whole raw blob under one name, unless it is better read.
    async fn download(&self, id: NodeId, node: &Node) -> Result<Option<Download>, Error> {
        let Some(content) = self.artifact.tree.content(id) else { return Ok(None) };
        let whole = Extent { file: 0, stream: 0, length: node.size };
        let is_whole =
            content.extents == [whole] && self.artifact.source(content.blob).is_some_and(|source| source.descriptor.size == node.size);
        if !is_whole {
            return Ok(None);
        }
        self.artifacts.download(&self.repository, &self.artifact, content.blob).await
    }
}

/// What is extracted, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files written at once.
    pub concurrency: NonZeroUsize,
    /// What exists stays as it is.
    pub keep: bool,
    /// Owners, all mode bits and all extended attributes as archived; devices are made. Otherwise the umask counts, set-id bits are
    /// dropped, and of extended attributes those of users are taken.
    pub same_owner: bool,
    /// Which names.
    pub selection: Selection,
}

/// How far an extraction is. Others read it while it runs.
#[derive(Debug, Default)]
pub struct Tally {
    /// Bytes of the files that are extracted.
    pub total: AtomicU64,
    /// Bytes of them that are written.
    pub done: AtomicU64,
}

/// What a selection of a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Names of any kind.
    pub names: u64,
    /// Regular files; each name of a hard-linked one counts.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// A regular file.
    pub file: Option<NodeId>,
}

/// Looks at a selection of a tree.
pub fn survey(artifact: &Artifact, selection: &Selection) -> Survey {
    let mut survey = Survey::default();
    visit(&artifact.tree, selection, &mut |_, node| {
        survey.names += 1;
        if let Some(file) = artifact.tree.node(node).filter(|file| file.kind == Kind::File) {
            survey.files += 1;
            survey.bytes = survey.bytes.saturating_add(file.size);
            survey.file = Some(node);
        }
    });
    survey
}
