//! Which bytes of a blob's stream are on this machine, so that reading them sends no request. Finding out reads, fetches and uses nothing.

use std::ops::Range;
use std::sync::Arc;

use super::contents::Contents;
use super::plan::{is_single, raw_layout};
use super::reader::{Reader, layout_of};
use super::sealed::envelope;
use super::shared::Shared;
use super::verdicts::Verdict;
use super::{BlobSource, attached_index, names};
use crate::cache::{Layout, Present, Protection};
use crate::layer::{Form, LayerIndex, RAW_SPAN};
use crate::oci::Digest;

/// The bytes of a stream that are on this machine.
pub struct Presence(Found);

enum Found {
    All,
    Nothing,
    /// It is open.
    Open(Arc<Reader>),
    Closed {
        layout: Layout,
        /// `None` if nothing of it was ever stored.
        stored: Option<Present>,
    },
}

impl Contents {
    /// What is present of a blob's stream. Blocks on the disk.
    pub fn presence(&self, source: &BlobSource) -> Presence {
        if self.shared().pull.is_local() {
            return Presence::whole();
        }
        let opened = self.opened(source).map(Found::Open);
        Presence(opened.or_else(|| closed(self.shared(), source)).unwrap_or(Found::Nothing))
    }
}

impl Presence {
    /// Everything is present.
    pub fn whole() -> Self {
        Self(Found::All)
    }

    /// How many bytes of a range are present.
    pub fn of(&self, range: &Range<u64>) -> u64 {
        let (layout, has): (&Layout, &dyn Fn(u32) -> bool) = match &self.0 {
            Found::All => return range.end.saturating_sub(range.start),
            Found::Nothing => return 0,
            Found::Open(reader) => (&reader.layout, &|span| reader.has(span)),
            Found::Closed { layout, stored } => (layout, &|span| stored.as_ref().is_some_and(|stored| stored.has(span))),
        };
        let within = |span: u32| {
            let whole = layout.span(span);
            range.end.min(whole.end).saturating_sub(range.start.max(whole.start))
        };
        layout.spans_of(range).filter(|span| has(*span)).map(within).sum()
    }

    /// The spans that a fetch of a range takes, as ranges of the stream; none if all is here. Those of a stream of which nothing is known are guessed.
    pub fn spans_of(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let layout = match &self.0 {
            Found::All => return Vec::new(),
            Found::Nothing => {
                let starts = (range.start / RAW_SPAN..range.end.div_ceil(RAW_SPAN)).map(|number| number * RAW_SPAN);
                return starts.map(|start| start..start.saturating_add(RAW_SPAN)).collect();
            }
            Found::Open(reader) => &reader.layout,
            Found::Closed { layout, .. } => layout,
        };
        layout.spans_of(range).map(|span| layout.span(span)).collect()
    }
}

fn closed(shared: &Shared, source: &BlobSource) -> Option<Found> {
    let is_sealed = source.is_sealed();
    let (key, layout) = stream(shared, source)?;
    let stored = shared.cache.present(&key, &layout, is_sealed).ok()?;
    Some(Found::Closed { layout, stored })
}

/// The stream that a reader opened now would read, as far as it is known without a request.
fn stream(shared: &Shared, source: &BlobSource) -> Option<(Digest, Layout)> {
    let blob = source.descriptor.digest;
    let own = names::stream(&blob, source.form, source.sealing);
    if source.is_sealed() {
        let protection = envelope::peek(shared, source)?.protection(source, "index");
        return Some((own, layout_of(&index(shared, source, &names::index(source), &protection)?)));
    }
    if is_single(source.form, false, source.descriptor.size) {
        return Some((own, raw_layout(source.descriptor.size).ok()?));
    }
    let guide = source.guide.as_ref();
    if !guide.is_some_and(super::Guide::is_table)
        && let Some(index) = index(shared, source, &names::index(source), &Protection::Plain)
    {
        return Some((own, layout_of(&index)));
    }
    if let Some(guide) = guide.filter(|_| attached_index::verdict(shared, source) == Some(Verdict::Fine))
        && let Some(index) = index(shared, source, &names::attached_index_name(&blob, &guide.key()), &Protection::Plain)
    {
        return Some((names::attached(&blob, &guide.key()), layout_of(&index)));
    }
    match source.form {
        Form::Raw => Some((own, raw_layout(source.descriptor.size).ok()?)),
        // Nobody knows where its files are.
        Form::Archive => None,
    }
}

fn index(shared: &Shared, source: &BlobSource, name: &str, protection: &Protection) -> Option<LayerIndex> {
    let index = LayerIndex::open(shared.cache.peek_document(names::INDEX, name, protection).ok()??).ok()?;
    (index.blob_digest() == source.descriptor.digest && index.is_archive() == (source.form == Form::Archive)).then_some(index)
}
