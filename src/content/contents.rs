//! Opens blobs: executes the plan for reading each, and builds or fetches the index it needs.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::budget::Budget;
use super::plan::{self, Facts, Plan, Step};
use super::reader::{Mode, Reader};
use super::readers::{ReaderKey, Readers};
use super::sealed::envelope;
use super::sealed::probe::Opened;
use super::shared::Shared;
use super::{BlobSource, Config, Guide, Lent, Sealing, Verified, VerifyPolicy, attached_index, fetch, names, pass};
use crate::blocking::spawn_blocking;
use crate::cache::Protection;
use crate::error::{Error, ErrorKind};
use crate::flight::Flight;
use crate::layer::{Form, LayerIndex, Resources};
use crate::oci::{Descriptor, Digest, Hasher};
use crate::registry::{Pull, Trust};
use crate::seal::{EnvelopeHeader, EnvelopeKey, Passphrase};

struct Inner {
    shared: Arc<Shared>,
    /// Passes over whole blobs in progress.
    passes: Flight<ReaderKey, Result<LayerIndex, Error>>,
    /// Locked for map operations only, never across an await.
    readers: Mutex<Readers>,
}

/// Opens blobs of one registry or layout through a cache. Cheap to clone.
#[derive(Clone)]
pub struct Contents {
    inner: Arc<Inner>,
}

impl Contents {
    /// Blobs of one registry or layout.
    pub fn new(config: Config) -> Self {
        let shared = Arc::new(Shared::new(config));
        let readers = Mutex::new(Readers::new(shared.budget.kept()));
        Self { inner: Arc::new(Inner { shared, passes: Flight::default(), readers }) }
    }

    /// Total bytes received and decoded. If it stands still, something is stuck.
    pub fn progress(&self) -> u64 {
        self.inner.shared.progress()
    }

    /// Releases indexes and streams that are not being read.
    pub fn let_go(&self) {
        // Dropped outside the lock.
        let kept = self.inner.readers.lock().let_go();
        drop(kept);
    }

    /// Awaits local work, which counts as progress while it lasts.
    pub async fn working<T>(&self, work: impl Future<Output = T>) -> T {
        self.inner.shared.working(work).await
    }

    /// The index of a blob: from the cache, else the attached one, else built in one pass over the blob that also fills the cache.
    ///
    /// # Errors
    /// Integrity if the blob does not match the manifest or is not a readable archive; KeyMissing and KeyWrong; errors of the registry.
    pub async fn index(&self, source: &BlobSource) -> Result<LayerIndex, Error> {
        match self.plan(source).await? {
            (_, Some(index)) => Ok(index),
            (_, None) => self.read_whole(source).await,
        }
    }

    /// How to read a blob, and through which index; fetches or builds what is missing.
    async fn plan(&self, source: &BlobSource) -> Result<(Plan, Option<LayerIndex>), Error> {
        loop {
            let (facts, index) = self.facts(source)?;
            match plan::choose(&facts) {
                Step::Read(plan) => return Ok((plan, index)),
                // If it turns out not to exist, the next facts say so.
                Step::FetchIndex => {
                    if let Some(index) = attached_index::get(&self.inner.shared, source).await? {
                        return Ok((Plan::Attached, Some(index)));
                    }
                }
                Step::ReadWhole => return self.read_whole(source).await.map(|index| (Plan::Indexed, Some(index))),
                Step::Unseal => return self.read_whole(source).await.map(|index| (Plan::Sealed, Some(index))),
            }
        }
    }

    /// The facts about a blob, and its index if present. Makes no request.
    fn facts(&self, source: &BlobSource) -> Result<(Facts, Option<LayerIndex>), Error> {
        let shared = &self.inner.shared;
        let (form, size, is_sealed) = (source.form, source.descriptor.size, source.is_sealed());
        // What is shown by a table is in other places of the blob's own stream.
        let own = match is_sealed || source.has_table() || plan::is_single(form, is_sealed, size) {
            true => None,
            false => shared.stored_index(source, &names::index(source), &Protection::Plain)?,
        };
        let (attached, stored) = match &own {
            Some(_) => (plan::Attached::None, None),
            None => attached_index::state(shared, source),
        };
        let was_wrong = shared.is_poisoned(&names::stream(&source.descriptor.digest, form, source.sealing));
        let facts = Facts { form, is_sealed, size, is_indexed: own.is_some(), attached, strict: shared.strict(source), was_wrong };
        Ok((facts, own.or(stored)))
    }

    /// Builds the index in a pass over the whole blob, unless another task or process has done so.
    async fn read_whole(&self, source: &BlobSource) -> Result<LayerIndex, Error> {
        let task = (Arc::clone(&self.inner.shared), source.clone());
        // The pass itself looks for an index first, since another process may have built it.
        let reading = self.inner.passes.run(
            ReaderKey::new(source, Plan::Indexed),
            || None,
            || async move {
                let (shared, source) = task;
                match source.sealing {
                    Sealing::None => index_plain(&shared, &source).await,
                    Sealing::OciSync => index_sealed(&shared, &source).await,
                }
            },
        );
        reading.await.unwrap_or_else(|abandoned| Err(Error::new(ErrorKind::Other, format!("{}: {abandoned}", source.label()))))
    }

    /// A blob's attached index, if usable: the attributes of a raw blob are recorded nowhere else.
    ///
    /// # Errors
    /// Those of a registry that could not be reached.
    pub async fn attached_index(&self, source: &BlobSource) -> Result<Option<LayerIndex>, Error> {
        attached_index::get(&self.inner.shared, source).await
    }

    /// Whether a blob's attached index is not known to be wrong.
    pub fn trusts(&self, source: &BlobSource) -> bool {
        use super::verdicts::Verdict;
        matches!(attached_index::verdict(&self.inner.shared, source), None | Some(Verdict::Fine | Verdict::Missing))
    }

    /// Whether this process found that a blob's guide is wrong. Checks memory only.
    pub fn is_known_wrong(&self, source: &BlobSource) -> bool {
        attached_index::is_distrusted(&self.inner.shared, source)
    }

    /// Whether all blobs are verified whole, whatever the manifest says.
    pub fn is_strict(&self) -> bool {
        let shared = &self.inner.shared;
        shared.policy() == VerifyPolicy::Strict || shared.policy() == VerifyPolicy::Auto && shared.pull.trust() == Trust::Digest
    }

    /// Whether the index built here from a whole plain blob is present.
    pub fn is_indexed(&self, source: &BlobSource) -> bool {
        self.inner.shared.has_index(source)
    }

    /// Whether a blob should be shown by its guide. Not if that turned out wrong. And only by an index that the manifest names if the index built here
    /// from the whole blob is present, or if the user wants everything verified; nor by a table if all of the blob is about to be read.
    pub fn follows(&self, source: &BlobSource) -> bool {
        let shared = &self.inner.shared;
        let is_wanted = match &source.guide {
            None | Some(Guide::Index(_)) => return self.trusts(source),
            Some(Guide::Referred(_)) => !shared.strict(source),
            Some(Guide::Table(_)) => shared.policy() != VerifyPolicy::Strict && shared.cache.is_filled(),
        };
        is_wanted && attached_index::is_expected(shared, source) && !shared.has_index(source)
    }

    /// Stores the index of a layer just packed here, so that nothing of it has to be fetched; `attached_index` is the digest of its index blob. Not for
    /// encrypted content: it is stored unsealed. Blocks on the disk.
    pub fn adopt(&self, index: &LayerIndex, attached_index: Option<&Digest>) {
        attached_index::adopt(&self.inner.shared, index, attached_index);
    }

    /// The same for an archive sealed here in an envelope. Blocks on the disk.
    ///
    /// # Errors
    /// Integrity if the index does not match the content of the envelope.
    pub fn adopt_sealed(&self, source: &BlobSource, header: EnvelopeHeader, key: &EnvelopeKey, index: &LayerIndex) -> Result<(), Error> {
        envelope::adopt(&self.inner.shared, source, &Opened { header, key: key.clone() }, index)
    }

    /// How to store data derived from a blob: sealed, if it comes from an encrypted artifact. Derive a separate key from it for each object.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; errors of the registry, if the blob was never opened here.
    pub async fn protection(&self, source: &BlobSource) -> Result<Protection, Error> {
        match source.sealing {
            Sealing::None => Ok(Protection::Plain),
            Sealing::OciSync => Ok(envelope::open(&self.inner.shared, source).await?.protection(source, "derived")),
        }
    }

    /// The key for a new envelope: from the passphrase that opens `source`, else from the first passphrase; `None` if there is none.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; errors of the registry, if the source was never opened here.
    pub async fn seal_key(&self, source: Option<&BlobSource>, salt: [u8; 32]) -> Result<Option<EnvelopeKey>, Error> {
        envelope::key_for(&self.inner.shared, source, salt).await
    }

    /// The same cache, keys and memory, filled from another source that has the blobs at hand.
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

    /// Resources for building the index of a layer, sealed or not.
    pub fn resources(&self, sealing: Sealing) -> Resources {
        self.inner.shared.resources(sealing)
    }

    /// Tries these passphrases first until the result is dropped.
    pub fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        self.inner.shared.keys.lend(passphrases)
    }

    /// Whether there may be a passphrase.
    pub fn has_keys(&self) -> bool {
        !self.inner.shared.keys.is_empty()
    }

    /// Whether an encrypted blob was opened or created on this machine and the available keys open it. Sends no request.
    pub async fn was_opened(&self, source: &BlobSource) -> bool {
        source.sealing == Sealing::OciSync && envelope::was_opened(&self.inner.shared, source).await
    }

    /// Fetches ranges of streams that will probably be read soon, unless they are on this machine or take more than a fetch. Returns at once.
    pub fn fetch_ahead(&self, ranges: Vec<(BlobSource, Range<u64>)>) {
        if ranges.is_empty() || self.shared().pull.is_local() {
            return;
        }
        let contents = self.clone();
        tokio::spawn(async move { contents.begin_fetches(ranges).await });
    }

    /// Begins to fetch ranges as [`Self::fetch_ahead`] does; returns the blobs of which it fetches none, since opening them takes a request or a key.
    pub async fn begin_fetches(&self, ranges: Vec<(BlobSource, Range<u64>)>) -> HashSet<Digest> {
        let contents = self.clone();
        // Opening a stream of the cache blocks.
        let open = move || {
            let (mut ready, mut unready) = (Vec::new(), HashSet::new());
            for (source, range) in ranges {
                match contents.ready(&source) {
                    Ok(Some(reader)) => ready.push((reader, range)),
                    Ok(None) | Err(_) => drop(unready.insert(source.descriptor.digest)),
                }
            }
            (ready, unready)
        };
        let (ready, unready) = spawn_blocking(open).await.unwrap_or_default();
        for (reader, range) in ready {
            if !reader.crowded.load(Ordering::Relaxed) {
                fetch::ahead(&reader, reader.spans_of(&range));
            }
        }
        unready
    }

    /// A reader of a blob, if opening it needs neither the network nor a key.
    pub(super) fn ready(&self, source: &BlobSource) -> Result<Option<Arc<Reader>>, Error> {
        if let Some(reader) = self.opened(source) {
            return Ok(Some(reader));
        }
        let (facts, index) = self.facts(source)?;
        match plan::choose(&facts) {
            Step::Read(plan) => self.open_plain(source, plan, index).map(Some),
            Step::FetchIndex | Step::ReadWhole | Step::Unseal => Ok(None),
        }
    }

    /// The reader of a blob, whatever opening it takes.
    pub(super) async fn reader(&self, source: &BlobSource) -> Result<Arc<Reader>, Error> {
        if let Some(reader) = self.opened(source) {
            return Ok(reader);
        }
        match self.plan(source).await? {
            (Plan::Sealed, Some(index)) => {
                let opened = envelope::open(&self.inner.shared, source).await?;
                let blob = stored_blob(&self.inner.shared, source).await?;
                self.add(source, Plan::Sealed, || Ok(Mode::Sealed { index, blob, opened }))
            }
            (plan, index) => self.open_plain(source, plan, index),
        }
    }

    /// An open reader that this source may use.
    pub(super) fn opened(&self, source: &BlobSource) -> Option<Arc<Reader>> {
        let get = |plan| self.inner.readers.lock().get(&ReaderKey::new(source, plan));
        if source.is_sealed() {
            return get(Plan::Sealed);
        }
        if plan::is_single(source.form, false, source.descriptor.size) {
            return get(Plan::Single);
        }
        let trusted = self.trusts(source);
        // Content shown through an index that turned out wrong is first compared with the blob's own.
        let comparable =
            source.form == Form::Raw || trusted && !source.has_table() || attached_index::is_harmless(&self.inner.shared, source);
        let indexed = if comparable { get(Plan::Indexed) } else { None };
        let attached = || if trusted && source.guide.is_some() { get(Plan::Attached) } else { None };
        let checked = || get(Plan::Unchecked).filter(|reader| reader.verified() == Verified::Whole);
        indexed.or_else(attached).or_else(checked)
    }

    fn open_plain(&self, source: &BlobSource, plan: Plan, index: Option<LayerIndex>) -> Result<Arc<Reader>, Error> {
        let inconsistent = || Error::new(ErrorKind::Other, format!("{}: no index to read it by", source.label()));
        if let (Plan::Indexed, Some(own)) = (plan, &index) {
            attached_index::check_entries(&self.inner.shared, source, own)?;
        }
        self.add(source, plan, || match plan {
            Plan::Single => Ok(Mode::single()),
            Plan::Unchecked => Ok(Mode::unchecked(source)),
            Plan::Indexed => index.map(Mode::Indexed).ok_or_else(inconsistent),
            Plan::Attached => index.map(Mode::Attached).ok_or_else(inconsistent),
            Plan::Sealed => Err(inconsistent()),
        })
    }

    /// The reader for a plan; a new one only if none is open.
    fn add(&self, source: &BlobSource, plan: Plan, mode: impl FnOnce() -> Result<Mode, Error>) -> Result<Arc<Reader>, Error> {
        let key = ReaderKey::new(source, plan);
        let known = self.inner.readers.lock().get(&key);
        match known {
            Some(reader) => Ok(reader),
            None => {
                let reader = Reader::open(&self.inner.shared, source, mode()?)?;
                Ok(self.inner.readers.lock().add(key, reader))
            }
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

/// An empty blob is never read, so its digest is checked up front.
pub(super) fn check_empty(source: &BlobSource) -> Result<(), Error> {
    let Descriptor { digest, size, .. } = &source.descriptor;
    if *size > 0 || Hasher::new(digest.algorithm()).finish() == *digest {
        return Ok(());
    }
    let message = format!("{}: its manifest says that it is empty, but its digest is not that of the empty blob", source.label());
    Err(Error::new(ErrorKind::Integrity, message))
}

/// Builds the index of a blob in one pass, unless another daemon has done so meanwhile.
async fn index_plain(shared: &Arc<Shared>, source: &BlobSource) -> Result<LayerIndex, Error> {
    let name = names::index(source);
    let _claim = shared.claim(&format!("{}.{name}", names::INDEX)).await;
    if let Some(index) = shared.stored_index(source, &name, &Protection::Plain)? {
        return Ok(index);
    }
    let (index, _) = pass::run(shared, source, || Ok((shared.fill(source, &Protection::Plain), None))).await?;
    let (storing, source) = (Arc::clone(shared), source.clone());
    shared.working(spawn_blocking(move || storing.store_index(&source, &name, index, &Protection::Plain))).await
}

/// The same for the content of an envelope: the tag is checked first, then the ciphertext is read again.
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
    // The sealed cache has it now. Ciphertext that another reader stored is not ours to drop.
    if shared.fetched_raw.remove(&blob.key).is_some() {
        shared.forget_stream(&blob.key);
    }
    Ok(index)
}

/// A reader of the ciphertext behind an envelope's content.
async fn stored_blob(shared: &Arc<Shared>, source: &BlobSource) -> Result<Arc<Reader>, Error> {
    let stored = envelope::as_stored(source);
    let index = index_plain(shared, &stored).await?;
    Reader::open(shared, &stored, Mode::Ciphertext(index))
}
