//! Operations on staged tags, shared by the daemon and commands without one.

use std::sync::Arc;

use base64::Engine as _;

use crate::control::Difference;
use crate::error::{Error, ErrorKind};
use crate::fs::{FileSystem, Selection, StagedTag};
use crate::publish::{Listener, Options, Report};
use crate::view::{self, PathState};

/// The staged tags of a file system; empty if it is read-only.
#[derive(Clone)]
pub struct Edits {
    /// The file system.
    pub file_system: Arc<FileSystem>,
    /// Send no request to the registry.
    pub offline: bool,
}

impl Edits {
    /// The selected staged tags.
    ///
    /// # Errors
    /// `NotFound` if a path or reference is not in this mount.
    pub async fn staged(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error> {
        if !self.file_system.is_writable() {
            return Ok(Vec::new());
        }
        self.file_system.staged_of(selection).await
    }

    /// Publishes the selected tags. Dropping the future stops it.
    ///
    /// # Errors
    /// As [`Edits::staged`]; `Unreachable` if offline. Tags that failed are in the reports.
    pub async fn sync(&self, selection: &Selection, options: &Options, listener: &Listener) -> Result<Vec<Report>, Error> {
        if !self.file_system.is_writable() {
            return Ok(Vec::new());
        }
        // A dry run compares with upstream too.
        if self.offline {
            return self.refuse_offline(selection).await;
        }
        tracing::info!(?selection, ?options, "sync");
        self.file_system.sync(selection, options, listener).await
    }

    async fn refuse_offline(&self, selection: &Selection) -> Result<Vec<Report>, Error> {
        match self.staged(selection).await?.iter().filter(|tag| tag.edited).count() {
            0 => Ok(Vec::new()),
            count => {
                let message = format!("cannot publish {count} staged tags: the mount is offline; mount without --offline");
                Err(Error::new(ErrorKind::Unreachable, message))
            }
        }
    }

    /// The differences between the selected tags and upstream.
    ///
    /// # Errors
    /// As [`Edits::staged`]; also if a tag cannot be compared.
    pub async fn differences(&self, selection: &Selection) -> Result<Vec<Difference>, Error> {
        if !self.file_system.is_writable() {
            return Ok(Vec::new());
        }
        let tags = self.file_system.differences(selection).await?;
        Ok(tags.into_iter().flat_map(|(reference, found)| found.into_iter().map(move |one| difference(&reference, one))).collect())
    }

    /// Discards edits and returns the references of their tags.
    ///
    /// # Errors
    /// As [`Edits::staged`]; also if a tag cannot be changed.
    pub async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error> {
        if !self.file_system.is_writable() {
            return Ok(Vec::new());
        }
        tracing::info!(?selection, "discard");
        self.file_system.discard(selection).await
    }

    /// Stages an empty tag and returns its path below the mount.
    ///
    /// # Errors
    /// `ReadOnly`, and those of [`FileSystem::new_tag`].
    pub async fn new_tag(&self, reference: &str) -> Result<String, Error> {
        if !self.file_system.is_writable() {
            return Err(Error::new(ErrorKind::ReadOnly, "the mount is read-only"));
        }
        self.file_system.new_tag(reference).await
    }
}

/// Converts a difference for the control socket.
fn difference(reference: &str, found: view::Difference) -> Difference {
    let path = String::from_utf8_lossy(&found.path).into_owned();
    let path_base64 = (path.as_bytes() != found.path).then(|| base64::engine::general_purpose::STANDARD.encode(&found.path));
    let state = match found.state {
        PathState::Clean => "clean",
        PathState::Added => "added",
        PathState::Changed => "changed",
        PathState::Removed => "removed",
    };
    Difference {
        reference: reference.to_owned(),
        path,
        path_base64,
        state: state.to_owned(),
        kind: found.kind.name().to_owned(),
        before: found.before,
        after: found.after,
    }
}
