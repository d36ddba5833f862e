//! The threads of a packer: spans go to compressors, hashers and the writer in parallel, in reusable buffers.
//!
//! Guarantees: only a few buffers per compressor exist, however long anything waits; the first error stops everything and is returned to the caller; all
//! threads have ended when this is finished or dropped. A single-span layer needs no thread.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::entry::Packing;
use super::stage::{Buffer, Compressor, Entries, Job, Ready, Writer, Written};
use crate::error::Error;
use crate::layer::Resources;
use crate::layer::build::Builder;
use crate::oci::{Algorithm, Digest, Hasher};

/// The result of the pipeline.
pub(super) struct Output {
    pub(super) written: Written,
    pub(super) stream: Digest,
    /// With the entries of a tar.
    pub(super) builder: Option<Builder>,
}

/// The first error, shared by all threads.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Failure {
    fn set(&self, error: Error) {
        self.error.lock().get_or_insert(error);
        self.happened.store(true, Ordering::Release);
    }

    fn happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }

    fn check(&self) -> Result<(), Error> {
        if !self.happened() {
            return Ok(());
        }
        Err(self.error.lock().clone().unwrap_or_else(ended_early))
    }
}

fn ended_early() -> Error {
    Error::other("a thread that packs a layer ended early".to_owned())
}

/// Spans in memory at once: one per compressor, one being filled, and some waiting for each other.
fn buffers(workers: usize) -> usize {
    workers + 3
}

/// Memory needed to pack a layer in bytes: each span and its compressed form, and the compressors.
pub(super) fn memory(workers: usize, span: NonZeroUsize) -> u64 {
    (2 * buffers(workers) * span.get() + workers * super::deflate::MEMORY) as u64
}

/// Turns a stream into its blob.
pub(super) struct Pipeline {
    packing: Packing,
    workers: usize,
    /// Length of every span except the last.
    span: usize,
    resources: Resources,
    /// Until the writer takes it.
    output: Option<Box<dyn Write + Send>>,
    current: Vec<u8>,
    next: u64,
    home: Sender<Vec<u8>>,
    returned: Receiver<Vec<u8>>,
    /// Number of buffers created.
    buffers: usize,
    failure: Arc<Failure>,
    threads: Option<Threads>,
}

impl Pipeline {
    pub(super) fn new(packing: Packing, workers: usize, span: NonZeroUsize, resources: &Resources, output: Box<dyn Write + Send>) -> Self {
        let (home, returned) = channel();
        Self {
            packing,
            workers: workers.max(1),
            span: span.get(),
            resources: resources.clone(),
            output: Some(output),
            current: Vec::new(),
            next: 0,
            home,
            returned,
            buffers: 1,
            failure: Arc::default(),
            threads: None,
        }
    }

    /// Takes the next bytes of the stream.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            // A full span waits for the next byte: only then is it known not to be the last.
            if self.current.len() == self.span {
                self.dispatch(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.span - self.current.len()));
            self.current.extend_from_slice(now);
            bytes = later;
        }
        self.failure.check()
    }

    /// Ends the stream and waits for everything.
    pub(super) fn finish(mut self) -> Result<Output, Error> {
        if self.threads.is_none() {
            return self.finish_alone();
        }
        self.dispatch(true)?;
        let Some(threads) = self.threads.take() else { return Err(ended_early()) };
        let (written, stream, builder) = threads.join();
        self.failure.check()?;
        let written = written.ok_or_else(ended_early)?;
        let stream = if self.packing == Packing::GzipTar { stream.ok_or_else(ended_early)? } else { written.digest };
        if builder.is_none() && self.packing != Packing::Raw {
            return Err(ended_early());
        }
        Ok(Output { written, stream, builder })
    }

    /// A single-span layer.
    fn finish_alone(mut self) -> Result<Output, Error> {
        let Some(output) = self.output.take() else { return Err(ended_early()) };
        let job = self.job(true);
        let buffer = job.buffer.clone();
        let mut writer = Writer::new(self.packing, output);
        writer.accept(Compressor::new(self.packing)?.run(job)?)?;
        let written = writer.finish()?;
        let stream = if self.packing == Packing::GzipTar { Digest::of(&buffer.data) } else { written.digest };
        let builder = match self.packing {
            Packing::Raw => None,
            Packing::GzipTar | Packing::Tar => {
                let mut entries = Entries::new(&self.resources);
                entries.push(&buffer.data)?;
                Some(entries.finish()?)
            }
        };
        Ok(Output { written, stream, builder })
    }

    /// The span being filled.
    fn job(&mut self, last: bool) -> Job {
        let buffer = Arc::new(Buffer { data: std::mem::take(&mut self.current), home: self.home.clone() });
        let number = self.next;
        self.next += 1;
        Job { number, last, buffer }
    }

    /// Hands over the span and gets room for the next one.
    fn dispatch(&mut self, last: bool) -> Result<(), Error> {
        self.failure.check()?;
        if self.threads.is_none() {
            let output = self.output.take().ok_or_else(ended_early)?;
            self.threads = Some(Threads::start(self.packing, self.workers, output, &self.resources, &self.failure)?);
        }
        let job = self.job(last);
        if let Some(threads) = &self.threads {
            threads.send(&job).map_err(|error| self.failure.check().err().unwrap_or(error))?;
        }
        drop(job);
        if last {
            return Ok(());
        }
        if self.buffers < buffers(self.workers) {
            self.buffers += 1;
            self.current = Vec::with_capacity(self.span);
            return Ok(());
        }
        // Every buffer comes back, whatever happened to its content.
        self.current = self.returned.recv().map_err(|_| ended_early())?;
        self.current.clear();
        self.failure.check()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            self.failure.set(Error::other("the layer was given up".to_owned()));
            threads.join();
        }
    }
}

/// A thread that receives every span, and its channel.
type Taker<T> = (Sender<Arc<Buffer>>, JoinHandle<T>);

/// The threads and their channels.
struct Threads {
    jobs: Sender<Job>,
    /// If the stream has its own digest.
    stream: Option<Taker<Digest>>,
    /// If it is a tar.
    entries: Option<Taker<Option<Builder>>>,
    compressors: Vec<JoinHandle<()>>,
    writer: JoinHandle<Option<Written>>,
}

impl Threads {
    fn start(
        packing: Packing,
        workers: usize,
        output: Box<dyn Write + Send>,
        resources: &Resources,
        failure: &Arc<Failure>,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = channel();
        let (ready, written) = channel();
        let shared = failure.clone();
        let writer = spawn(move || write(Writer::new(packing, output), &written, &shared))?;
        let mut threads = Self { jobs, stream: None, entries: None, compressors: Vec::new(), writer };
        match threads.start_others(packing, workers, resources, (waiting, ready), failure) {
            Ok(()) => Ok(threads),
            Err(error) => {
                failure.set(error.clone());
                threads.join();
                Err(error)
            }
        }
    }

    fn start_others(
        &mut self,
        packing: Packing,
        workers: usize,
        resources: &Resources,
        (waiting, ready): (Receiver<Job>, Sender<Result<Ready, Error>>),
        failure: &Arc<Failure>,
    ) -> Result<(), Error> {
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..workers {
            let compressor = Compressor::new(packing)?;
            let (waiting, answer, failure) = (waiting.clone(), ResultSender(ready.clone()), failure.clone());
            self.compressors.push(spawn(move || compress(compressor, &waiting, &answer, &failure))?);
        }
        if packing == Packing::GzipTar {
            let (sender, receiver) = channel();
            self.stream = Some((sender, spawn(move || digest(&receiver))?));
        }
        if packing != Packing::Raw {
            let (sender, receiver) = channel();
            let (failure, entries) = (failure.clone(), Entries::new(resources));
            self.entries = Some((sender, spawn(move || read(entries, &receiver, &failure))?));
        }
        Ok(())
    }

    fn send(&self, job: &Job) -> Result<(), Error> {
        let takers = self.stream.iter().map(|(sender, _)| sender).chain(self.entries.iter().map(|(sender, _)| sender));
        for taker in takers {
            taker.send(job.buffer.clone()).map_err(|_| ended_early())?;
        }
        self.jobs.send(job.clone()).map_err(|_| ended_early())
    }

    /// Waits for all threads. The result of a failed one is missing.
    fn join(self) -> (Option<Written>, Option<Digest>, Option<Builder>) {
        drop(self.jobs);
        for compressor in self.compressors {
            // One that panicked has told the writer.
            let _ = compressor.join();
        }
        let stream = self.stream.and_then(|(sender, thread)| {
            drop(sender);
            thread.join().ok()
        });
        let entries = self.entries.and_then(|(sender, thread)| {
            drop(sender);
            thread.join().ok().flatten()
        });
        (self.writer.join().ok().flatten(), stream, entries)
    }
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let started = thread::Builder::new().name("ocifs-pack".to_owned()).spawn(work);
    started.map_err(|error| Error::other(format!("a thread that packs a layer cannot be started: {error}")))
}

/// A compressor's channel to the writer; reports even if the compressor panics, so that its span is not awaited.
struct ResultSender(Sender<Result<Ready, Error>>);

impl Drop for ResultSender {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Err(ended_early()));
        }
    }
}

fn compress(mut compressor: Compressor, waiting: &Mutex<Receiver<Job>>, answer: &ResultSender, failure: &Failure) {
    loop {
        let job = waiting.lock().recv();
        let Ok(job) = job else { return };
        if failure.happened() {
            continue;
        }
        if answer.0.send(compressor.run(job)).is_err() {
            return;
        }
    }
}

fn write(mut writer: Writer, ready: &Receiver<Result<Ready, Error>>, failure: &Failure) -> Option<Written> {
    // Continues after an error, so that buffers return to a waiting caller.
    for ready in ready {
        if failure.happened() {
            writer.give_up();
        } else if let Err(error) = ready.and_then(|ready| writer.accept(ready)) {
            failure.set(error);
            writer.give_up();
        }
    }
    if failure.happened() {
        return None;
    }
    writer.finish().map_err(|error| failure.set(error)).ok()
}

fn digest(stream: &Receiver<Arc<Buffer>>) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for buffer in stream {
        hasher.update(&buffer.data);
    }
    hasher.finish()
}

fn read(mut entries: Entries, stream: &Receiver<Arc<Buffer>>, failure: &Failure) -> Option<Builder> {
    for buffer in stream {
        if failure.happened() {
            continue;
        }
        if let Err(error) = entries.push(&buffer.data) {
            failure.set(error);
        }
    }
    if failure.happened() {
        return None;
    }
    entries.finish().map_err(|error| failure.set(error)).ok()
}
