//! Attached indexes and tables of contents: fetched, verified by digest, and used only for artifacts that name them.
//!
//! A manifest vouches for the index's digest as it does for the layer's, so content read through the index is what was published: every span is
//! verified against its digest in the index before a byte of it is served. The manifest vouches for no other artifact: index and data are stored
//! under the digests of both blobs, and an index built by this program takes precedence.
//!
//! An index that cannot be fetched or used is not an error: the layer is read whole instead. One whose spans do not match is never used again
//! for that layer, here or by a later mount; if its entries also differ from the layer's, everything shown through it stays an error until the
//! artifact is opened again. The stream of a table has other offsets than that of the archive, so what is shown through one is read through it or not at
//! all.

use std::sync::Arc;

use super::blob_bytes::{self, Places, Taken};
use super::plan::Attached;
use super::shared::Shared;
use super::verdicts::{Attachment, Verdict};
use super::{BlobSource, Guide, Sealing, names, table};
use crate::blocking::blocking;
use crate::cache::Protection;
use crate::error::{Error, ErrorKind};
use crate::layer::{self, Codec, Form, LayerIndex};
use crate::oci::{Descriptor, Digest, Hasher};
use crate::sys::array::Array;

/// Largest index blob that is fetched, in bytes.
pub const LARGEST_INDEX: u64 = 64 << 20;
/// Most bytes of a blob per span: they are held in memory while verified.
const WIDEST: u64 = 8 << 20;
/// The guide named by a source. That of a sealed layer would reveal names and is not used.
fn named(source: &BlobSource) -> Option<(&Guide, Attachment)> {
    let guide = source.guide.as_ref().filter(|_| !source.is_sealed())?;
    Some((guide, (source.descriptor.digest, guide.key())))
}

/// The verdict on a source's attached index; `None` if it has none.
pub(super) fn verdict(shared: &Shared, source: &BlobSource) -> Option<Verdict> {
    let (_, key) = named(source)?;
    Some(verdict_on(shared, key))
}

fn verdict_on(shared: &Shared, key: Attachment) -> Verdict {
    let (blob, index) = &key;
    if let Some(known) = shared.attached_indexes.get(&key) {
        return known;
    }
    let verdict = match shared.cache.document(names::INDEX, &names::distrusted(blob, index), &Protection::Plain) {
        Ok(Some(_)) => Verdict::Distrusted,
        _ => Verdict::Fine,
    };
    shared.attached_indexes.set(key, verdict);
    verdict
}

/// Stops using an index for a blob, permanently.
pub(super) fn distrust(shared: &Shared, source: &BlobSource) {
    let Some((guide, key)) = named(source) else { return };
    if shared.attached_indexes.is_distrusted(&key) {
        return;
    }
    tracing::warn!("the {} {} of {} does not match it and is no longer used", guide.name(), key.1.short(), source.label());
    shared.attached_indexes.set(key, Verdict::Distrusted);
    let marker = names::distrusted(&key.0, &key.1);
    if let Err(error) = shared.cache.store_document(names::INDEX, &marker, b"1", &Protection::Plain) {
        tracing::warn!(%error, "cannot record that an attached index does not match; the next mount will find out again");
    }
    shared.forget_stream(&names::attached(&key.0, &key.1));
}

/// Whether a source's attached index turned out wrong. Checks memory only.
pub(super) fn is_distrusted(shared: &Shared, source: &BlobSource) -> bool {
    named(source).is_some_and(|(_, key)| shared.attached_indexes.is_distrusted(&key))
}

/// Whether an attached index may still be fetched for a blob.
pub(super) fn is_expected(shared: &Shared, source: &BlobSource) -> bool {
    verdict(shared, source) == Some(Verdict::Fine)
}

/// Whether an index turned out to be wrong, but its entries are right.
pub(super) fn is_harmless(shared: &Shared, source: &BlobSource) -> bool {
    verdict(shared, source) == Some(Verdict::Harmless)
}

/// The state of a blob's attached index, and the index itself if present. Makes no request.
pub(super) fn state(shared: &Shared, source: &BlobSource) -> (Attached, Option<LayerIndex>) {
    match verdict(shared, source) {
        None | Some(Verdict::Missing) => (Attached::None, None),
        Some(Verdict::Fine) => match stored(shared, source) {
            Some(index) => (Attached::Here, Some(index)),
            None => (Attached::Expected, None),
        },
        Some(Verdict::Distrusted | Verdict::Harmless | Verdict::Lies) => (Attached::Doubted, None),
    }
}

/// A blob's attached index, if present. Makes no request.
fn stored(shared: &Shared, source: &BlobSource) -> Option<LayerIndex> {
    let (_, key) = named(source)?;
    if verdict(shared, source) != Some(Verdict::Fine) {
        return None;
    }
    let name = names::attached_index_name(&key.0, &key.1);
    // A manifest that claims the wrong size is detected when the blob is requested.
    shared.stored_index(source, &name, &Protection::Plain).ok().flatten().filter(|index| problem(source, index).is_none())
}

/// A blob's attached index, fetched if not present. `None` if there is no usable one.
///
/// # Errors
/// Those of a registry that could not be reached.
pub(super) async fn get(shared: &Arc<Shared>, source: &BlobSource) -> Result<Option<LayerIndex>, Error> {
    let Some((guide, key)) = named(source) else { return Ok(None) };
    if verdict(shared, source) != Some(Verdict::Fine) {
        return Ok(None);
    }
    if let Some(stored) = stored(shared, source) {
        return Ok(Some(stored));
    }
    let name = names::attached_index_name(&key.0, &key.1);
    let _claim = shared.claim(&format!("{}.{name}", names::INDEX)).await;
    if let Some(stored) = stored(shared, source) {
        return Ok(Some(stored));
    }
    match arrive(shared, source, guide, &name).await {
        Ok(index) => Ok(Some(index)),
        Err(error) if is_useless(error.kind) => {
            tracing::info!("reading {} whole, without its {} {}: {error}", source.label(), guide.name(), key.1.short());
            shared.attached_indexes.set(key, Verdict::Missing);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a retry would fail as well.
fn is_useless(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Gone | ErrorKind::Integrity | ErrorKind::Invalid | ErrorKind::Unsupported)
}

async fn arrive(shared: &Arc<Shared>, source: &BlobSource, guide: &Guide, name: &str) -> Result<LayerIndex, Error> {
    let index = match guide {
        Guide::Index(index) | Guide::Referred(index) => index,
        Guide::Table(table) => {
            let index = table::index(shared, source, table).await?;
            return accept(shared, source, index, name).await;
        }
    };
    if index.size == 0 || index.size > LARGEST_INDEX {
        return Err(Error::new(ErrorKind::Unsupported, format!("its claimed size is {} bytes", index.size)));
    }
    let mut places = Places::All;
    let bytes = loop {
        let were_cached = match fetch(shared, source, index, places).await? {
            Fetched::Right(bytes) => break bytes,
            Fetched::Wrong { were_cached } => were_cached,
        };
        let left = places.after_wrong(shared, &source.repository, &index.digest, were_cached);
        places = left.ok_or_else(|| Error::new(ErrorKind::Integrity, "its bytes do not match its digest"))?;
    };
    let _turn = shared.attached_indexes.opening.lock().await;
    let (blob, resources) = (source.descriptor.digest, shared.resources(Sealing::None));
    let index = blocking(move || layer::decode_attached(&bytes, &blob, &resources)).await?;
    accept(shared, source, index, name).await
}

/// Stores an index that arrived, if it can be used.
async fn accept(shared: &Arc<Shared>, source: &BlobSource, index: LayerIndex, name: &str) -> Result<LayerIndex, Error> {
    let (shared, source, name) = (Arc::clone(shared), source.clone(), name.to_owned());
    blocking(move || match problem(&source, &index) {
        Some(problem) => Err(Error::new(ErrorKind::Integrity, problem)),
        None => Ok(shared.store_index(&source, &name, index, &Protection::Plain)),
    })
    .await
}

/// An index blob, compared with its digest.
enum Fetched {
    Right(Array<u8>),
    /// Whether some of the bytes came from the cache.
    Wrong {
        were_cached: bool,
    },
}

/// Fetches an index blob.
async fn fetch(shared: &Arc<Shared>, source: &BlobSource, index: &Descriptor, places: Places) -> Result<Fetched, Error> {
    let subject = format!("{}: no byte of its index", source.label());
    let Taken { bytes, were_cached } = blob_bytes::take(shared, (&source.repository, index), 0..index.size, places, &subject).await?;
    let expected = index.digest;
    blocking(move || {
        let mut hasher = Hasher::new(expected.algorithm());
        hasher.update(&bytes);
        Ok(if hasher.finish() == expected { Fetched::Right(bytes) } else { Fetched::Wrong { were_cached } })
    })
    .await
}

/// Why a valid index cannot be used for a blob, beyond the checks in [`layer::decode_attached`].
fn problem(source: &BlobSource, index: &LayerIndex) -> Option<&'static str> {
    if index.blob_digest() != source.descriptor.digest || index.blob_length() != source.descriptor.size {
        return Some("it belongs to another blob");
    }
    if index.is_archive() != (source.form == Form::Archive) {
        return Some("it has another form");
    }
    let plain = index.codec() == Codec::Identity;
    if !plain && source.form == Form::Raw || plain && index.stream_length() != index.blob_length() {
        return Some("its stream is not the blob");
    }
    for span in (0..index.span_count()).map_while(|number| index.span(number)) {
        if span.digest.is_none() {
            return Some("a span has no digest");
        }
        if span.blob.end.saturating_sub(span.blob.start) > WIDEST {
            return Some("a span takes too much of the blob");
        }
        if plain && span.blob != span.stream {
            return Some("a span is misplaced");
        }
    }
    let mut end = 0;
    for member in index.members() {
        if member.start < end || member.end > index.stream_length() {
            return Some("its files overlap");
        }
        end = member.end;
    }
    None
}

/// Stores the index of a layer packed here: as its attached index, so that content read by others and here shares one place in the cache; otherwise as
/// the blob's own.
pub(super) fn adopt(shared: &Shared, index: &LayerIndex, attached_index: Option<&Digest>) {
    let blob = index.blob_digest();
    let form = if index.is_archive() { Form::Archive } else { Form::Raw };
    let name = match attached_index {
        Some(by) if matches!(verdict_on(shared, (blob, *by)), Verdict::Fine | Verdict::Missing) => {
            // It may have been requested before it was sent.
            shared.attached_indexes.set((blob, *by), Verdict::Fine);
            names::attached_index_name(&blob, by)
        }
        _ => names::index_of(&blob, form, Sealing::None),
    };
    if matches!(shared.cache.document(names::INDEX, &name, &Protection::Plain), Ok(Some(_))) {
        return;
    }
    if let Err(error) = shared.cache.store_document(names::INDEX, &name, index.as_bytes(), &Protection::Plain) {
        tracing::warn!(%error, "cannot store the index of a packed layer; it will be rebuilt when needed");
    }
}

/// Whether content shown through a distrusted index may be read through the index built from the blob itself.
///
/// # Errors
/// Integrity if their entries differ: files would not be where they were shown.
pub(super) fn check_entries(shared: &Shared, source: &BlobSource, own: &LayerIndex) -> Result<(), Error> {
    let Some((guide, key)) = named(source).filter(|_| source.form == Form::Archive) else { return Ok(()) };
    let lies = || {
        let message =
            format!("{}: its {} {} has the files in other places; open the artifact again", source.label(), guide.name(), key.1.short());
        Error::new(ErrorKind::Integrity, message)
    };
    if guide.is_table() {
        shared.attached_indexes.set(key, Verdict::Lies);
        return Err(lies());
    }
    match verdict(shared, source) {
        Some(Verdict::Lies) => return Err(lies()),
        Some(Verdict::Distrusted) => {}
        _ => return Ok(()),
    }
    let name = names::attached_index_name(&key.0, &key.1);
    let there = shared.stored_index(source, &name, &Protection::Plain).ok().flatten();
    let same = there.is_some_and(|there| has_entries_of(&there, own));
    shared.attached_indexes.set(key, if same { Verdict::Harmless } else { Verdict::Lies });
    if same { Ok(()) } else { Err(lies()) }
}

/// Whether two indexes describe the same entries at the same offsets.
fn has_entries_of(one: &LayerIndex, other: &LayerIndex) -> bool {
    one.stream_length() == other.stream_length()
        && one.entry_count() == other.entry_count()
        && one.entries().zip(other.entries()).all(|(left, right)| {
            let attributes = |entry: &layer::Entry<'_>| (entry.kind, entry.metadata, entry.size);
            (left.path, left.link, attributes(&left)) == (right.path, right.link, attributes(&right))
                && left.sha256.zip(right.sha256).is_none_or(|(left, right)| left == right)
                && one.extents(left.number) == other.extents(right.number)
                && one.xattrs(left.number) == other.xattrs(right.number)
        })
}
