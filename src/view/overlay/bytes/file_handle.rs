//! Handles of regular files: reads of the merged bytes, writes to staged ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::content::Verified;
use crate::error::Error;
use crate::staging::{Content, DataFile, STAGED};
use crate::view::overlay::bytes::copy_up::{Keep, WriteTarget};
use crate::view::overlay::bytes::fill::fill_whole;
use crate::view::overlay::bytes::lower::Blobs;
use crate::view::overlay::{ByteSource, OpenFile, Overlay};
use crate::view::reader::READ_LIMIT;
use crate::view::{Context, ViewNode};

/// Bytes copied at a time between two files.
const COPY: u64 = 1 << 20;

/// A regular file open for writing (and reading). The bytes are staged from the first write on.
pub struct FileHandle {
    file: Arc<OpenFile>,
    may_write: bool,
    /// The last failed write not yet reported by a close. Held for copying only.
    failed: Mutex<Option<Error>>,
}

impl Overlay {
    /// A reader that sees later writes to a regular file (an open file follows its node).
    ///
    /// # Errors
    /// Errors of opening the blob; Gone for a node that does not exist.
    pub async fn open_reader(self: &Arc<Self>, _context: &Context, node: ViewNode) -> Result<Arc<FileHandle>, Error> {
        let writer = FileHandle::new(self.hold(node)?, false);
        if let ByteSource::Lower(lower) = writer.file.source() {
            lower.reader(&self.blobs).await?;
            let Blobs { artifacts, repository, strict } = &self.blobs;
            artifacts.read_ahead(repository, &lower.artifact, lower.node, *strict);
        }
        Ok(Arc::new(writer))
    }

    /// Opens a regular file for writing; never copies bytes of the tree, also not with `truncate`.
    ///
    /// # Errors
    /// Gone for a node that does not exist, IsDirectory; with `truncate` also errors of the disk.
    pub async fn open_writer(self: &Arc<Self>, _context: &Context, node: ViewNode, truncate: bool) -> Result<Arc<FileHandle>, Error> {
        let writer = FileHandle::new(self.hold(node)?, true);
        if truncate {
            writer.set_length(0).await?;
        }
        Ok(Arc::new(writer))
    }
}

impl FileHandle {
    pub(in crate::view::overlay) fn new(file: Arc<OpenFile>, may_write: bool) -> Self {
        if may_write {
            file.writers.fetch_add(1, Ordering::AcqRel);
            file.overlay.writers.fetch_add(1, Ordering::AcqRel);
        }
        Self { file, may_write, failed: Mutex::new(None) }
    }

    /// The node.
    pub fn node(&self) -> ViewNode {
        self.file.node
    }

    /// How far the bytes are verified against their digest. Staged ones are the user's own.
    pub fn verified(&self) -> Verified {
        match self.file.source() {
            ByteSource::Data(layered) => layered.verified(),
            ByteSource::Lower(lower) => lower.opened().map_or(Verified::Whole, crate::view::Reader::verified),
        }
    }

    /// Whether the bytes are staged.
    pub fn is_staged(&self) -> bool {
        self.file.data().is_some()
    }

    /// The current bytes of a range.
    ///
    /// # Errors
    /// Errors of the disk or the registry.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Error> {
        match self.file.source() {
            ByteSource::Data(layered) => {
                let overlay = &self.file.overlay;
                layered.plan(&overlay.trees, offset, length.min(READ_LIMIT))?.read(&overlay.blobs).await
            }
            ByteSource::Lower(lower) => lower.reader(&self.file.overlay.blobs).await?.read(offset, length).await,
        }
    }

    /// Writes. Returns at once; only after very many scattered writes, or many failed publishes, must the rest of the file be
    /// filled in first.
    ///
    /// # Errors
    /// NoSpace and errors of the disk; while filling in also errors of the registry.
    pub async fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let result = self.with_data(Keep::All, |data| data.write_at(offset, bytes)).await;
        self.noted(result)
    }

    /// Truncates or extends.
    ///
    /// # Errors
    /// As [`FileHandle::write`].
    pub async fn set_length(&self, length: u64) -> Result<(), Error> {
        let result = {
            let keep = if length == 0 { Keep::Nothing } else { Keep::All };
            self.with_data(keep, |data| data.set_length(length)).await
        };
        self.noted(result)
    }

    /// `fallocate`.
    ///
    /// # Errors
    /// Unsupported for modes that the disk does not support; otherwise as [`FileHandle::write`].
    pub async fn allocate(&self, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
        self.with_data(Keep::All, |data| data.allocate(mode, offset, length)).await
    }

    /// Sets the modification time of staged bytes; `false` if the bytes are not staged.
    pub(in crate::view::overlay) async fn set_mtime(&self, mtime: (i64, u32)) -> Result<bool, Error> {
        if !self.is_staged() {
            return Ok(false);
        }
        self.with_data(Keep::All, |data| data.set_mtime(mtime)).await?;
        Ok(true)
    }

    /// Applies `work` to the staged bytes. No freeze happens until it is done.
    async fn with_data<T>(&self, keep: Keep, work: impl Fn(&DataFile) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let deep = {
                let _gate = self.file.overlay.freeze_lock.read();
                let _turn = self.file.turn();
                match self.file.target(keep)? {
                    WriteTarget::Ready(layered) => {
                        self.file.mark()?;
                        return work(&layered.data);
                    }
                    WriteTarget::Deep(layered) => layered,
                }
            };
            fill_whole(&Arc::downgrade(&self.file.overlay), &deep).await?;
        }
    }

    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            *self.failed.lock() = Some(error.clone());
        }
        result
    }

    /// SEEK_DATA and SEEK_HOLE; `None` if there is no such place.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        match self.file.source() {
            ByteSource::Data(layered) => Ok(layered.seek(&self.file.overlay.trees, offset, data)?),
            ByteSource::Lower(lower) => Ok(lower.seek(offset, data)),
        }
    }

    /// Copies a range from another open file; a whole unchanged file shares its bytes.
    ///
    /// # Errors
    /// Errors of reading the source and writing the destination.
    pub async fn copy_from(&self, source: &Self, from: u64, to: u64, length: u64) -> Result<u64, Error> {
        if from == 0 && to == 0 && self.share(source, length)? {
            return source.size();
        }
        let mut done = 0;
        while done < length {
            let wanted = u32::try_from((length - done).min(COPY)).unwrap_or(u32::MAX);
            let bytes = source.read(from.saturating_add(done), wanted).await?;
            if bytes.is_empty() {
                break;
            }
            self.write(to.saturating_add(done), &bytes).await?;
            done += bytes.len() as u64;
        }
        Ok(done)
    }

    fn size(&self) -> Result<u64, Error> {
        match self.file.source() {
            ByteSource::Data(layered) => Ok(layered.data.length()?),
            ByteSource::Lower(lower) => Ok(lower.size),
        }
    }

    /// Makes an empty file refer to the bytes of a whole file in a tree of this tag. `false` if that is impossible.
    fn share(&self, source: &Self, length: u64) -> Result<bool, Error> {
        let overlay = &self.file.overlay;
        let ByteSource::Lower(lower) = source.file.source() else { return Ok(false) };
        // A node of the tree below keeps its origin.
        let is_new = self.file.node >= STAGED && Arc::ptr_eq(overlay, &source.file.overlay);
        if !is_new || lower.size == 0 || length < lower.size || self.size()? != 0 {
            return Ok(false);
        }
        let _gate = overlay.freeze_lock.read();
        let _turn = self.file.turn();
        if self.size()? != 0 {
            return Ok(false);
        }
        overlay
            .change(|edit| {
                let content = match edit.merged().row(source.file.node)? {
                    Some(row) => row.content,
                    None => edit.base.row(lower.node, edit.now).map_or(Content::None, |row| row.content),
                };
                if !matches!(content, Content::Tree(_)) {
                    return Ok(false);
                }
                let now = edit.now;
                edit.update(self.file.node, |node| {
                    node.content = content;
                    node.metadata.mtime = Some(now);
                    node.ctime = now;
                })?;
                Ok(true)
            })
            .inspect(|shared| {
                if *shared {
                    self.file.set_source(ByteSource::Lower(Arc::clone(&lower)));
                }
            })
    }

    /// Reports the error of an earlier write to a close, once.
    ///
    /// # Errors
    /// That error.
    pub fn flush(&self) -> Result<(), Error> {
        match self.failed.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Makes bytes and names survive a power cut. Blocks on the disk.
    ///
    /// # Errors
    /// Errors of the disk, and an error of an earlier write, once.
    pub fn sync(&self) -> Result<(), Error> {
        if let Some(layered) = self.file.data() {
            layered.data.sync()?;
        }
        self.file.overlay.upper().sync()?;
        self.flush()
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        if self.may_write {
            self.file.writers.fetch_sub(1, Ordering::AcqRel);
            self.file.overlay.writers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
