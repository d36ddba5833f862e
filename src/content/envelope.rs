//! Opening an oci-sync envelope: which passphrase fits, remembered without a secret, and reading what is inside.
//!
//! The envelope is one message, so none of its plaintext is released before its tag was checked over all of it.
//! The check runs while the stored blob is fetched and hashed; the ciphertext is cached meanwhile as the raw blob
//! that it is, and a second, local pass decrypts, indexes and fills the sealed cache from it.

use std::sync::Arc;

use bytes::Bytes;

use super::budget::Rank;
use super::input::{Input, Origin};
use super::keys::KeyRing;
use super::pass::{self, ScanThread};
use super::reader::Reader;
use super::shared::Shared;
use super::{BlobSource, Error, Sealing, names};
use crate::cache::Protection;
use crate::error::ErrorKind;
use crate::layer::{Form, LayerIndex};
use crate::seal::{ENVELOPE_HEADER, ENVELOPE_TAG, EnvelopeCheck, EnvelopeHeader, EnvelopeKey, ciphertext_length};

/// First byte of the document that remembers an envelope; it changes with the format.
const VERSION: u8 = 1;
/// What a fitting key opens in that document.
const PROOF: &[u8] = b"ocifs envelope";
/// Bytes that the second pass reads at a time.
const PIECE: u64 = 1 << 20;

/// An envelope whose tag held, and the key that fits.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) header: EnvelopeHeader,
    pub(super) key: EnvelopeKey,
}

impl Opened {
    /// How the cache protects one thing that comes from this envelope.
    pub(super) fn protection(&self, source: &BlobSource, role: &str) -> Protection {
        let context = format!("ocifs {role} 1 {} {:?}", source.descriptor.digest, source.form);
        Protection::Sealed(self.key.cache_key().for_object(context.as_bytes()))
    }

    /// What is remembered of the envelope: public bytes of the blob, and a proof for the key.
    fn to_document(&self) -> Vec<u8> {
        let mut document = vec![VERSION];
        document.extend_from_slice(&self.header.salt);
        document.extend_from_slice(&self.header.nonce);
        self.key.cache_key().for_object(PROOF).seal(0, PROOF, &mut document);
        document
    }
}

/// Tries every passphrase on a blob that passes by. Blocks.
pub(super) struct Trial {
    keys: KeyRing,
    size: u64,
    seen: u64,
    header: Vec<u8>,
    tag: Vec<u8>,
    begun: Option<Result<Begun, Error>>,
}

struct Begun {
    header: EnvelopeHeader,
    checks: Vec<(EnvelopeKey, EnvelopeCheck)>,
}

impl Trial {
    /// A trial on a blob of a claimed size.
    pub(super) fn new(keys: &KeyRing, source: &BlobSource) -> Result<Self, Error> {
        ciphertext_length(source.descriptor.size).map_err(|error| Error::new(error.kind, format!("{}: {error}", source.label())))?;
        let size = source.descriptor.size;
        Ok(Self { keys: keys.clone(), size, seen: 0, header: Vec::new(), tag: Vec::new(), begun: None })
    }

    /// The next bytes of the blob as stored.
    pub(super) fn update(&mut self, mut piece: &[u8]) {
        let header_missing = ENVELOPE_HEADER - self.header.len().min(ENVELOPE_HEADER);
        if header_missing > 0 {
            let (header, rest) = piece.split_at(header_missing.min(piece.len()));
            self.header.extend_from_slice(header);
            self.seen += header.len() as u64;
            piece = rest;
            if self.header.len() == ENVELOPE_HEADER {
                self.begun = Some(begin(&self.keys, &self.header));
            }
        }
        let left = (self.size - ENVELOPE_TAG as u64).saturating_sub(self.seen);
        let (ciphertext, tag) = piece.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
        if let Some(Ok(begun)) = &mut self.begun {
            for (_, check) in &mut begun.checks {
                check.update(ciphertext);
            }
        }
        self.seen += piece.len() as u64;
        let tag_missing = ENVELOPE_TAG - self.tag.len().min(ENVELOPE_TAG);
        self.tag.extend_from_slice(tag.get(..tag_missing.min(tag.len())).unwrap_or_default());
    }

    /// The key whose tag holds, now that the digest of the blob held.
    pub(super) fn finish(self, source: &BlobSource) -> Result<Opened, Error> {
        let cut = || Error::new(ErrorKind::Integrity, format!("{} is too short for an oci-sync envelope", source.label()));
        let begun = self.begun.ok_or_else(cut)??;
        let tag: [u8; ENVELOPE_TAG] = self.tag.try_into().map_err(|_| cut())?;
        let header = begun.header;
        let fitting = begun.checks.into_iter().find_map(|(key, check)| check.finish(&tag).is_ok().then_some(key));
        fitting.map(|key| Opened { header, key }).ok_or_else(|| wrong_key(source))
    }
}

fn begin(keys: &KeyRing, header: &[u8]) -> Result<Begun, Error> {
    let header = EnvelopeHeader::parse(header).map_err(|error| Error::new(error.kind, error.message))?;
    let keys = keys.keys(&header.salt)?;
    Ok(Begun { header, checks: keys.iter().map(|key| (key.clone(), EnvelopeCheck::new(key, &header))).collect() })
}

fn wrong_key(source: &BlobSource) -> Error {
    let message = format!("{} is encrypted and none of the given passphrases opens it (its digest is right)", source.label());
    Error::new(ErrorKind::KeyWrong, message)
}

/// The envelope of a blob that was opened before, on this machine.
async fn remembered(shared: &Arc<Shared>, source: &BlobSource) -> Result<Option<Opened>, Error> {
    let document = match shared.cache.document(names::ENVELOPE, &names::envelope(&source.descriptor.digest), &Protection::Plain) {
        Ok(Some(document)) => (*document).as_ref().to_vec(),
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(%error, "what is known of an envelope cannot be read from the cache");
            return Ok(None);
        }
    };
    let Some((&VERSION, rest)) = document.split_first() else { return Ok(None) };
    let Some((header, proof)) = rest.split_at_checked(ENVELOPE_HEADER) else { return Ok(None) };
    let Ok(header) = EnvelopeHeader::parse(header) else { return Ok(None) };
    let (keys, proof, source) = (shared.keys.clone(), proof.to_vec(), source.clone());
    blocking(move || {
        let fits = |key: &&EnvelopeKey| {
            let mut opened = Vec::new();
            key.cache_key().for_object(PROOF).open(0, &proof, &mut opened).is_ok() && opened == PROOF
        };
        let key = keys.keys(&header.salt)?.iter().find(fits).cloned();
        key.map(|key| Some(Opened { header, key })).ok_or_else(|| wrong_key(&source))
    })
    .await
}

/// Opens the envelope of a blob: from memory of it, else by a pass that checks its tag.
pub(super) async fn open(shared: &Arc<Shared>, source: &BlobSource) -> Result<Opened, Error> {
    if let Some(opened) = remembered(shared, source).await? {
        return Ok(opened);
    }
    let keys = shared.keys.clone();
    blocking(move || keys.ask()).await.map_err(|error| Error::new(error.kind, format!("{}: {}", source.label(), error.message)))?;
    let stored = as_stored(source);
    let name = names::index(&stored);
    let _claim = shared.claim(&format!("{}.{name}", names::INDEX)).await;
    if let Some(opened) = remembered(shared, source).await? {
        return Ok(opened);
    }
    let trial = Trial::new(&shared.keys, source)?;
    let trial = match shared.stored_index(&stored, &name, &Protection::Plain)? {
        Some(index) => read_through(shared, &stored, index, trial).await?,
        None => {
            let key = names::stream(&stored.descriptor.digest, stored.form, stored.sealing);
            let (index, trial) = pass::run(shared, &stored, shared.fill(&key, &Protection::Plain), Some(trial)).await?;
            shared.store_index(&stored, &name, index, &Protection::Plain);
            trial.ok_or_else(|| Error::new(ErrorKind::Other, "the check of an envelope was lost"))?
        }
    };
    let opened = trial.finish(source)?;
    let document = opened.to_document();
    if let Err(error) =
        shared.cache.store_document(names::ENVELOPE, &names::envelope(&source.descriptor.digest), &document, &Protection::Plain)
    {
        tracing::warn!(%error, "the envelope of {} is opened again when it is needed", source.label());
    }
    Ok(opened)
}

/// The same blob, as it is stored.
pub(super) fn as_stored(source: &BlobSource) -> BlobSource {
    BlobSource { form: Form::Raw, sealing: Sealing::None, ..source.clone() }
}

/// Checks the tag over a blob whose digest was checked earlier.
async fn read_through(shared: &Arc<Shared>, stored: &BlobSource, index: LayerIndex, mut trial: Trial) -> Result<Trial, Error> {
    let size = index.stream_length();
    let blob = Reader::transient(shared, stored, index);
    let mut place = 0;
    while place < size {
        let piece = blob.read_for(place..(place + PIECE).min(size), Rank::Demand).await?;
        place += piece.len() as u64;
        trial = blocking(move || {
            trial.update(&piece);
            Ok(trial)
        })
        .await?;
    }
    Ok(trial)
}

/// A forward reader of what is inside an opened envelope.
pub(super) fn input(shared: &Shared, blob: &Arc<Reader>, opened: &Opened, range: std::ops::Range<u64>, rank: Rank) -> Input {
    let envelope = Box::new(crate::seal::EnvelopeReader::new(&opened.key, &opened.header));
    Input::new(Origin::Envelope { blob: Arc::clone(blob), envelope, rank }, range, shared.io_timeout)
}

/// The second pass: decrypts, indexes and fills the sealed cache from the checked ciphertext.
pub(super) async fn index(shared: &Arc<Shared>, source: &BlobSource, opened: &Opened, blob: &Arc<Reader>) -> Result<LayerIndex, Error> {
    let _turn = shared.budget.pass().await?;
    let key = names::stream(&source.descriptor.digest, source.form, source.sealing);
    let scan = ScanThread::start(shared, source.form, shared.fill(&key, &opened.protection(source, "stream")));
    let end = source.descriptor.size.saturating_sub(source.sealing.overhead());
    let mut input = input(shared, blob, opened, 0..end, Rank::Demand);
    let mut place = 0;
    while place < end {
        let plain = input.take(&(place..(place + PIECE).min(end))).await?;
        place += plain.len() as u64;
        send(&scan, &plain).await;
    }
    drop(input);
    scan.finish(source, source.descriptor.digest).await
}

/// A thread that ended early is reported when it is joined.
async fn send(scan: &ScanThread, plain: &Bytes) {
    for piece in pass::pieces(plain) {
        if scan.pieces.send(piece).await.is_err() {
            break;
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::new(ErrorKind::Other, "opening an envelope was abandoned; see the log"))?
}
