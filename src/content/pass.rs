//! The first pass over a blob: all of it in one request, hashed on one thread while another decompresses, indexes and fills the cache. Nothing becomes
//! visible before the digest is verified.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::blob_bytes::{BlobBytes, Places};
use super::sealed::probe::KeyProbe;
use super::shared::Shared;
use super::spool::Spooled;
use super::{BlobSource, names};
use crate::blocking::{Spawned, spawn_blocking};
use crate::cache::Fill;
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex, Scan, SpanSink};
use crate::oci::{Digest, Hasher};

/// Pieces in a queue, and their largest size: 4 MiB per pass, shared by both threads.
const QUEUE: usize = 16;
const PIECE: usize = 256 << 10;

/// The result of the hashing thread.
struct Hashed {
    digest: Digest,
    length: u64,
    probe: Option<KeyProbe>,
    spooled: Option<Spooled>,
}

/// A pass over a blob.
enum Passed {
    /// It is right; its index, and the probe that saw all of it.
    Right(Box<(LayerIndex, Option<KeyProbe>)>),
    /// Its bytes do not match its digest; whether some of them came from the cache.
    Wrong(Error, bool),
}

/// Reads a blob whole, and again as long as its bytes are wrong and another place has it. `prepare` makes what takes its bytes: the fill of the
/// cache, and the probe, which is returned finished.
pub(super) async fn run(
    shared: &Arc<Shared>,
    source: &BlobSource,
    prepare: impl Fn() -> Result<(Option<Fill>, Option<KeyProbe>), Error>,
) -> Result<(LayerIndex, Option<KeyProbe>), Error> {
    let _turn = shared.turns.pass().await?;
    let mut places = Places::All;
    loop {
        let (error, were_cached) = match once(shared, source, places, prepare()?).await? {
            Passed::Right(found) => return Ok(*found),
            Passed::Wrong(error, were_cached) => (error, were_cached),
        };
        let (repository, digest) = (&source.repository, &source.descriptor.digest);
        places = places.after_wrong(shared, repository, digest, were_cached).ok_or(error)?;
    }
}

async fn once(
    shared: &Arc<Shared>,
    source: &BlobSource,
    places: Places,
    (fill, probe): (Option<Fill>, Option<KeyProbe>),
) -> Result<Passed, Error> {
    let size = source.descriptor.size;
    tracing::debug!(size, "reading {} completely to index it", source.label());
    let mut bytes = BlobBytes::find(shared, (&source.repository, &source.descriptor), 0..size, places).await?;
    let scan = ScanThread::start(shared, source, fill);
    let (to_hash, pieces) = mpsc::channel(QUEUE);
    let algorithm = Hasher::new(source.descriptor.digest.algorithm());
    let spooled = if bytes.is_complete() { None } else { shared.spool.begin(source.descriptor.size) };
    let hashing = spawn_blocking(move || hash(algorithm, pieces, probe, spooled));
    let sent = download(source, &mut bytes, &to_hash, &scan.pieces).await;
    drop(to_hash);
    let hashed = hashing.await?;
    sent?;
    if let Err(error) = check(source, &hashed.digest, hashed.length) {
        return Ok(Passed::Wrong(error, bytes.were_cached()));
    }
    if let Some(spooled) = hashed.spooled {
        shared.spool.add(hashed.digest, spooled);
    }
    let index = shared.working(scan.finish(source, hashed.digest)).await?;
    if source.form == Form::Raw && !bytes.were_cached() {
        shared.fetched_raw.put(names::stream(&source.descriptor.digest, source.form, source.sealing), ());
    }
    Ok(Passed::Right(Box::new((index, hashed.probe))))
}

/// The thread that scans a logical blob piece by piece.
pub(super) struct ScanThread {
    /// Receives the pieces; both queues are bounded.
    pub(super) pieces: mpsc::Sender<Bytes>,
    verdict: oneshot::Sender<Digest>,
    scanning: Spawned<Option<Result<LayerIndex, Error>>>,
}

impl ScanThread {
    /// Starts the thread.
    pub(super) fn start(shared: &Arc<Shared>, source: &BlobSource, fill: Option<Fill>) -> Self {
        let scan = Scan::new(source.form, &shared.resources(source.sealing));
        let shared = Arc::clone(shared);
        let (pieces, queue) = mpsc::channel(QUEUE);
        let (verdict, verdict_later) = oneshot::channel();
        let scanning = spawn_blocking(move || run_scan(&shared, scan, fill, queue, verdict_later));
        Self { pieces, verdict, scanning }
    }

    /// Ends the scan after the digest was verified: the fill becomes visible.
    pub(super) async fn finish(self, source: &BlobSource, digest: Digest) -> Result<LayerIndex, Error> {
        let Self { pieces, verdict, scanning } = self;
        drop(pieces);
        // A thread that ended early is reported when it is joined.
        let _ = verdict.send(digest);
        match scanning.await {
            Ok(Some(result)) => result.map_err(|error| broken(source, &error)),
            _ => Err(abandoned(source)),
        }
    }
}

/// Splits incoming data, so that queues bounded in pieces are bounded in bytes.
pub(super) fn pieces(data: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    (0..data.len()).step_by(PIECE).map(|start| data.slice(start..data.len().min(start + PIECE)))
}

async fn download(source: &BlobSource, bytes: &mut BlobBytes, hash: &mpsc::Sender<Bytes>, scan: &mpsc::Sender<Bytes>) -> Result<(), Error> {
    let subject = format!("{}: no byte", source.label());
    while let Some(piece) = bytes.next(&subject).await? {
        for piece in pieces(&piece) {
            let gone = hash.send(piece.clone()).await.is_err() || scan.send(piece).await.is_err();
            if gone {
                return Err(abandoned(source));
            }
        }
    }
    Ok(())
}

fn hash(mut hasher: Hasher, mut pieces: mpsc::Receiver<Bytes>, mut probe: Option<KeyProbe>, mut spooled: Option<Spooled>) -> Hashed {
    let mut length = 0;
    while let Some(piece) = pieces.blocking_recv() {
        length += piece.len() as u64;
        hasher.update(&piece);
        if let Some(probe) = &mut probe {
            probe.update(&piece);
        }
        spooled = spooled.and_then(|spooled| spooled.with(&piece));
    }
    Hashed { digest: hasher.finish(), length, probe, spooled }
}

/// Compares what arrived with the manifest.
pub(super) fn check(source: &BlobSource, digest: &Digest, length: u64) -> Result<(), Error> {
    let expected = source.descriptor.digest;
    if *digest == expected && length == source.descriptor.size {
        return Ok(());
    }
    let message = format!(
        "{}: the registry's bytes do not match: expected {expected} with {} bytes, found {digest} with {length} bytes; nothing of it is served or kept",
        source.label(),
        source.descriptor.size,
    );
    tracing::error!("{message}");
    Err(Error::new(ErrorKind::Integrity, message))
}

fn broken(source: &BlobSource, error: &Error) -> Error {
    let message = match source.form {
        Form::Archive if error.kind == ErrorKind::Unsupported => format!("{}: {error}", source.label()),
        Form::Archive => format!("{}: its digest is right, but the archive is broken as published: {error}", source.label()),
        Form::Raw => format!("{}: {error}", source.label()),
    };
    Error::new(error.kind, message)
}

fn abandoned(source: &BlobSource) -> Error {
    Error::new(ErrorKind::Other, format!("{}: reading it was abandoned; see the log", source.label()))
}

/// Scans incoming data and waits for the verdict on it. `None` if the verdict never comes.
fn run_scan(
    shared: &Shared,
    mut scan: Scan,
    fill: Option<Fill>,
    mut pieces: mpsc::Receiver<Bytes>,
    verdict: oneshot::Receiver<Digest>,
) -> Option<Result<LayerIndex, Error>> {
    let mut sink = Filling { fill };
    let mut failure = None;
    while let Some(piece) = pieces.blocking_recv() {
        shared.moved(piece.len());
        // After a failure the rest is still consumed: the digest decides whose fault it was.
        if failure.is_none()
            && let Err(error) = scan.push(&piece, &mut sink)
        {
            failure = Some(error);
            sink.fill = None;
        }
    }
    let digest = verdict.blocking_recv().ok()?;
    if let Some(error) = failure {
        return Some(Err(error));
    }
    Some(scan.finish(digest, &mut sink).inspect(|_| sink.commit()))
}

/// Passes spans to the cache. If the cache fails, spans are only fetched again.
struct Filling {
    fill: Option<Fill>,
}

impl Filling {
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Fill) -> Result<T, Error>) {
        if let Some(fill) = &mut self.fill
            && let Err(error) = work(fill)
        {
            tracing::warn!(%error, "continuing without the cache");
            self.fill = None;
        }
    }

    fn commit(&mut self) {
        if let Some(fill) = self.fill.take()
            && let Err(error) = fill.commit()
        {
            tracing::warn!(%error, "cannot cache the blob that was read");
        }
    }
}

impl SpanSink for Filling {
    fn member(&mut self, stream: Range<u64>) -> Result<(), Error> {
        self.attempt(|fill| fill.member(stream));
        Ok(())
    }

    fn span(&mut self, _number: u32, _stream: Range<u64>, data: &[u8]) -> Result<(), Error> {
        self.attempt(|fill| fill.span(data));
        Ok(())
    }
}
