//! Opens an oci-sync envelope: finds the right passphrase, remembers it without a secret, and reads the content.
//!
//! The envelope is one message, so no plaintext is released before its tag is verified over all of it. The tag is computed while the stored blob is
//! fetched and hashed; meanwhile the ciphertext is cached as the raw blob it is, and a second, local pass decrypts, indexes and fills the sealed
//! cache from it.

use std::sync::Arc;

use bytes::Bytes;

use super::keys::KeyRing;
use super::probe::{KeyProbe, Opened, PROOF, VERSION, wrong_key};
use crate::blocking::blocking;
use crate::cache::Protection;
use crate::content::budget::Use;
use crate::content::input::Input;
use crate::content::pass::{self, ScanThread};
use crate::content::reader::{Mode, Reader};
use crate::content::shared::Shared;
use crate::content::{BlobSource, Sealing, names};
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex};
use crate::oci::Digest;
use crate::seal::{ENVELOPE_HEADER, EnvelopeHeader, EnvelopeKey};

/// Bytes read at a time by the second pass.
const PIECE: u64 = 1 << 20;

/// The envelope of a blob that was opened before on this machine.
async fn remembered(shared: &Arc<Shared>, source: &BlobSource) -> Result<Option<Opened>, Error> {
    let document = match shared.cache.document(names::ENVELOPE, &names::envelope(&source.descriptor.digest), &Protection::Plain) {
        Ok(Some(document)) => (*document).as_ref().to_vec(),
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(%error, "cannot read the record of an opened envelope from the cache");
            return Ok(None);
        }
    };
    let (keys, source) = (shared.keys.clone(), source.clone());
    blocking(move || opened_by(&keys, &document, &source)).await
}

/// The envelope of a record, with the key that opens it. Blocks.
fn opened_by(keys: &KeyRing, document: &[u8], source: &BlobSource) -> Result<Option<Opened>, Error> {
    let Some((&VERSION, rest)) = document.split_first() else { return Ok(None) };
    let Some((header, proof)) = rest.split_at_checked(ENVELOPE_HEADER) else { return Ok(None) };
    let Ok(header) = EnvelopeHeader::parse(header) else { return Ok(None) };
    let fits = |key: &&EnvelopeKey| {
        let mut opened = Vec::new();
        key.cache_key().for_object(PROOF).open(0, proof, &mut opened).is_ok() && opened == PROOF
    };
    let key = keys.keys(&header.salt)?.iter().find(fits).cloned();
    key.map(|key| Some(Opened { header, key })).ok_or_else(|| wrong_key(source))
}

/// The envelope of a blob that was opened before on this machine, if an available key opens it. Does not count as a use of its record. Blocks.
pub(in crate::content) fn peek(shared: &Shared, source: &BlobSource) -> Option<Opened> {
    let document = shared.cache.peek_document(names::ENVELOPE, &names::envelope(&source.descriptor.digest), &Protection::Plain);
    opened_by(&shared.keys, (*document.ok()??).as_ref(), source).ok().flatten()
}

/// Whether an envelope was opened before on this machine and an available key opens it.
pub(in crate::content) async fn was_opened(shared: &Arc<Shared>, source: &BlobSource) -> bool {
    matches!(remembered(shared, source).await, Ok(Some(_)))
}

/// Opens the envelope of a blob: from its record, else in a pass that verifies its tag.
pub(in crate::content) async fn open(shared: &Arc<Shared>, source: &BlobSource) -> Result<Opened, Error> {
    if let Some(opened) = remembered(shared, source).await? {
        return Ok(opened);
    }
    let keys = shared.keys.clone();
    blocking(move || keys.ask()).await.map_err(|error| error.context(source.label()))?;
    let stored = as_stored(source);
    let name = names::index(&stored);
    let _claim = shared.claim(&format!("{}.{name}", names::INDEX)).await;
    if let Some(opened) = remembered(shared, source).await? {
        return Ok(opened);
    }
    let probe = || KeyProbe::new(&shared.keys, source);
    let probe = match shared.stored_index(&stored, &name, &Protection::Plain)? {
        Some(index) => read_through(shared, &stored, index, probe()?).await?,
        None => {
            let (index, probe) = pass::run(shared, &stored, || Ok((shared.fill(&stored, &Protection::Plain), Some(probe()?)))).await?;
            shared.store_index(&stored, &name, index, &Protection::Plain);
            probe.ok_or_else(|| Error::new(ErrorKind::Other, "the check of an envelope was lost"))?
        }
    };
    let opened = probe.finish(source)?;
    remember(shared, &source.descriptor.digest, &opened);
    Ok(opened)
}

/// Records an envelope that was opened or written here.
fn remember(shared: &Shared, blob: &Digest, opened: &Opened) {
    let document = opened.to_document();
    if let Err(error) = shared.cache.store_document(names::ENVELOPE, &names::envelope(blob), &document, &Protection::Plain) {
        tracing::warn!(%error, "cannot record the opened envelope {}; it will be reopened when needed", blob.short());
    }
}

/// Stores the index of an archive packed and sealed here, sealed as well. Blocks on the disk.
pub(in crate::content) fn adopt(shared: &Shared, source: &BlobSource, opened: &Opened, index: &LayerIndex) -> Result<(), Error> {
    let index = index.of_blob(source.descriptor.digest)?;
    shared.check_size(source, &index)?;
    remember(shared, &source.descriptor.digest, opened);
    shared.store_index(source, &names::index(source), index, &opened.protection(source, "index"));
    Ok(())
}

/// The key for a new envelope: from the passphrase that opens `source`, else from the first passphrase.
pub(in crate::content) async fn key_for(
    shared: &Arc<Shared>,
    source: Option<&BlobSource>,
    salt: [u8; 32],
) -> Result<Option<EnvelopeKey>, Error> {
    let keys = shared.keys.clone();
    let Some(source) = source else { return blocking(move || keys.first(&salt)).await };
    let opened = open(shared, source).await?;
    let key = blocking(move || {
        let expected = proof_of(&opened.key);
        keys.again(&opened.header.salt, |key| proof_of(key) == expected, &salt)
    });
    key.await?.map(Some).ok_or_else(|| wrong_key(source))
}

/// Distinguishes keys without revealing them.
fn proof_of(key: &EnvelopeKey) -> Vec<u8> {
    let mut proof = Vec::new();
    key.cache_key().for_object(PROOF).seal(0, PROOF, &mut proof);
    proof
}

/// The same blob in its stored form.
pub(in crate::content) fn as_stored(source: &BlobSource) -> BlobSource {
    BlobSource { form: Form::Raw, sealing: Sealing::None, guide: None, ..source.clone() }
}

/// Verifies the tag over a blob whose digest was verified earlier.
async fn read_through(shared: &Arc<Shared>, stored: &BlobSource, index: LayerIndex, mut probe: KeyProbe) -> Result<KeyProbe, Error> {
    let size = index.stream_length();
    let blob = Reader::open(shared, stored, Mode::Ciphertext(index))?;
    let mut place = 0;
    while place < size {
        let piece = blob.read_for(place..(place + PIECE).min(size), Use::Demand).await?;
        place += piece.len() as u64;
        probe = blocking(move || {
            probe.update(&piece);
            Ok(probe)
        })
        .await?;
    }
    Ok(probe)
}

/// The second pass: decrypts, indexes and fills the sealed cache from the verified ciphertext.
pub(in crate::content) async fn index(
    shared: &Arc<Shared>,
    source: &BlobSource,
    opened: &Opened,
    blob: &Arc<Reader>,
) -> Result<LayerIndex, Error> {
    let _turn = shared.turns.pass().await?;
    // For the tables and the index assembled from them.
    let _memory = shared.budget.take(Use::Large, shared.budget.share(Use::Large) / 2).await?;
    let scan = ScanThread::start(shared, source, shared.fill(source, &opened.protection(source, "stream")));
    let end = source.descriptor.size.saturating_sub(source.sealing.overhead());
    let mut input = Input::of_envelope(blob, opened, 0..end, Use::Demand);
    let mut place = 0;
    while place < end {
        let plain = input.take(&(place..(place + PIECE).min(end))).await?;
        place += plain.len() as u64;
        send(&scan, &plain).await;
    }
    drop(input);
    shared.working(scan.finish(source, source.descriptor.digest)).await
}

/// A thread that ended early is reported when it is joined.
async fn send(scan: &ScanThread, plain: &Bytes) {
    for piece in pass::pieces(plain) {
        if scan.pieces.send(piece).await.is_err() {
            break;
        }
    }
}
