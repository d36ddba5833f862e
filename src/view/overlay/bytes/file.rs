//! An open regular file: one for all its handles, so that all see the same bytes, before and after staging.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::staging::{Content, DataId};
use crate::view::ViewNode;
use crate::view::overlay::bytes::layered::Layered;
use crate::view::overlay::bytes::lower::Lower;
use crate::view::overlay::names::merged::{Seen, fault, gone};
use crate::view::overlay::{ByteSource, OpenFile, Overlay};

impl OpenFile {
    pub fn source(&self) -> ByteSource {
        self.source.read().clone()
    }

    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    pub fn set_source(&self, source: ByteSource) {
        let before = std::mem::replace(&mut *self.source.write(), source);
        // Closed without the lock.
        drop(before);
    }

    /// The staged bytes, if any.
    pub fn data(&self) -> Option<Arc<Layered>> {
        match self.source() {
            ByteSource::Data(data) => Some(data),
            ByteSource::Lower(_) => None,
        }
    }

    pub fn data_id(&self) -> Option<DataId> {
        self.data().map(|layered| layered.data.id())
    }

    /// Counts the file as changed, once per epoch, unless that would change nothing. Called under the freeze lock.
    pub fn mark(&self) -> Result<(), Error> {
        let epoch = self.overlay.epoch();
        if self.marked.load(Ordering::Acquire) == epoch {
            return Ok(());
        }
        if self.overlay.has_frozen() || !self.overlay.upper().is_edited() {
            self.overlay.change(|edit| {
                let now = edit.now;
                edit.update(self.node, |node| node.ctime = now)
            })?;
        }
        self.marked.store(epoch, Ordering::Release);
        Ok(())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.overlay.table.closed(self.node)
            && let Err(error) = self.overlay.release(self.node)
            && error.kind != ErrorKind::Gone
        {
            tracing::warn!("cannot free the bytes of a removed file; they stay staged until the tag is opened again: {error}");
        }
    }
}

impl Overlay {
    /// The open file of a node; opens it if necessary.
    pub(in crate::view::overlay) fn hold(self: &Arc<Self>, node: ViewNode) -> Result<Arc<OpenFile>, Error> {
        // Between reading the row and adding it to the table, the node must not be removed nor its bytes freed.
        let _names = self.names.lock();
        if let Some(file) = self.table.get(node) {
            return Ok(file);
        }
        let seen = self.merged().see(node)?;
        match seen.kind() {
            Kind::File => {}
            Kind::Directory => return Err(fault(ErrorKind::IsDirectory, "a directory cannot be opened as a file")),
            _ => return Err(fault(ErrorKind::NotPermitted, "a device or link of a tag cannot be opened here")),
        }
        let (source, is_orphan) = match seen {
            Seen::Lower(id, _) => (ByteSource::Lower(Arc::new(Lower::new(self.base.artifact().cloned().ok_or_else(gone)?, id))), false),
            Seen::Row(row) => (self.source_of(&row.content)?, row.links == 0),
        };
        let file = Arc::new(OpenFile {
            overlay: Arc::clone(self),
            node,
            source: RwLock::new(source),
            turn: Mutex::new(()),
            marked: AtomicU64::new(0),
            writers: AtomicU64::new(0),
        });
        self.table.insert(node, &file, is_orphan);
        Ok(file)
    }

    fn source_of(&self, content: &Content) -> Result<ByteSource, Error> {
        match content {
            Content::Data(id) => Ok(ByteSource::Data(Arc::new(Layered::new(self.upper().data(*id)?)))),
            Content::Tree(node) => Ok(ByteSource::Lower(Arc::new(self.trees.lower(node)?))),
            Content::None => Err(gone()),
        }
    }

    /// Called when the last handle unknown to the table was closed.
    pub(in crate::view) fn unpinned(&self, node: ViewNode) {
        let is_orphan = self.merged().row(node).is_ok_and(|row| row.is_some_and(|row| row.links == 0));
        if is_orphan && let Err(error) = self.release(node) {
            tracing::warn!("cannot free the bytes of a removed file; they stay staged until the tag is opened again: {error}");
        }
    }

    /// Called when the last handle of a node without a name was closed.
    fn release(&self, node: ViewNode) -> Result<(), Error> {
        let _names = self.names.lock();
        if self.table.is_open(node) || self.is_pinned(node) {
            return Ok(());
        }
        // A file without a name is never published.
        self.upper.tidy(|change| {
            let mut edit = self.edit(change);
            match edit.merged().row(node)? {
                Some(row) if row.links == 0 => edit.bury(node),
                _ => Ok(()),
            }
        })
    }
}
