//! Usage figures, clearing and checking for `ocifs cache`. These do walk the cache.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::aging::each_document;
use super::document_name::file_name;
use super::documents;
use super::shared::{Shared, failed};
use super::stream::{OpenStreams, Stream};
use super::stream_files::{discard, occupied_by};
use super::table::Table;
use super::{evict, pins};
use crate::durable;
use crate::error::Error;
use crate::oci::Digest;

/// How long `clear` waits for an evictor.
const PATIENCE: Duration = Duration::from_secs(30);

/// Usage figures.
pub fn usage(shared: &Shared) -> Result<Usage, Error> {
    let pinned = pins::pinned(shared)?.blobs;
    let mut usage = Usage { size: shared.config.size, ..Usage::default() };
    evict::walk(shared, |directory, name| {
        let occupied = occupied_by(directory).unwrap_or(0);
        usage.spans += occupied;
        usage.streams += u64::from(occupied > 0);
        if evict::blob_of(name).is_some_and(|blob| pinned.contains(&blob)) {
            usage.pinned += occupied;
        }
        Ok(())
    })?;
    each_document(shared, |_, entry| {
        usage.indexes += entry.metadata().map_or(0, |metadata| durable::occupied(&metadata));
        Ok(())
    })?;
    Ok(usage)
}

/// Unlinks streams and documents; pinned ones only if `pinned`. A document belongs to a pin if its key contains the pin's name or one of its digests.
pub fn clear(shared: &Shared, pinned: bool) -> Result<(), Error> {
    let _lock = shared.evict_lock(PATIENCE)?;
    let kept = if pinned { Vec::new() } else { pins::pins(shared)? };
    let mut streams = Vec::new();
    evict::walk(shared, |directory, name| {
        let keep = evict::blob_of(name).is_some_and(|blob| kept.iter().any(|(_, blobs)| blobs.contains(&blob)));
        if !keep {
            streams.push(directory.to_owned());
        }
        Ok(())
    })?;
    for directory in streams {
        let _structure = shared.structure_lock()?;
        discard(shared, &directory)?;
    }
    let spared: Vec<String> = kept.iter().flat_map(|(name, blobs)| blobs.iter().map(|blob| blob.hex()).chain([file_name(name)])).collect();
    each_document(shared, |kind, entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Keys of these do not name blobs, but pinned blobs cannot be found without them.
        let leads_to_pins = !kept.is_empty() && ["manifest", "seen", "tree"].iter().any(|spared| kind == *spared);
        // A temporary file belongs to a process about to rename it.
        if leads_to_pins || name.starts_with(durable::TEMPORARY) || spared.iter().any(|part| name.contains(part.as_str())) {
            return Ok(());
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", &entry.path())(error)),
            _ => Ok(()),
        }
    })?;
    evict::recount(shared, &pins::pinned(shared)?)?;
    shared.hope_again();
    Ok(())
}

/// Unlinks all streams of one blob.
pub fn forget_stream(shared: &Shared, blob: &Digest) -> Result<(), Error> {
    let prefix = format!("{}.", blob.path_name());
    let shard = shared.stream_directory(&prefix);
    let shard = shard.parent().unwrap_or(&shared.root);
    let mut freed = 0_u64;
    {
        let _structure = shared.structure_lock()?;
        for entry in fs::read_dir(shard).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                freed = freed.saturating_add(discard(shared, &entry.path())?);
            }
        }
    }
    shared.give_back(freed);
    Ok(())
}

/// Checks every table, present span and document against its checksum, and that it is in its own place. Returns checked spans and documents, and broken
/// ones; a stream with a broken table counts once in each. No key is needed: the stored bytes are checked.
pub fn verify(shared: &Shared, open: &Arc<OpenStreams>) -> Result<(u64, u64), Error> {
    let (mut streams, mut without_table) = (Vec::new(), Vec::new());
    evict::walk(shared, |directory, name| {
        match Table::open(directory) {
            Ok(Some(table)) => streams.push((name.to_owned(), table.layout().clone())),
            Ok(None) => without_table.push(directory.to_owned()),
            Err(error) => return Err(failed("open the table of", directory)(error)),
        }
        Ok(())
    })?;
    let (mut checked, mut broken) = (0, 0);
    for directory in without_table {
        if let Some(freed) = evict::discard_broken(shared, &directory)? {
            shared.give_back(freed);
            (checked, broken) = (checked + 1, broken + 1);
        }
    }
    for (name, layout) in streams {
        let Some(stream) = Stream::open(open, &name, &layout, false)? else { continue };
        for whole in (0..layout.count()).filter_map(|span| stream.check(span)) {
            checked += 1;
            broken += u64::from(!whole);
        }
    }
    each_document(shared, |_, entry| {
        let Some(sound) = documents::check(&entry.path()).map_err(failed("read", &entry.path()))? else { return Ok(()) };
        checked += 1;
        if !sound {
            broken += 1;
            tracing::warn!(document = %entry.path().display(), "dropped a broken cached document");
            durable::remove(&entry.path()).map_err(failed("remove", &entry.path()))?;
        }
        Ok(())
    })?;
    Ok((checked, broken))
}

/// Usage figures for `cache info` and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of span data on disk.
    pub spans: u64,
    /// Bytes of indexes and trees.
    pub indexes: u64,
    /// Bytes of span data of pinned streams.
    pub pinned: u64,
    /// Number of streams with any data.
    pub streams: u64,
    /// The budget.
    pub size: u64,
}
