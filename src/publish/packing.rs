//! Packing the layers of a plan, a few at a time: the snapshot is walked once more, bytes are read ahead, threads compress.
//!
//! Only the layers that are wanted are packed. Memory is bounded by a group's names and a few MiB for each layer that is being
//! packed. What was packed is compared with what was planned, so no layer ever holds anything else than its name says.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::Error;
use super::plan::groups::{Assigner, Placement};
use super::plan::identity::{archived, of_index};
use super::plan::parents::{Above, Named};
use super::plan::{LayerPlan, Plan, Selector};
use super::seal::Sealed;
use super::snapshot::{FirstNames, Snapshot, show};
use super::store::{Ready, Store};
use crate::artifact::Kind;
use crate::content::{Budget, Use};
use crate::error::ErrorKind;
use crate::layer::{PackEntry, Packed, Packer, Packing, attached_index_memory};
use crate::view::{self, FrozenEntry};

/// Files up to this size are read whole, several ahead.
const SMALL: u64 = 128 << 10;
const AHEAD: usize = 8;
/// Larger ones are read in pieces of this size.
const PIECE: u32 = 1 << 20;
/// Pieces on their way to the packer.
const PIECES: usize = 4;
/// Entries on their way to a layer that takes the whole walk.
const ENTRIES: usize = 256;

/// An entry and, for a regular file with bytes, where they come from.
struct Item {
    archived: PackEntry,
    file: Option<FrozenEntry>,
}

/// A layer whose entries are known.
pub(super) struct Job {
    /// Its number in the plan.
    pub number: usize,
    items: mpsc::Receiver<Item>,
}

/// Walks the snapshot again and hands out the wanted layers as their entries are complete (or, for a layer that takes the whole
/// walk, at once).
pub(super) fn jobs(snapshot: Arc<dyn Snapshot>, plan: Arc<Plan>, wanted: Vec<bool>) -> mpsc::Receiver<Result<Job, Error>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let walked = match &plan.selector {
            Selector::Groups(totals) => groups(&*snapshot, &plan, &wanted, Assigner::new(totals), &sender),
            Selector::All | Selector::Chosen(_) => single(&*snapshot, &plan, &wanted, &sender),
            Selector::Each(files) => each(&*snapshot, files, &wanted, &sender),
        };
        if let Err(error) = walked {
            // The receiver is gone: the publish was stopped.
            let _ = sender.blocking_send(Err(error.into()));
        }
    });
    receiver
}

type Jobs = mpsc::Sender<Result<Job, Error>>;

fn stopped() -> view::Error {
    view::Error::new(ErrorKind::Interrupted, "stopped")
}

/// A group whose entries are not complete.
#[derive(Default)]
struct Open {
    entries: Vec<FrozenEntry>,
    /// How many of them are of the walk.
    taken: u64,
    named: Named,
}

impl Open {
    fn add(&mut self, entry: FrozenEntry, above: &Above, packing: Packing) {
        if packing != Packing::Raw {
            self.entries.extend(self.named.missing(above, &entry));
        }
        self.entries.push(entry);
        self.taken += 1;
    }
}

fn groups(snapshot: &dyn Snapshot, plan: &Plan, wanted: &[bool], mut assigner: Assigner, jobs: &Jobs) -> Result<(), view::Error> {
    let mut open: HashMap<u32, Open> = HashMap::new();
    let mut above = Above::default();
    snapshot.walk(&mut |entry| {
        above.step(&entry);
        let (Placement::Group(group) | Placement::Alone(group)) = assigner.place(&entry) else { return Ok(()) };
        let number = group as usize;
        let Some(layer) = plan.layers.get(number).filter(|_| wanted.get(number) == Some(&true)) else { return Ok(()) };
        let layer_open = open.entry(group).or_default();
        layer_open.add(entry, &above, layer.packing);
        if layer_open.taken == layer.entries
            && let Some(Open { entries, .. }) = open.remove(&group)
        {
            let (items, receiver) = mpsc::channel(entries.len().saturating_add(layer.behind.len()).max(1));
            for entry in entries {
                items.try_send(item(entry, None)).map_err(|_| stopped())?;
            }
            send_behind(layer, &items)?;
            jobs.blocking_send(Ok(Job { number, items: receiver })).map_err(|_| stopped())?;
        }
        Ok(())
    })?;
    if open.is_empty() { Ok(()) } else { Err(view::Error::new(ErrorKind::Other, "the frozen tree changed while it was packed")) }
}

fn single(snapshot: &dyn Snapshot, plan: &Plan, wanted: &[bool], jobs: &Jobs) -> Result<(), view::Error> {
    let Some(layer) = plan.layers.first().filter(|_| wanted.first() == Some(&true)) else { return Ok(()) };
    let (items, receiver) = mpsc::channel(ENTRIES);
    jobs.blocking_send(Ok(Job { number: 0, items: receiver })).map_err(|_| stopped())?;
    let mut names = FirstNames::default();
    snapshot.walk(&mut |entry| {
        if let Selector::Chosen(paths) = &plan.selector
            && !paths.contains(&entry.path)
        {
            return Ok(());
        }
        let first = names.of(&entry).map(<[u8]>::to_vec);
        items.blocking_send(item(entry, first.as_deref())).map_err(|_| stopped())
    })?;
    for entry in &layer.behind {
        items.blocking_send(Item { archived: entry.clone(), file: None }).map_err(|_| stopped())?;
    }
    Ok(())
}

fn each(snapshot: &dyn Snapshot, files: &HashMap<Vec<u8>, usize>, wanted: &[bool], jobs: &Jobs) -> Result<(), view::Error> {
    snapshot.walk(&mut |entry| {
        let Some(number) = files.get(&entry.path).copied().filter(|number| wanted.get(*number) == Some(&true)) else { return Ok(()) };
        let (items, receiver) = mpsc::channel(1);
        items.try_send(item(entry, None)).map_err(|_| stopped())?;
        jobs.blocking_send(Ok(Job { number, items: receiver })).map_err(|_| stopped())
    })
}

fn send_behind(layer: &LayerPlan, items: &mpsc::Sender<Item>) -> Result<(), view::Error> {
    layer.behind.iter().try_for_each(|entry| items.try_send(Item { archived: entry.clone(), file: None }).map_err(|_| stopped()))
}

fn item(entry: FrozenEntry, first: Option<&[u8]>) -> Item {
    let archived = archived(&entry, first);
    let file = (first.is_none() && entry.kind == Kind::File && entry.size > 0).then_some(entry);
    Item { archived, file }
}

/// A message to the packing thread.
enum Command {
    Begin(PackEntry),
    Data(Bytes),
    End,
}

/// How one layer is packed.
pub(super) struct How<'a> {
    pub snapshot: &'a Arc<dyn Snapshot>,
    pub store: &'a Store,
    /// Threads that compress.
    pub workers: usize,
    /// The envelope around it.
    pub sealed: Option<Sealed>,
    /// Whether its index may be attached.
    pub with_index: bool,
    /// Bytes of a span.
    pub span: NonZeroUsize,
    /// Bytes read so far, of all layers.
    pub read: &'a Arc<AtomicU64>,
    pub budget: &'a Budget,
    /// Hears of them.
    pub told: &'a (dyn Fn() + Send + Sync),
}

/// Bytes of memory that packing a layer takes, with what is read ahead for it.
pub(super) fn memory(workers: usize, span: NonZeroUsize) -> u64 {
    Packer::memory(workers, span) + AHEAD as u64 * SMALL + (PIECES as u64 + 1) * u64::from(PIECE)
}

/// Packs one layer.
pub(super) async fn pack(layer: &LayerPlan, job: Job, how: How<'_>) -> Result<Ready, Error> {
    let granted = how.budget.take(Use::Packing, memory(how.workers, how.span)).await?;
    let (commands, receiver) = mpsc::channel(PIECES);
    let (draft, sealed) = (how.store.draft(&layer.identity), how.sealed.clone());
    let (packing, workers, span, resources) = (layer.packing, how.workers, how.span, how.store.resources().clone());
    // A raw layer that is a file of this machine is described, not copied.
    let title = layer.title.as_deref().filter(|_| packing == Packing::Raw && sealed.is_none());
    let in_place = title.and_then(|title| how.snapshot.on_disk(title.as_bytes()));
    let is_copied = in_place.is_none();
    let thread = tokio::task::spawn_blocking(move || {
        let create = || File::create(&draft).map_err(|error| Error::disk("making", &draft, &error));
        match sealed {
            None => {
                let file: Box<dyn Write + Send> = if is_copied { Box::new(create()?) } else { Box::new(io::sink()) };
                let packed = drive(Packer::with_span(packing, workers, span, &resources, file), receiver)?;
                let blob = packed.blob;
                Ok((packed, blob))
            }
            Some(sealed) => {
                let writer = sealed.writer(BufWriter::with_capacity(256 << 10, create()?))?;
                let packed = drive(Packer::with_span(packing, workers, span, &resources, Box::new(writer.clone())), receiver)?;
                let blob = writer.finish()?;
                Ok::<_, Error>((packed, blob))
            }
        }
    });
    let fed = feed(job, &how, &commands).await;
    drop(commands);
    let (packed, blob) = match (thread.await, fed) {
        (Ok(Ok(done)), Ok(())) => done,
        // The reader's failure is the reason why the packer was not told to end.
        (_, Err(Some(error))) | (Ok(Err(error)), _) => return Err(error),
        (Ok(_), Err(None)) => return Err(Error::other("packing a layer ended early")),
        (Err(error), _) => return Err(Error::other(format!("packing a layer: {error}"))),
    };
    if of_index(&packed.index, layer.packing, layer.title.as_deref()) != Some(layer.identity) {
        return Err(Error::new(
            ErrorKind::Integrity,
            "what was packed is not what was planned: a file changed meanwhile, and not through the mount",
        ));
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

/// Runs something that blocks.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::other(format!("a task of a publish ended early: {error}")))?
}

fn drive(mut packer: Packer, mut commands: mpsc::Receiver<Command>) -> Result<Packed, Error> {
    while let Some(command) = commands.blocking_recv() {
        match command {
            Command::Begin(entry) => packer.begin(&entry)?,
            Command::Data(bytes) => packer.data(&bytes)?,
            Command::End => return Ok(packer.finish()?),
        }
    }
    Err(Error::new(ErrorKind::Interrupted, "stopped"))
}

/// The bytes of an item, as far as they are read ahead.
enum Content {
    None,
    Whole(Bytes),
    Later(FrozenEntry),
}

/// Sends everything to the packer. `Err(None)`: it does not listen any more, and says itself why.
async fn feed(job: Job, how: &How<'_>, commands: &mpsc::Sender<Command>) -> Result<(), Option<Error>> {
    let send = |command| async { commands.send(command).await.map_err(|_| None) };
    let mut contents = Box::pin(read_ahead(job.items, Arc::clone(how.snapshot)));
    while let Some(read) = contents.next().await {
        let (entry, content) = read.map_err(Some)?;
        send(Command::Begin(entry)).await?;
        match content {
            Content::None => {}
            Content::Whole(bytes) => {
                how.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                send(Command::Data(bytes)).await?;
            }
            Content::Later(file) => {
                let failed = |error: view::Error| Some(of_file(&file, &error));
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
                    send(Command::Data(bytes)).await?;
                }
            }
        }
        (how.told)();
    }
    send(Command::End).await
}

fn read_ahead(items: mpsc::Receiver<Item>, snapshot: Arc<dyn Snapshot>) -> impl Stream<Item = Result<(PackEntry, Content), Error>> {
    let items = stream::unfold(items, |mut items| async move { items.recv().await.map(|item| (item, items)) });
    let read = items.map(move |item| {
        let snapshot = Arc::clone(&snapshot);
        async move {
            match item.file {
                None => Ok((item.archived, Content::None)),
                Some(file) if file.size > SMALL => Ok((item.archived, Content::Later(file))),
                Some(file) => {
                    let failed = |error: view::Error| of_file(&file, &error);
                    let reader = snapshot.open(&file).await.map_err(failed)?;
                    let length = u32::try_from(file.size).unwrap_or(u32::MAX);
                    Ok((item.archived, Content::Whole(reader.read(0, length).await.map_err(failed)?)))
                }
            }
        }
    });
    read.buffered(AHEAD)
}

fn of_file(file: &FrozenEntry, error: &view::Error) -> Error {
    Error::new(error.kind, format!("reading `{}`: {error}", show(&file.path)))
}
