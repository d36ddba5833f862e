//! Opening blobs: which readers exist, and how a blob comes to have an index.

use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::Budget;
use super::key_probe::Opened;
use super::reader::Reader;
use super::readers::{ReaderKey, Readers};
use super::shared::Shared;
use super::{BlobSource, Config, Error, Lent, Sealing, Verified, attached_index, envelope, names, pass};
use crate::cache::Protection;
use crate::error::ErrorKind;
use crate::flight::Flight;
use crate::layer::{Form, LayerIndex, RAW_SPAN, Resources};
use crate::oci::{Descriptor, Digest, Hasher};
use crate::registry::Pull;
use crate::seal::{EnvelopeHeader, EnvelopeKey, Passphrase};

/// An index, and where it comes from.
#[derive(Clone)]
struct Found {
    index: LayerIndex,
    /// It was attached to the blob; otherwise this program made it.
    attached: bool,
}

struct Inner {
    shared: Arc<Shared>,
    indexing: Flight<ReaderKey, Result<Found, Error>>,
    /// Held for map operations only, never across an await.
    readers: Mutex<Readers>,
}

/// Opens blobs of one registry or layout through one cache. Cheap to clone.
#[derive(Clone)]
pub struct Contents {
    inner: Arc<Inner>,
}

impl Contents {
    /// Blobs of one registry or layout.
    pub fn new(config: Config) -> Self {
        let shared = Arc::new(Shared::new(config));
        let readers = Mutex::new(Readers::new(shared.budget.kept()));
        Self { inner: Arc::new(Inner { shared, indexing: Flight::default(), readers }) }
    }

    /// Bytes received and decoded so far, by anything. What stands still is stuck.
    pub fn progress(&self) -> u64 {
        self.inner.shared.progress()
    }

    /// Lets go of indexes and streams that are not being read.
    pub fn let_go(&self) {
        // They end outside of the lock.
        let kept = self.inner.readers.lock().let_go();
        drop(kept);
    }

    /// Waits for work of this machine, which counts as progress for as long as it goes on.
    pub async fn working<T>(&self, work: impl Future<Output = T>) -> T {
        self.inner.shared.working(work).await
    }

    /// The index of a blob: from the cache, else the one that travels with it, else by one pass over the blob that
    /// also fills the cache.
    ///
    /// # Errors
    /// Integrity, if the blob is not what the manifest says or is not a readable archive; KeyMissing and KeyWrong;
    /// what the registry answers.
    pub async fn index(&self, source: &BlobSource) -> Result<LayerIndex, Error> {
        self.find(source).await.map(|found| found.index)
    }

    async fn find(&self, source: &BlobSource) -> Result<Found, Error> {
        let shared = &self.inner.shared;
        let own = |index| Found { index, attached: false };
        if source.sealing == Sealing::None {
            if let Some(index) = shared.stored_index(source, &names::index(source), &Protection::Plain)? {
                return Ok(own(index));
            }
            if let Some(index) = self.streamed(source)?.as_deref().and_then(Reader::index) {
                return Ok(own(index.clone()));
            }
            if let Some(index) = attached_index::stored(shared, source) {
                return Ok(Found { index, attached: true });
            }
        }
        let task = (Arc::clone(shared), source.clone());
        let target = if self.trusts(source) { ReaderKey::attached(source) } else { ReaderKey::of(source, false) };
        let indexing = self.inner.indexing.run(target, || async move {
            let (shared, source) = task;
            if let Some(index) = attached_index::get(&shared, &source).await? {
                return Ok(Found { index, attached: true });
            }
            match source.sealing {
                Sealing::None => index_plain(&shared, &source).await.map(own),
                Sealing::OciSync => index_sealed(&shared, &source).await.map(own),
            }
        });
        indexing.await.unwrap_or_else(|abandoned| Err(Error::new(ErrorKind::Other, format!("{}: {abandoned}", source.label()))))
    }

    /// The index attached to a blob, where it can be had: what it says of the attributes of a raw blob is said
    /// nowhere else.
    ///
    /// # Errors
    /// Those of a registry that could not be asked.
    pub async fn attached_index(&self, source: &BlobSource) -> Result<Option<LayerIndex>, Error> {
        attached_index::get(&self.inner.shared, source).await
    }

    /// Whether nothing is known against the index attached to a blob.
    pub fn trusts(&self, source: &BlobSource) -> bool {
        use super::verdicts::Verdict;
        matches!(attached_index::verdict(&self.inner.shared, source), None | Some(Verdict::Fine | Verdict::Missing))
    }

    /// Keeps the index of a layer that was just packed here, so that nothing of it has to be fetched; `attached_index` is
    /// the digest of the blob that it travels as. Not for what is encrypted: it is stored as it is. Blocks on the disk.
    pub fn adopt(&self, index: &LayerIndex, attached_index: Option<&Digest>) {
        attached_index::adopt(&self.inner.shared, index, attached_index);
    }

    /// The same for an archive that was sealed here in an envelope. Blocks on the disk.
    ///
    /// # Errors
    /// Integrity if the index is not that of what the envelope holds.
    pub fn adopt_sealed(&self, source: &BlobSource, header: EnvelopeHeader, key: &EnvelopeKey, index: &LayerIndex) -> Result<(), Error> {
        envelope::adopt(&self.inner.shared, source, &Opened { header, key: key.clone() }, index)
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

    /// The key for a new envelope: from the passphrase that opens `source`, else from the first one there is; `None`
    /// if none was given.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; what the registry answers, if the source was never opened here.
    pub async fn seal_key(&self, source: Option<&BlobSource>, salt: [u8; 32]) -> Result<Option<EnvelopeKey>, Error> {
        envelope::key_for(&self.inner.shared, source, salt).await
    }

    /// The same cache, keys and memory, filled from another place that has the blobs at hand.
    pub fn filled_from(&self, pull: Arc<dyn Pull>) -> Self {
        let shared = &self.inner.shared;
        let (keys, verify, io_timeout) = (shared.keys.clone(), shared.policy(), shared.io_timeout);
        let (budget, cache) = (shared.budget.clone(), shared.cache.clone());
        Self::new(Config { keys, verify, io_timeout, budget, concurrency: 1, passes: 1, ..Config::new(pull, cache) })
    }

    /// The memory budget.
    pub fn budget(&self) -> &Budget {
        &self.inner.shared.budget
    }

    /// Resources for making the index of a layer, sealed or not.
    pub fn resources(&self, sealing: Sealing) -> Resources {
        self.inner.shared.resources(sealing)
    }

    /// Tries these passphrases first until the answer is dropped.
    pub fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        self.inner.shared.keys.lend(passphrases)
    }

    /// Whether there may be a passphrase.
    pub fn has_keys(&self) -> bool {
        !self.inner.shared.keys.is_empty()
    }

    /// Whether an encrypted blob was opened or made on this machine, and the keys at hand open it. Asks no registry.
    pub async fn was_opened(&self, source: &BlobSource) -> bool {
        source.sealing == Sealing::OciSync && envelope::was_opened(&self.inner.shared, source).await
    }

    /// A reader that needs no network to be there.
    pub(super) fn ready(&self, source: &BlobSource) -> Result<Option<Arc<Reader>>, Error> {
        let trusted = self.trusts(source);
        // What was shown by an index that turned out wrong is compared with the blob's own first.
        if (source.form == Form::Raw || trusted || attached_index::is_harmless(&self.inner.shared, source))
            && let Some(reader) = self.inner.readers.lock().get(&ReaderKey::of(source, false))
        {
            return Ok(Some(reader));
        }
        if trusted
            && source.index.is_some()
            && let Some(reader) = self.inner.readers.lock().get(&ReaderKey::attached(source))
        {
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
        if let Some(index) = attached_index::stored(shared, source) {
            return Ok(Some(self.add_attached(source, index)));
        }
        // Readers by an index that turned out wrong were told that it is verified.
        if shared.strict(source) || source.descriptor.size <= RAW_SPAN || !trusted || attached_index::is_expected(shared, source) {
            return Ok(None);
        }
        // What turned out wrong while it was served is from then on checked whole before its first byte: bad bytes
        // stay an error, and bytes that the registry has mended are read again.
        if shared.is_poisoned(&names::streaming(&source.descriptor)) {
            return Ok(None);
        }
        let target = ReaderKey::of(source, true);
        let known = self.inner.readers.lock().get(&target);
        match known {
            Some(reader) => Ok(Some(reader)),
            None => Ok(Some(self.inner.readers.lock().add(target, Reader::streaming(shared, source)?))),
        }
    }

    /// The reader of a raw blob that was checked while it was being read.
    fn streamed(&self, source: &BlobSource) -> Result<Option<Arc<Reader>>, Error> {
        if source.form != Form::Raw {
            return Ok(None);
        }
        let shared = &self.inner.shared;
        let target = ReaderKey::of(source, true);
        let known = self.inner.readers.lock().get(&target);
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
            None => self.inner.readers.lock().add(target, Reader::checked(shared, source, index, names::streaming(&source.descriptor))),
        }))
    }

    fn add_checked(&self, source: &BlobSource, index: LayerIndex) -> Arc<Reader> {
        let key = names::stream(&source.descriptor.digest, source.form, source.sealing);
        let reader = Reader::checked(&self.inner.shared, source, index, key);
        self.inner.readers.lock().add(ReaderKey::of(source, false), reader)
    }

    fn add_attached(&self, source: &BlobSource, index: LayerIndex) -> Arc<Reader> {
        let key = source.index.as_ref().map_or(source.descriptor.digest, |by| names::attached(&source.descriptor.digest, &by.digest));
        let reader = Reader::attached(&self.inner.shared, source, index, key);
        self.inner.readers.lock().add(ReaderKey::attached(source), reader)
    }

    /// The reader of a blob, whatever it takes.
    pub(super) async fn reader(&self, source: &BlobSource) -> Result<Arc<Reader>, Error> {
        if source.form == Form::Raw
            && source.sealing == Sealing::None
            && self.attached_index(source).await?.is_none()
            && let Some(reader) = self.ready(source)?
        {
            // Without the index that it names it is read as if it named none.
            return Ok(reader);
        }
        let found = self.find(source).await?;
        if found.attached {
            return Ok(self.add_attached(source, found.index));
        }
        if source.sealing == Sealing::None {
            attached_index::check_entries(&self.inner.shared, source, &found.index)?;
            return match self.ready(source)? {
                Some(reader) => Ok(reader),
                None => Ok(self.add_checked(source, found.index)),
            };
        }
        let index = found.index;
        let shared = &self.inner.shared;
        let opened = envelope::open(shared, source).await?;
        let blob = stored_blob(shared, source).await?;
        let reader = Reader::sealed(shared, source, index, blob, opened);
        Ok(self.inner.readers.lock().add(ReaderKey::of(source, false), reader))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

/// Nothing is ever read of a blob without bytes, so its digest is checked beforehand.
pub(super) fn check_empty(source: &BlobSource) -> Result<(), Error> {
    let Descriptor { digest, size, .. } = &source.descriptor;
    if *size > 0 || Hasher::new(digest.algorithm()).finish() == *digest {
        return Ok(());
    }
    let message = format!("{}: its manifest says that it has no bytes, but its digest is not that of nothing", source.label());
    Err(Error::new(ErrorKind::Integrity, message))
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
    let (storing, source) = (Arc::clone(shared), source.clone());
    let label = source.label();
    let stored = tokio::task::spawn_blocking(move || storing.store_index(&source, &name, index, &Protection::Plain));
    let abandoned = |_| Error::new(ErrorKind::Other, format!("{label}: storing its index was abandoned; see the log"));
    shared.working(stored).await.map_err(abandoned)
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
