//! Packs one layer: bytes are read ahead, threads compress.
//!
//! Memory is bounded by a few MiB per layer being packed. The packed layer is compared with the plan, so a layer's content always matches its
//! identity.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::jobs::{Item, Items, Job};
use super::sealed::Sealed;
use super::store::{Ready, Store};
use crate::blocking::{blocking, spawn_blocking};
use crate::content::{Budget, Use};
use crate::error::{Error, ErrorKind};
use crate::layer::{PackEntry, Packed, Packer, Packing, attached_index_memory};
use crate::path::show;
use crate::publish::disk;
use crate::publish::plan::identity::of_index;
use crate::publish::plan::layers::LayerPlan;
use crate::view::TreeEntry;
use crate::view::snapshot::Snapshot;

/// Files up to this many bytes are read whole, several ahead.
const SMALL: u64 = 128 << 10;
const AHEAD: usize = 8;
/// Local files up to this many bytes are read in batches of up to so many: a task of its own costs more than such a file.
const TINY: u64 = 16 << 10;
const BATCH: usize = 64;
const BATCHES: usize = 2;
/// Larger ones are read in pieces of this size.
const PIECE: u32 = 1 << 20;
/// Messages queued for the packer, each of several commands until they have this many bytes.
const MESSAGES: usize = 4;
const MESSAGE: usize = 256 << 10;

/// An instruction to the packing thread.
enum Command {
    Begin(PackEntry),
    Data(Bytes),
    End,
}

/// How to pack a layer.
pub(in crate::publish) struct How<'a> {
    pub snapshot: &'a Arc<dyn Snapshot>,
    pub store: &'a Store,
    /// Compression threads.
    pub workers: usize,
    /// The envelope to seal it with.
    pub sealed: Option<Sealed>,
    /// Whether its index may be attached.
    pub with_index: bool,
    /// Bytes of a span.
    pub span: NonZeroUsize,
    /// Bytes read so far, over all layers.
    pub read: &'a Arc<AtomicU64>,
    pub budget: &'a Budget,
    /// Called when that changes.
    pub told: &'a (dyn Fn() + Send + Sync),
}

/// Memory needed to pack a layer, including read-ahead, in bytes.
pub(in crate::publish) fn memory(workers: usize, span: NonZeroUsize) -> u64 {
    let messages = (MESSAGES as u64 + 1) * (u64::from(PIECE) + MESSAGE as u64);
    Packer::memory(workers, span) + AHEAD as u64 * SMALL + BATCHES as u64 * BATCH as u64 * TINY + messages
}

/// Packs one layer.
pub(in crate::publish) async fn pack(layer: &LayerPlan, job: Job, how: How<'_>) -> Result<Ready, Error> {
    let granted = how.budget.take(Use::Packing, memory(how.workers, how.span)).await?;
    let (commands, receiver) = mpsc::channel(MESSAGES);
    let (draft, sealed) = (how.store.draft(&layer.identity), how.sealed.clone());
    let (packing, workers, span, resources) = (layer.packing, how.workers, how.span, how.store.resources().clone());
    // A raw layer that is a local file is described, not copied.
    let title = layer.title.as_deref().filter(|_| packing == Packing::Raw && sealed.is_none());
    let in_place = title.and_then(|title| how.snapshot.on_disk(title.as_bytes()));
    let is_copied = in_place.is_none();
    let thread = spawn_blocking(move || {
        let create = || File::create(&draft).map_err(|error| disk::failed("making", &draft, error));
        match sealed {
            None => {
                let file: Box<dyn Write + Send> = if is_copied { Box::new(create()?) } else { Box::new(io::sink()) };
                let packed = drive(Packer::with_span(packing, workers, span, &resources, file), receiver).map_err(disk::full)?;
                let blob = packed.blob;
                Ok((packed, blob))
            }
            Some(sealed) => {
                let writer = sealed.writer(BufWriter::with_capacity(256 << 10, create()?))?;
                let packed =
                    drive(Packer::with_span(packing, workers, span, &resources, Box::new(writer.clone())), receiver).map_err(disk::full)?;
                let blob = writer.finish()?;
                Ok::<_, Error>((packed, blob))
            }
        }
    });
    let fed = feed(job, &how, &commands).await;
    drop(commands);
    let (packed, blob) = match (thread.await, fed) {
        (Ok(Ok(done)), Ok(())) => done,
        // If reading failed, the packer never got its end.
        (_, Err(Some(error))) | (Ok(Err(error)), _) => return Err(error),
        (Ok(_), Err(None)) => return Err(Error::other("packing a layer ended early")),
        (Err(error), _) => return Err(Error::other(format!("packing a layer: {error}"))),
    };
    if of_index(&packed.index, layer.packing, layer.title.as_deref()) != Some(layer.identity) {
        return Err(Error::new(ErrorKind::Integrity, "the packed layer differs from the plan: a file changed behind the mount's back"));
    }
    drop(granted);
    let _granted = how.budget.take(Use::Packing, if how.with_index { attached_index_memory(&packed.index) } else { 0 }).await?;
    let (store, identity, with_index, sealed) = (how.store.clone(), layer.identity, how.with_index, how.sealed);
    blocking(move || {
        let mut ready = store.keep(&identity, &packed, blob, with_index, in_place)?;
        ready.sealed = sealed.map(|sealed| Arc::new((sealed, packed.index)));
        Ok(ready)
    })
    .await
}

fn drive(mut packer: Packer, mut messages: mpsc::Receiver<Vec<Command>>) -> Result<Packed, Error> {
    while let Some(commands) = messages.blocking_recv() {
        for command in commands {
            match command {
                Command::Begin(entry) => packer.begin(&entry)?,
                Command::Data(bytes) => packer.data(&bytes)?,
                Command::End => return packer.finish(),
            }
        }
    }
    Err(Error::new(ErrorKind::Interrupted, "stopped"))
}

/// Commands on their way to the packing thread, many small ones in a message.
struct Commands<'a> {
    sender: &'a mpsc::Sender<Vec<Command>>,
    message: Vec<Command>,
    bytes: usize,
}

impl Commands<'_> {
    /// `Err(None)`: the packer failed.
    async fn send(&mut self, command: Command) -> Result<(), Option<Error>> {
        self.bytes += match &command {
            Command::Begin(entry) => entry.path.len() + size_of::<PackEntry>(),
            Command::Data(bytes) => bytes.len(),
            Command::End => MESSAGE,
        };
        self.message.push(command);
        if self.bytes >= MESSAGE {
            self.bytes = 0;
            self.sender.send(std::mem::take(&mut self.message)).await.map_err(|_| None)?;
        }
        Ok(())
    }
}

/// The content of an item, as far as it is read ahead.
enum Content {
    None,
    Whole(Bytes),
    Later(TreeEntry),
}

/// Sends everything to the packer. `Err(None)`: the packer failed and reports its own error.
async fn feed(job: Job, how: &How<'_>, sender: &mpsc::Sender<Vec<Command>>) -> Result<(), Option<Error>> {
    let mut commands = Commands { sender, message: Vec::new(), bytes: 0 };
    let mut contents = Box::pin(read_ahead(job.items, Arc::clone(how.snapshot)));
    while let Some(read) = contents.next().await {
        let (entry, content) = read.map_err(Some)?;
        commands.send(Command::Begin(entry)).await?;
        match content {
            Content::None => {}
            Content::Whole(bytes) => {
                how.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                commands.send(Command::Data(bytes)).await?;
            }
            Content::Later(file) => {
                let failed = |error: Error| Some(of_file(&file, &error));
                let reader = how.snapshot.open(&file).await.map_err(failed)?;
                let mut offset = 0;
                while offset < file.size {
                    let bytes = reader.read(offset, PIECE).await.map_err(failed)?;
                    if bytes.is_empty() {
                        break;
                    }
                    offset += bytes.len() as u64;
                    how.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    (how.told)();
                    commands.send(Command::Data(bytes)).await?;
                }
            }
        }
        (how.told)();
    }
    commands.send(Command::End).await
}

fn read_ahead(items: Items, snapshot: Arc<dyn Snapshot>) -> impl Stream<Item = Result<(PackEntry, Content), Error>> {
    let reading = Arc::clone(&snapshot);
    let batches = items.ready_chunks(BATCH).map(move |batch| read_tiny(Arc::clone(&reading), batch));
    let items = batches.buffered(BATCHES).map_ok(|batch| stream::iter(batch.into_iter().map(Ok))).try_flatten();
    let read = items.map_ok(move |(item, bytes): (Item, Option<Bytes>)| {
        let snapshot = Arc::clone(&snapshot);
        async move {
            match (item.file, bytes) {
                (None, _) => Ok((item.archived, Content::None)),
                (Some(_), Some(bytes)) => Ok((item.archived, Content::Whole(bytes))),
                (Some(file), None) if file.size > SMALL => Ok((item.archived, Content::Later(file))),
                (Some(file), None) => {
                    let failed = |error: Error| of_file(&file, &error);
                    let reader = snapshot.open(&file).await.map_err(failed)?;
                    let length = u32::try_from(file.size).unwrap_or(u32::MAX);
                    Ok((item.archived, Content::Whole(reader.read(0, length).await.map_err(failed)?)))
                }
            }
        }
    });
    read.try_buffered(AHEAD)
}

/// The file of an item, if it is tiny.
fn tiny(item: &Item) -> Option<&TreeEntry> {
    item.file.as_ref().filter(|file| file.size <= TINY)
}

/// Reads the tiny local files of a batch.
async fn read_tiny(snapshot: Arc<dyn Snapshot>, batch: Vec<Result<Item, Error>>) -> Result<Vec<(Item, Option<Bytes>)>, Error> {
    let batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
    if !batch.iter().any(|item| tiny(item).is_some()) {
        return Ok(batch.into_iter().map(|item| (item, None)).collect());
    }
    let read = move |item: Item| {
        let bytes = tiny(&item).map(|file| snapshot.bytes_here(file).map_err(|error| of_file(file, &error)));
        Ok((item, bytes.transpose()?.flatten()))
    };
    blocking(move || batch.into_iter().map(read).collect()).await
}

fn of_file(file: &TreeEntry, error: &Error) -> Error {
    Error::new(error.kind, format!("reading `{}`: {error}", show(&file.path)))
}
