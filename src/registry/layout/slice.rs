//! The bytes of one file of a layout: a file of its own, or a part of an archive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The bytes of one file of a layout.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    pub(super) size: u64,
}

impl Slice {
    /// A whole file.
    pub(super) fn whole(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), start: 0, size })
    }

    /// Fills a buffer from an offset.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.size => self.file.read_exact_at(buffer, self.start + offset),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// All bytes, unless there are more than `limit`.
    pub(super) fn small(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        if self.size > limit {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        self.read_exact_at(&mut bytes, 0).map(|()| Some(bytes))
    }
}
