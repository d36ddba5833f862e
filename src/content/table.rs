//! Fetches the table of contents inside a blob and makes the blob's index of it.

use std::ops::Range;
use std::sync::Arc;

use super::blob_bytes::{self, Places};
use super::shared::Shared;
use super::{BlobSource, Sealing};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::layer::{LayerIndex, Table};

/// The index of a blob by its table, of which nothing was fetched before. One request if the table is short or the manifest says where it is, else two.
///
/// # Errors
/// Integrity and Unsupported if the table is wrong or cannot be used; errors of the registry.
pub(super) async fn index(shared: &Arc<Shared>, source: &BlobSource, table: &Table) -> Result<LayerIndex, Error> {
    let mut places = Places::All;
    loop {
        let (error, were_cached) = match attempt(shared, source, table, places).await? {
            Attempt::Done(index) => return Ok(index),
            Attempt::Wrong(error, were_cached) => (error, were_cached),
        };
        places = places.after_wrong(shared, &source.repository, &source.descriptor.digest, were_cached).ok_or(error)?;
    }
}

/// The outcome of reading a table.
enum Attempt {
    /// Its index.
    Done(LayerIndex),
    /// Its bytes are wrong; whether some of them came from the cache.
    Wrong(Error, bool),
}

async fn attempt(shared: &Arc<Shared>, source: &BlobSource, table: &Table, places: Places) -> Result<Attempt, Error> {
    let length = source.descriptor.size;
    let first = table.first(length)?;
    let mut taken = take(shared, source, first.clone(), places).await?;
    let (mut from, mut were_cached) = (first.start, taken.were_cached);
    let place = table.place(&taken.bytes, length)?;
    if place.start < from {
        taken = take(shared, source, place.clone(), places).await?;
        (from, were_cached) = (place.start, were_cached || taken.were_cached);
    }
    let (table, blob) = (table.clone(), (source.descriptor.digest, length));
    let resources = shared.resources(Sealing::None);
    let _turn = shared.attached_indexes.opening.lock().await;
    let made = blocking(move || {
        let at = |offset: u64| usize::try_from(offset - from).unwrap_or(usize::MAX);
        let packed = taken.bytes.get(at(place.start)..at(place.end)).unwrap_or_default();
        Ok(table.index(packed, place, blob, &resources))
    });
    Ok(match made.await? {
        Ok(index) => Attempt::Done(index),
        Err(error) if error.kind == ErrorKind::Integrity => Attempt::Wrong(error, were_cached),
        Err(error) => return Err(error),
    })
}

async fn take(shared: &Arc<Shared>, source: &BlobSource, range: Range<u64>, places: Places) -> Result<blob_bytes::Taken, Error> {
    let subject = format!("{}: no byte of its table of contents", source.label());
    blob_bytes::take(shared, (&source.repository, &source.descriptor), range, places, &subject).await
}
