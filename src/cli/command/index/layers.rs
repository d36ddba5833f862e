//! The layers of an artifact with their indexes, and how they are shown; for all actions.

use crate::artifact::Description;
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::flags::ContentFlags;
use crate::cli::source::reference;
use crate::cli::source::resolved::Resolved;
use crate::cli::source::wiring::{Caching, Parts, Reading};
use crate::cli::terminal::{escape, output, units};
use crate::content::{BlobSource, Sealing};
use crate::layer::{Form, LayerIndex};
use crate::oci::Source;
use serde::Serialize;

/// One layer, in the output. The keys are stable.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    /// Its position among the artifact's blobs.
    number: usize,
    digest: String,
    /// Its size as stored, in bytes.
    size: u64,
    /// Where its index comes from: the `manifest` or a `referrer` names it, the layer's own `table` of contents, or `nobody` has one.
    from: &'static str,
    index: Option<Summary>,
}

/// The summary of an index.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    digest: Option<String>,
    /// Size as stored, in bytes.
    pub(super) size: u64,
    pub(super) entries: u32,
    pub(super) spans: u32,
    /// Bytes of the unpacked layer.
    pub(super) length: u64,
}

impl Summary {
    pub(super) fn of(index: &LayerIndex, digest: Option<String>, size: u64) -> Self {
        Self { digest, size, entries: index.entry_count(), spans: index.span_count(), length: index.stream_length() }
    }
}

impl Layer {
    pub(super) fn new(number: usize, source: &BlobSource, index: Option<Summary>) -> Self {
        let from = match &source.guide {
            None => "nobody",
            Some(guide) if guide.is_referred() => "referrer",
            Some(guide) if guide.is_table() => "table",
            Some(_) => "manifest",
        };
        let (digest, size) = (source.descriptor.digest.to_string(), source.descriptor.size);
        Self { number, digest, size, from, index }
    }
}

/// The table of layers.
pub(super) fn table(layers: &[Layer]) -> String {
    let rows = layers.iter().map(|layer| {
        let index = |text: fn(&Summary) -> String| layer.index.as_ref().map(text).unwrap_or_default();
        vec![
            layer.number.to_string(),
            layer.digest.clone(),
            units::show_size(layer.size),
            layer.from.to_owned(),
            index(|index| units::show_size(index.size)),
            index(|index| index.entries.to_string()),
            index(|index| index.spans.to_string()),
        ]
    });
    output::table(&["layer", "digest", "size", "named by", "index", "entries", "spans"], rows.collect())
}

/// How the layers are read: as they are, without filling the cache.
pub(super) fn reading(content: &ContentFlags) -> Reading<'_> {
    Reading { caching: Caching::Unfilled { spool: None }, ..Reading::of(content) }
}

/// Looks an artifact up, and describes it.
pub(super) async fn described(source: &Source, parts: Parts) -> Result<(Resolved, Description), Failure> {
    let found = Resolved::find(source, parts).await?;
    let description = found.parts.artifacts.describe(&found.repository, &found.digest).await?;
    if description.shown.image().is_none() {
        let platform = found.parts.artifacts.platform();
        let shown = reference::with_version(source, &crate::oci::Version::Digest(found.digest));
        return Err(Failure::new(
            Code::NotFound,
            format!("{} has no member for {platform}; choose one with --platform", escape::terminal(&shown)),
        ));
    }
    Ok((found, description))
}

/// The layers that an index makes a difference for, with their numbers.
pub(super) fn archives(description: &Description) -> impl Iterator<Item = (usize, &BlobSource)> {
    let is_archive = |(_, source): &(usize, &BlobSource)| source.form == Form::Archive && source.sealing == Sealing::None;
    description.sources.iter().enumerate().filter(is_archive)
}
