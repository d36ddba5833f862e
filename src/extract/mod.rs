//! Extracts the tree of an artifact to disk: files, directories, links, with modes, times, attributes and holes.
//!
//! - `selection`: the names to extract
//! - `walk`: the selected names of a tree, in order
//! - `run`: the passes over the tree, and the threads that write files
//! - `directory`: directories on disk
//! - `clash`: names that a case-folding file system treats as the same
//! - `file`: writes one file
//! - `special`: nodes without bytes
//! - `attributes`: modes, owners, times and extended attributes
//! - `place`: gives a name its new entry, whatever is there
//! - `files`: the files to write, in order
//! - `notes`: counts what was done and left out
//!
//! At any time a name stands for a whole file or for its old entry: a file is written unnamed, or under a temporary name in the same
//! directory, and gets its name once all its bytes are there and verified. Nothing is written outside the directory, since every name is
//! opened relative to its parent and no symlink is followed. Modes and times of directories come last. Nothing is synced: that is left to
//! the system, as with `cp` and `tar`. Never resolves a tag, never writes to a terminal.

mod attributes;
mod clash;
mod directory;
mod file;
mod files;
mod notes;
mod place;
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

/// A disk error. `what` completes "cannot …".
fn of_disk(what: impl std::fmt::Display, error: std::io::Error) -> Error {
    let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    let error = Error::io(format_args!("cannot {what}"), error);
    match error.kind {
        ErrorKind::NoSpace => error.append("; complete files are kept: free some space and run it again"),
        _ if is_denied => error.with_kind(ErrorKind::NotPermitted),
        _ => error,
    }
}

/// The artifact, and how to read its bytes.
#[derive(Clone)]
pub struct Source {
    /// Where its bytes come from.
    pub artifacts: Artifacts,
    /// The repository to request them from.
    pub repository: Repository,
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Verify each blob whole before using its first byte.
    pub strict: bool,
}

impl Source {
    /// Opens a reader for a file.
    ///
    /// # Errors
    /// Gone for anything but a regular file; also the errors of opening its stream.
    pub async fn open(&self, node: NodeId) -> Result<view::Reader, Error> {
        view::Reader::of_tree(&self.artifacts, &self.repository, &self.artifact, node, self.strict).await
    }

    /// A download for a file that is a whole raw blob with one name, unless reading it is better.
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

/// Selects and configures an extraction.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files written at once.
    pub concurrency: NonZeroUsize,
    /// Keep existing entries.
    pub keep: bool,
    /// Restore owners, all mode bits and all extended attributes, and create devices. Otherwise the umask applies, set-id bits are dropped, and only
    /// `user.*` attributes are set.
    pub same_owner: bool,
    /// The names to extract.
    pub selection: Selection,
}

/// Progress of an extraction, readable while it runs.
#[derive(Debug, Default)]
pub struct Tally {
    /// Total bytes of the files to extract.
    pub total: AtomicU64,
    /// Bytes written so far.
    pub done: AtomicU64,
}

/// The size of a selection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Names of any kind.
    pub names: u64,
    /// Regular files; every name of a hard-linked one counts.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// One of the regular files.
    pub file: Option<NodeId>,
}

/// Examines a selection of a tree.
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
