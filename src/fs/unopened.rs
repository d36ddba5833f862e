//! Files that the kernel reads by inode, because it was told that this mount needs no OPEN.
//!
//! An inode stands for one digest, and the kernel keeps it while a program has the file open, so a read by inode returns what a read
//! through a handle would. The files read last stay ready.

use bytes::Bytes;

use super::Entry;
use super::handle::{Body, File};
use super::location::Location;
use super::open_files::OpenFiles;
use super::ready_files::Ready;
use crate::error::{Error, ErrorKind};
use crate::view::Reader;

impl OpenFiles {
    /// Bytes of a file that was not opened, fewer than requested only at its end.
    pub(super) async fn read_unopened(&self, number: u64, offset: u64, length: u32) -> Result<Bytes, Error> {
        let ready = self.ready(number).await?;
        let result = self.read_file(&ready.file, offset, length).await;
        if result.as_ref().is_err_and(|error| error.kind == ErrorKind::Integrity) {
            ready.fail();
        }
        result
    }

    /// As [`OpenFiles::seek`].
    pub(super) async fn seek_unopened(&self, number: u64, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        let ready = self.ready(number).await?;
        self.seek_file(&ready.file, offset, data).await
    }

    /// Attributes of a generated file, whose next reads return just these bytes.
    pub(super) fn snapshot_made(&self, number: u64, location: &Location) -> Entry {
        let bytes = self.namespace.made_file(location);
        let entry = self.namespace.made_entry(number, bytes.len() as u64);
        self.unopened.keep(File { number, body: Body::Made(Reader::of_memory(bytes)), attributes: None, view: None });
        entry
    }

    async fn ready(&self, number: u64) -> Result<Ready, Error> {
        if let Some(ready) = self.unopened.get(number) {
            return Ok(ready);
        }
        let (file, _) = self.readable(number).await?;
        Ok(self.unopened.keep(file))
    }
}
