//! Opening blobs: which readers exist, and how a blob comes to have an index.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::reader::Reader;
use super::shared::Shared;
use super::{BlobSource, Config, Error, Sealing, Verified, envelope, names, pass};
use crate::cache::Protection;
use crate::error::ErrorKind;
use crate::flight::Flight;
use crate::layer::{Form, LayerIndex, RAW_SPAN};
use crate::oci::{Digest, Repository};

/// Readers that stay open though nobody holds them, so that small files of one layer do not open it each.
const KEPT: usize = 32;
/// Known readers beyond which those that are gone are cleared away.
const KNOWN: usize = 1024;

/// What tells readers apart. The repository is part of it: it decides who may read.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Target {
    repository: Repository,
    digest: Digest,
    size: u64,
    archive: bool,
    sealing: Sealing,
    /// Served while it is not yet checked.
    streaming: bool,
}

impl Target {
    fn of(source: &BlobSource, streaming: bool) -> Self {
        Self {
            repository: source.repository.clone(),
            digest: source.descriptor.digest,
            size: source.descriptor.size,
            archive: source.form == Form::Archive,
            sealing: source.sealing,
            streaming,
        }
    }
}

#[derive(Default)]
struct Readers {
    known: HashMap<Target, Weak<Reader>>,
    /// The most recent last.
    kept: VecDeque<Arc<Reader>>,
}

impl Readers {
    fn get(&mut self, target: &Target) -> Option<Arc<Reader>> {
        let reader = self.known.get(target)?.upgrade()?;
        if let Some(place) = self.kept.iter().position(|kept| Arc::ptr_eq(kept, &reader)) {
            self.kept.remove(place);
        }
        self.keep(&reader);
        Some(reader)
    }

    /// Adds a reader, unless somebody was faster: all must share one.
    fn add(&mut self, target: Target, reader: Arc<Reader>) -> Arc<Reader> {
        if let Some(reader) = self.get(&target) {
            return reader;
        }
        if self.known.len() >= KNOWN {
            self.known.retain(|_, reader| reader.strong_count() > 0);
        }
        self.known.insert(target, Arc::downgrade(&reader));
        self.keep(&reader);
        reader
    }

    fn keep(&mut self, reader: &Arc<Reader>) {
        self.kept.push_back(Arc::clone(reader));
        while self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }
}

struct Inner {
    shared: Arc<Shared>,
    indexing: Flight<Target, Result<LayerIndex, Error>>,
    /// Held for map operations only, never across an await.
    readers: Mutex<Readers>,
}

/// Opens blobs of one registry or layout through one cache. Cheap to clone.
#[derive(Clone)]
pub struct Contents {
    inner: Arc<Inner>,
}

/// An open logical stream. Cheap to clone.
#[derive(Clone)]
pub struct ContentStream {
    inner: Arc<Opened>,
}

enum Opened {
    /// A blob.
    Blob {
        contents: Contents,
        source: Box<BlobSource>,
        /// Empty until the first read of a raw blob that has to be checked whole.
        reader: OnceCell<Arc<Reader>>,
    },
    /// Bytes that are here already.
    Bytes(Bytes),
}

impl Contents {
    /// Blobs of one registry or layout.
    pub fn new(config: Config) -> Self {
        let shared = Arc::new(Shared::new(config));
        Self { inner: Arc::new(Inner { shared, indexing: Flight::default(), readers: Mutex::default() }) }
    }

    /// Bytes received and decoded so far, by anything. What stands still is stuck.
    pub fn progress(&self) -> u64 {
        self.inner.shared.progress()
    }

    /// The index of a blob: from the cache, or by one pass over the blob that also fills the cache.
    ///
    /// # Errors
    /// Integrity, if the blob is not what the manifest says or is no readable archive; KeyMissing and KeyWrong;
    /// what the registry answers.
    pub async fn index(&self, source: &BlobSource) -> Result<LayerIndex, Error> {
        let shared = &self.inner.shared;
        if source.sealing == Sealing::None {
            if let Some(index) = shared.stored_index(source, &names::index(source), &Protection::Plain)? {
                return Ok(index);
            }
            if let Some(index) = self.streamed(source)?.as_deref().and_then(Reader::index) {
                return Ok(index.clone());
            }
        }
        let task = (Arc::clone(shared), source.clone());
        let indexing = self.inner.indexing.run(Target::of(source, false), || async move {
            let (shared, source) = task;
            match source.sealing {
                Sealing::None => index_plain(&shared, &source).await,
                Sealing::OciSync => index_sealed(&shared, &source).await,
            }
        });
        indexing.await.unwrap_or_else(|abandoned| Err(Error::new(ErrorKind::Other, format!("{}: {abandoned}", source.label()))))
    }

    /// The logical stream of a blob. An archive is indexed first; a raw blob costs nothing here.
    ///
    /// # Errors
    /// Those of [`Contents::index`].
    pub async fn open(&self, source: &BlobSource) -> Result<ContentStream, Error> {
        let reader = match self.ready(source)? {
            Some(reader) => Some(reader),
            None if source.form == Form::Raw && source.sealing == Sealing::None => None,
            None => Some(self.reader(source).await?),
        };
        let reader = OnceCell::new_with(reader);
        Ok(ContentStream { inner: Arc::new(Opened::Blob { contents: self.clone(), source: Box::new(source.clone()), reader }) })
    }

    /// How what is derived from a blob has to be stored: sealed, if it comes from an encrypted artifact. Derive a
    /// key of your own from it for each thing.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; what the registry answers, if the blob was never opened here.
    pub async fn protection(&self, source: &BlobSource) -> Result<Protection, Error> {
        match source.sealing {
            Sealing::None => Ok(Protection::Plain),
            Sealing::OciSync => Ok(envelope::open(&self.inner.shared, source).await?.protection(source, "derived")),
        }
    }

    /// A reader that needs no network to be there.
    fn ready(&self, source: &BlobSource) -> Result<Option<Arc<Reader>>, Error> {
        if let Some(reader) = self.readers().get(&Target::of(source, false)) {
            return Ok(Some(reader));
        }
        if source.form != Form::Raw || source.sealing != Sealing::None {
            return Ok(None);
        }
        let shared = &self.inner.shared;
        if let Some(index) = shared.stored_index(source, &names::index(source), &Protection::Plain)? {
            return Ok(Some(self.add_checked(source, index)));
        }
        if let Some(reader) = self.streamed(source)? {
            return Ok(Some(reader));
        }
        if shared.strict(source) || source.descriptor.size <= RAW_SPAN {
            return Ok(None);
        }
        // What turned out wrong while it was served is from then on checked whole before its first byte: bad bytes
        // stay an error, and bytes that the registry has mended are read again.
        if shared.is_poisoned(&names::streaming(&source.descriptor)) {
            return Ok(None);
        }
        let target = Target::of(source, true);
        let known = self.readers().get(&target);
        match known {
            Some(reader) => Ok(Some(reader)),
            None => Ok(Some(self.readers().add(target, Reader::streaming(shared, source)?))),
        }
    }

    /// The reader of a raw blob that was checked while it was being read.
    fn streamed(&self, source: &BlobSource) -> Result<Option<Arc<Reader>>, Error> {
        if source.form != Form::Raw {
            return Ok(None);
        }
        let shared = &self.inner.shared;
        let target = Target::of(source, true);
        let known = self.readers().get(&target);
        if let Some(reader) = known.as_ref().filter(|reader| reader.verified() == Verified::Whole) {
            return Ok(Some(Arc::clone(reader)));
        }
        let Some(index) = shared.stored_index(source, &names::streamed_index(&source.descriptor), &Protection::Plain)? else {
            return Ok(None);
        };
        Ok(Some(match known {
            Some(reader) => {
                reader.adopt(index);
                reader
            }
            None => self.readers().add(target, Reader::checked(shared, source, index, names::streaming(&source.descriptor))),
        }))
    }

    fn add_checked(&self, source: &BlobSource, index: LayerIndex) -> Arc<Reader> {
        let key = names::stream(&source.descriptor.digest, source.form, source.sealing);
        let reader = Reader::checked(&self.inner.shared, source, index, key);
        self.readers().add(Target::of(source, false), reader)
    }

    /// The reader of a blob, whatever it takes.
    async fn reader(&self, source: &BlobSource) -> Result<Arc<Reader>, Error> {
        let index = self.index(source).await?;
        if source.sealing == Sealing::None {
            return match self.ready(source)? {
                Some(reader) => Ok(reader),
                None => Ok(self.add_checked(source, index)),
            };
        }
        let shared = &self.inner.shared;
        let opened = envelope::open(shared, source).await?;
        let blob = stored_blob(shared, source).await?;
        let reader = Reader::sealed(shared, source, index, blob, opened);
        Ok(self.readers().add(Target::of(source, false), reader))
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Readers> {
        self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the index of a blob by one pass, unless another daemon did so meanwhile.
async fn index_plain(shared: &Arc<Shared>, source: &BlobSource) -> Result<LayerIndex, Error> {
    let name = names::index(source);
    let _claim = shared.claim(&format!("{}.{name}", names::INDEX)).await;
    if let Some(index) = shared.stored_index(source, &name, &Protection::Plain)? {
        return Ok(index);
    }
    let key = names::stream(&source.descriptor.digest, source.form, source.sealing);
    let (index, _) = pass::run(shared, source, shared.fill(&key, &Protection::Plain), None).await?;
    Ok(shared.store_index(source, &name, index, &Protection::Plain))
}

/// The same for what lies in an envelope: the tag is checked first, then the ciphertext is read once more.
async fn index_sealed(shared: &Arc<Shared>, source: &BlobSource) -> Result<LayerIndex, Error> {
    let opened = envelope::open(shared, source).await?;
    let protection = opened.protection(source, "index");
    let name = names::index(source);
    if let Some(index) = shared.stored_index(source, &name, &protection)? {
        return Ok(index);
    }
    let _claim = shared.claim(&format!("{}.{name}", names::INDEX)).await;
    if let Some(index) = shared.stored_index(source, &name, &protection)? {
        return Ok(index);
    }
    let blob = stored_blob(shared, source).await?;
    let index = envelope::index(shared, source, &opened, &blob).await?;
    let index = shared.store_index(source, &name, index, &protection);
    // The sealed cache has it now; the ciphertext only stood in until then.
    shared.forget_stream(&blob.key);
    Ok(index)
}

/// A reader of the ciphertext that an envelope's contents come from.
async fn stored_blob(shared: &Arc<Shared>, source: &BlobSource) -> Result<Arc<Reader>, Error> {
    let stored = envelope::as_stored(source);
    let index = index_plain(shared, &stored).await?;
    Ok(Reader::transient(shared, &stored, index))
}

impl ContentStream {
    /// A stream of bytes that were checked elsewhere (a manifest).
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self { inner: Arc::new(Opened::Bytes(bytes)) }
    }

    /// Length of the stream in bytes (for a raw blob that was never read whole: as claimed).
    pub fn length(&self) -> u64 {
        match &*self.inner {
            Opened::Blob { source, reader, .. } => reader.get().map_or(source.descriptor.size, |reader| reader.length()),
            Opened::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// How far it is verified. What is not there yet is served only once it was checked.
    pub fn verified(&self) -> Verified {
        match &*self.inner {
            Opened::Blob { reader, .. } => reader.get().map_or(Verified::Whole, |reader| reader.verified()),
            Opened::Bytes(_) => Verified::Whole,
        }
    }

    /// Bytes of a range, all of them or an error; clipped to the stream. Completes at once (without suspending)
    /// when everything is in the cache, so that a FUSE thread can answer by itself. Sequential calls prefetch.
    ///
    /// # Errors
    /// Those of [`Contents::index`].
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        match &*self.inner {
            Opened::Blob { contents, source, reader } => {
                let reader = match reader.get() {
                    Some(reader) => reader,
                    None => reader.get_or_try_init(|| contents.reader(source)).await?,
                };
                reader.read(range).await
            }
            Opened::Bytes(bytes) => {
                let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(place(range.start).min(place(range.end))..place(range.end)))
            }
        }
    }
}
