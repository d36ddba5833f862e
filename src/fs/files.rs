//! Open files: reading, writing, and making bytes durable.
//!
//! The kernel keeps one set of pages for each file, shared by all its handles. So a handle always reads the current file: the bytes of
//! the digest that its view is bound to, and those written here. A handle keeps its file when its names are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::handle::{Body, File};
use super::open_files::OpenFiles;
use super::refusals::read_only;
use super::staged_tags::StagedTags;
use super::tag_state::Event;
use super::{Caller, Entry, FOREVER, Inode, OpenFile};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::view::{Attributes, FileHandle, Overlay, Reader, SetAttributes, View, ViewNode};

/// Smallest file that the kernel reads by itself: for others, the additional calls cost more than they save.
const BACKED: u64 = 1 << 20;
/// The extended attribute that grants a program some of root's rights.
const CAPABILITIES: &[u8] = b"security.capability";
/// Set-user-ID, set-group-ID, and the execute bit that makes the latter effective.
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_RUNS: u32 = 0o010;

impl StagedTags {
    /// Strips what a file must lose when its bytes or owner change: its capabilities, and with `bits` set-user-ID, and
    /// set-group-ID if its group may execute it. The kernel leaves that to us.
    pub(super) async fn strip(&self, overlay: &Arc<Overlay>, node: ViewNode, bits: bool) -> Result<(), Error> {
        if overlay.xattr(node, CAPABILITIES)?.is_some() {
            overlay.remove_xattr(node, CAPABILITIES)?;
        }
        if !bits {
            return Ok(());
        }
        let mode = overlay.attributes(&self.namespace.context, node)?.mode;
        let lost = match mode & GROUP_RUNS {
            0 => mode & SET_USER,
            _ => mode & (SET_USER | SET_GROUP),
        };
        if lost == 0 {
            return Ok(());
        }
        let set = SetAttributes { mode: Some(mode & !lost), ..SetAttributes::default() };
        overlay.set_attributes(&self.namespace.context, node, set).await
    }
}

impl OpenFiles {
    /// Opens a file.
    pub(super) async fn open(&self, number: u64, write: bool) -> Result<OpenFile, Error> {
        let inode = self.namespace.inode(number);
        if !write {
            let (file, keep) = self.readable(number).await?;
            return Ok(self.handles.open_file(file, keep));
        }
        if inode.view() == 0 {
            return self.made(number).and(Err(read_only()));
        }
        let view = self.namespace.view(inode)?;
        let overlay = self.tags.edit(&view).await?;
        let file = overlay.open_writer(&self.namespace.context, inode.node(), false).await?;
        let attributes = view.attributes(&self.namespace.context, file.node()).ok();
        Ok(self.opened(number, view, file, attributes))
    }

    /// Opens a file for reading, with the file of the cache that holds its bytes, if the kernel may read it by itself. Its open file
    /// description must last as long as the kernel does so.
    pub(super) async fn open_backed(&self, number: u64) -> Result<(OpenFile, Option<std::fs::File>), Error> {
        let (file, keep) = self.readable(number).await?;
        let backing = match &file.body {
            Body::Pinned { reader, .. } if reader.size() >= BACKED => match reader.whole() {
                Some((stream, range)) => {
                    let stream = stream.clone();
                    blocking(move || Ok(stream.lease(&range))).await?
                }
                None => None,
            },
            _ => None,
        };
        Ok((self.handles.open_file(file, keep), backing))
    }

    /// A file as a reader sees it, and whether the kernel may keep its cached pages.
    pub(super) async fn readable(&self, number: u64) -> Result<(File, bool), Error> {
        let inode = self.namespace.inode(number);
        if inode.view() == 0 {
            return self.made(number).map(|file| (file, false));
        }
        let view = self.namespace.view(inode)?;
        self.namespace.enter(&view).await?;
        let pin = view.pin(inode.node());
        if let Some(overlay) = view.overlay() {
            let file = overlay.open_reader(&self.namespace.context, inode.node()).await?;
            let attributes = view.attributes(&self.namespace.context, file.node()).ok();
            return Ok(edited_file(number, view, file, attributes, false));
        }
        let reader = view.open(&self.namespace.context, inode.node()).await?;
        let keep = view.keeps_pages(inode.node(), reader.verified());
        let attributes = view.attributes(&self.namespace.context, inode.node()).ok();
        let body = Body::Pinned { reader, now: OnceCell::new(), _pin: pin };
        Ok((File { number, body, attributes, view: Some(view) }, keep))
    }

    /// A file generated now.
    fn made(&self, number: u64) -> Result<File, Error> {
        let location = self.namespace.location(self.namespace.inode(number))?;
        if location.is_directory() {
            return Err(Error::new(ErrorKind::IsDirectory, "a directory cannot be read as a file"));
        }
        if !location.is_made_file() {
            return Err(read_only());
        }
        let body = Body::Made(Reader::of_memory(self.namespace.made_file(&location)));
        Ok(File { number, body, attributes: None, view: None })
    }

    /// A handle for writing a file of an edited tag.
    pub(super) fn opened(&self, number: u64, view: Arc<View>, file: Arc<FileHandle>, attributes: Option<Attributes>) -> OpenFile {
        let (file, keep) = edited_file(number, view, file, attributes, true);
        self.handles.open_file(file, keep)
    }

    /// Attributes of an open file without a name.
    pub(super) fn open_attributes(&self, number: u64) -> Option<Entry> {
        let mut attributes = self.handles.of_inode(number)?.attributes?;
        attributes.links = 0;
        Some(Entry { inode: number, attributes, name_ttl: FOREVER, attributes_ttl: FOREVER })
    }

    /// Bytes of an open file, fewer than requested only at its end.
    pub(super) async fn read(&self, handle: u64, offset: u64, length: u32) -> Result<Bytes, Error> {
        self.read_file(&*self.handles.file(handle)?, offset, length).await
    }

    pub(super) async fn read_file(&self, file: &File, offset: u64, length: u32) -> Result<Bytes, Error> {
        let result = match (&file.body, self.edited(file).await) {
            (_, Err(error)) => Err(error),
            (_, Ok(Some(edited))) => edited.read(offset, length).await,
            (Body::Made(reader) | Body::Pinned { reader, .. }, Ok(None)) => reader.read(offset, length).await,
            (Body::Edited { file, .. }, Ok(None)) => file.read(offset, length).await,
        };
        if let Err(error) = &result
            && error.kind == ErrorKind::Integrity
            && let Some(kernel) = self.namespace.kernel.get()
        {
            // Pages of the same file cached before the mismatch was found must not be served.
            kernel.forget_inode(file.number);
        }
        result
    }

    /// The open file with the edits of its tag, if it has any.
    pub(super) async fn edited(&self, file: &File) -> Result<Option<Arc<FileHandle>>, Error> {
        match (&file.body, &file.view) {
            (Body::Edited { file, .. }, _) => Ok(Some(Arc::clone(file))),
            (Body::Pinned { now, .. }, Some(view)) => {
                let Some(overlay) = view.overlay() else { return Ok(None) };
                let node = Inode::decode(file.number).node();
                let open = || async move { overlay.open_reader(&self.namespace.context, node).await };
                now.get_or_try_init(open).await.map(|file| Some(Arc::clone(file)))
            }
            _ => Ok(None),
        }
    }

    /// A file open for writing; its tag counts as edited until it is closed.
    /// `strip`: the caller may not keep the setuid and setgid bits.
    async fn writer(&self, handle: u64, strip: bool) -> Result<Arc<FileHandle>, Error> {
        let file = self.handles.file(handle)?;
        let (Body::Edited { file: writer, writable: true, wrote }, Some(view)) = (&file.body, &file.view) else {
            return Err(Error::new(ErrorKind::Invalid, "the file is not open for writing"));
        };
        if !self.namespace.staged.holds(view.number()) {
            return Err(super::refusals::stale());
        }
        let first = !wrote.load(Ordering::Relaxed);
        if (first || strip)
            && let Some(overlay) = view.overlay()
        {
            self.tags.strip(overlay, writer.node(), strip).await?;
            wrote.store(true, Ordering::Relaxed);
        }
        Ok(Arc::clone(writer))
    }

    /// Writes all bytes at an offset. Completes immediately if nothing must be copied first. May be dropped and called again.
    /// `strip` is the kernel's flag on the write.
    pub(super) async fn write(&self, handle: u64, offset: u64, bytes: &[u8], strip: bool) -> Result<(), Error> {
        self.writer(handle, strip).await?.write(offset, bytes).await
    }

    /// `fallocate(2)`.
    pub(super) async fn allocate(&self, caller: Caller, handle: u64, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
        self.writer(handle, !caller.may_keep_set_id()).await?.allocate(mode, offset, length).await
    }

    /// The start of the next data (or hole) at or after an offset; `None` beyond the end.
    pub(super) async fn seek(&self, handle: u64, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        self.seek_file(&*self.handles.file(handle)?, offset, data).await
    }

    pub(super) async fn seek_file(&self, file: &File, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        if let Some(edited) = self.edited(file).await? {
            if self.handles.has_writer(file.number)
                && let Some(kernel) = self.namespace.kernel.get()
            {
                // Bytes that the kernel has not written back yet are not a hole.
                let (kernel, number) = (Arc::clone(kernel), file.number);
                blocking(move || {
                    kernel.hand_over(number);
                    Ok(())
                })
                .await?;
            }
            return edited.seek(offset, data).await;
        }
        match &file.body {
            Body::Made(reader) | Body::Pinned { reader, .. } => Ok(reader.seek(offset, data)),
            Body::Edited { file, .. } => file.seek(offset, data).await,
        }
    }

    /// Copies a range from one open file to another and returns the number of bytes copied.
    pub(super) async fn copy_range(&self, caller: Caller, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u64, Error> {
        let (source, target) = (self.handles.file(from.0)?, self.writer(to.0, !caller.may_keep_set_id()).await?);
        let same = |view: &Arc<View>, other: &Arc<View>| view.number() == other.number();
        let target_view = self.handles.file(to.0)?.view.clone();
        let is_same = source.view.as_ref().zip(target_view.as_ref()).is_some_and(|(source, target)| same(source, target));
        let Some(edited) = self.edited(&source).await?.filter(|_| is_same) else {
            return Err(Error::new(ErrorKind::CrossDevice, "the bytes are in another tag"));
        };
        target.copy_from(&edited, from.1, to.1, length).await
    }

    /// Reports the error of an earlier write to a close, once.
    pub(super) fn close_report(&self, handle: u64) -> Result<(), Error> {
        match &self.handles.file(handle)?.body {
            Body::Edited { file, .. } => file.flush(),
            Body::Made(_) | Body::Pinned { .. } => Ok(()),
        }
    }

    /// Makes the bytes of a file and all names of its tag survive a power cut.
    pub(super) async fn fsync(&self, handle: u64) -> Result<(), Error> {
        let file = self.handles.file(handle)?;
        match self.edited(&file).await? {
            Some(edited) => blocking(move || edited.sync()).await,
            // Nothing in the tag was changed.
            None => Ok(()),
        }
    }

    /// Makes the names below a directory survive a power cut.
    pub(super) async fn fsyncdir(&self, number: u64) -> Result<(), Error> {
        let inode = self.namespace.inode(number);
        let edited: Vec<Arc<Overlay>> = match inode.view() {
            0 => self.namespace.staged.all().iter().filter_map(|(_, staged)| staged.view.overlay().map(Arc::clone)).collect(),
            _ => self.namespace.view(inode)?.overlay().map(Arc::clone).into_iter().collect(),
        };
        blocking(move || edited.iter().try_for_each(|overlay| overlay.upper().sync())).await
    }

    /// Closes a file.
    pub(super) fn release(&self, handle: u64) {
        let file = self.handles.file(handle).ok().filter(|file| matches!(file.body, Body::Edited { writable: true, .. }));
        self.handles.close(handle);
        let Some(view) = file.and_then(|file| file.view.clone()) else { return };
        // A tag in which nothing was written follows upstream again.
        self.namespace.staged.happened_in(&self.namespace.views, &view, |left| Event::Closed(view.number(), left));
        self.tags.free_soon(&view);
    }
}

/// A file of an edited tag, and whether the kernel may keep its cached pages.
fn edited_file(number: u64, view: Arc<View>, file: Arc<FileHandle>, attributes: Option<Attributes>, writable: bool) -> (File, bool) {
    let keep = view.keeps_pages(file.node(), file.verified());
    let body = Body::Edited { file, writable, wrote: AtomicBool::new(false) };
    (File { number, body, attributes, view: Some(view) }, keep)
}
