//! Staged tags as commands see them: what is staged, publishing it, comparing it, taking it back.
//!
//! Works on one mount's tags only; what another mount or process holds is neither shown nor touched. Never waits for the kernel.

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, FileSystem};
use crate::publish::{ArtifactKind, Listener, Options, Report};
use crate::registry::Push;
use crate::staging::Uppers;
use crate::view::Difference;

/// What a mount that can be written to needs besides.
pub struct Writing {
    /// Where edits are staged.
    pub uppers: Arc<Uppers>,
    /// Where they are published.
    pub push: Arc<dyn Push>,
    /// Kind of new artifacts.
    pub kind: ArtifactKind,
    /// Blobs sent at a time.
    pub concurrency: NonZeroUsize,
    /// Tags upstream may be deleted.
    pub allow_delete: bool,
}

/// Which staged tags a command means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// All of this mount.
    All,
    /// Those at or below a path below the mount, or the one that holds it; `/` between names.
    Path(String),
    /// The tag with this reference, or all of the repository or prefix.
    Reference(String),
}

/// One tag with edits. Keys are stable: scripts read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StagedTag {
    /// Its reference.
    pub reference: String,
    /// Where it is below the mount; empty for the mount itself.
    pub path: String,
    /// Something differs from what was published last.
    pub edited: bool,
    /// Names that upstream lacks.
    pub added: u64,
    /// Names whose content or attributes differ.
    pub changed: u64,
    /// Names that are gone here.
    pub removed: u64,
    /// Staged bytes.
    pub bytes: u64,
    /// Names that a sync leaves out, such as `.DS_Store`.
    pub droppings: u64,
    /// The tag was deleted here.
    pub deleted: bool,
    /// Files that are open for writing.
    pub writers: bool,
    /// What is upstream is encrypted; the edits are not until they are published.
    pub encrypted: bool,
    /// Why the last sync refused, where the tag moved upstream.
    pub conflict: Option<String>,
    /// Why it cannot be read, where that is so. The figures are 0 then.
    pub error: Option<String>,
}

impl FileSystem {
    /// Takes over the uppers of the state directory that this mount covers and nobody holds. Asks no registry. Called before the mount
    /// is announced; answers what is still staged from before. `error` says what could not be taken over.
    pub async fn adopt(&self) -> Vec<StagedTag> {
        todo!()
    }

    /// The tags that are staged by this mount, by path.
    pub async fn staged(&self) -> Vec<StagedTag> {
        todo!()
    }

    /// Publishes what is selected, one tag after another; one that fails stops no other. Dropping the future stops it.
    ///
    /// # Errors
    /// NotFound where a path or reference selects nothing of this mount.
    pub async fn sync(&self, _selection: &Selection, _options: &Options, _listener: &Listener) -> Result<Vec<Report>, Error> {
        todo!()
    }

    /// What differs from upstream, by tag.
    ///
    /// # Errors
    /// As [`FileSystem::sync`], and what reading the trees says.
    pub async fn differences(&self, _selection: &Selection) -> Result<Vec<(String, Vec<Difference>)>, Error> {
        todo!()
    }

    /// Takes back what is selected (a path inside a tag: what is below it) and answers the references of the tags concerned.
    ///
    /// # Errors
    /// As [`FileSystem::sync`].
    pub async fn discard(&self, _selection: &Selection) -> Result<Vec<String>, Error> {
        todo!()
    }

    /// Stages an empty tag, of a repository that need not exist, and answers its path below the mount.
    ///
    /// # Errors
    /// Invalid where the mount does not cover the reference, Exists where it is a tag already, ReadOnly, Busy.
    pub async fn new_tag(&self, _reference: &str) -> Result<String, Error> {
        todo!()
    }
}
