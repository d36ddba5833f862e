//! Staging the bytes of a file, at the first write only: those of a tree are copied with their holes, those of a frozen
//! generation are cloned. Once a node, however many writers wait, and whoever gives up stops nobody else.

use std::sync::Arc;

use super::Overlay;
use super::file::{Lower, OpenFile, Source};
use crate::artifact::is_own_name;
use crate::error::ErrorKind;
use crate::staging::{Content, DataFile, Error as Fault, Node};
use crate::view::Error;

/// Bytes that are copied at a time.
const CHUNK: u64 = 1 << 20;
/// What is all zeros in pieces of this size becomes a hole.
const PIECE: usize = 64 << 10;
/// The note on a node of the tree below whose bytes are staged: its path there, by which it is found again.
pub(super) const ORIGIN: &[u8] = b"user.ocifs.origin";

/// How much of a file its next content begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    All,
    First(u64),
}

impl Keep {
    fn of(self, size: u64) -> u64 {
        match self {
            Self::All => size,
            Self::First(length) => size.min(length),
        }
    }
}

impl OpenFile {
    /// The staged bytes, if they may be written. To be asked under the gate.
    pub fn writable(&self) -> Option<Arc<DataFile>> {
        self.data().filter(|data| !self.overlay.upper().is_frozen(data.id()))
    }

    /// Stages the bytes. Afterwards they may be written, unless they were frozen again.
    pub async fn stage(self: &Arc<Self>, keep: Keep) -> Result<(), Error> {
        let run = self.overlay.staging.run(self.node, || {
            let file = Arc::clone(self);
            async move { file.stage_once(keep).await }
        });
        run.await.map_err(|error| Error::new(ErrorKind::Interrupted, format!("staging a file: {error}")))?
    }

    async fn stage_once(self: Arc<Self>, keep: Keep) -> Result<(), Error> {
        let (data, kept) = match self.source() {
            Source::Data(data) if !self.overlay.upper().is_frozen(data.id()) => return Ok(()),
            Source::Data(data) => (self.clone_frozen(&data, keep).await?, None),
            Source::Lower(lower) => {
                let data = copy(&self.overlay, &lower, keep).await?;
                (data, Some(lower))
            }
        };
        let file = Arc::clone(&self);
        blocking(move || file.switch(data, kept.is_some())).await
    }

    async fn clone_frozen(&self, data: &DataFile, keep: Keep) -> Result<DataFile, Error> {
        let (overlay, id) = (Arc::clone(&self.overlay), data.id());
        blocking(move || {
            let upper = overlay.upper();
            match keep {
                Keep::First(0) => Ok(upper.new_data()?),
                Keep::First(length) => {
                    let data = upper.clone_data(id)?;
                    if data.attributes()?.0 > length {
                        data.set_length(length)?;
                    }
                    Ok(data)
                }
                Keep::All => Ok(upper.clone_data(id)?),
            }
        })
        .await
    }

    /// From now on the node has these bytes. They are on the disk before anything refers to them.
    fn switch(&self, data: DataFile, from_tree: bool) -> Result<(), Error> {
        data.sync()?;
        let _gate = self.overlay.gate();
        self.overlay.change(|edit| {
            let now = edit.now;
            let mut origin = None;
            edit.update(self.node, |node| {
                origin = origin_of(node);
                node.content = Content::Data(data.id());
                node.ctime = now;
            })?;
            if from_tree && let Some(path) = origin {
                edit.change.put_xattr(self.node, ORIGIN, Some(&path))?;
            }
            Ok(())
        })?;
        self.set_source(Source::Data(Arc::new(data)));
        Ok(())
    }
}

/// Where in a tree the content of a row lies.
fn origin_of(node: &Node) -> Option<Vec<u8>> {
    match &node.content {
        Content::Tree(tree) => Some(tree.path.clone()),
        Content::Data(_) | Content::None => None,
    }
}

/// A new staged file with the bytes of a file of a tree.
async fn copy(overlay: &Overlay, lower: &Lower, keep: Keep) -> Result<DataFile, Error> {
    let data = overlay.upper().new_data()?;
    let length = keep.of(lower.size);
    if length == 0 {
        return Ok(data);
    }
    let reader = lower.reader(&overlay.blobs).await?;
    let extents = lower.content().map(|content| content.extents).unwrap_or_default();
    for extent in extents {
        let end = extent.file.saturating_add(extent.length).min(length);
        let mut at = extent.file;
        while at < end {
            // At most CHUNK, which fits.
            let bytes = reader.read(at, u32::try_from((end - at).min(CHUNK)).unwrap_or(u32::MAX)).await?;
            if bytes.is_empty() {
                return Err(Error::new(ErrorKind::Integrity, "a file of the tree is shorter than its archive says"));
            }
            write_with_holes(&data, at, &bytes)?;
            at += bytes.len() as u64;
        }
    }
    data.set_length(length)?;
    Ok(data)
}

fn write_with_holes(data: &DataFile, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
    let mut at = offset;
    for piece in bytes.chunks(PIECE) {
        if piece.iter().any(|byte| *byte != 0) {
            data.write_at(at, piece)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// Runs what blocks on the disk where that keeps nobody waiting.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Other, format!("staging was stopped: {error}"))),
    }
}

/// Attributes that other programs see and artifacts carry.
pub(super) fn without_own(xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    xattrs.into_iter().filter(|(name, _)| !is_own_name(name)).collect()
}
