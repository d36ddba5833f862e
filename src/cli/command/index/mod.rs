//! `ocifs index`: indexes of layers, which let them be read by ranges.

mod build;
mod push;
mod show;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::artifact::Description;
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::flags::ContentFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::reference;
use crate::cli::source::resolved::Resolved;
use crate::cli::source::wiring::{Caching, Parts, Reading};
use crate::cli::terminal::{escape, output, units};
use crate::content::{BlobSource, Sealing};
use crate::layer::{Form, LayerIndex};
use crate::oci::{Platform, Source};

/// Build, publish and show indexes of layers: with one, a single file of a large layer is read without fetching the whole
#[derive(Args, Clone, Debug)]
pub struct Index {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Publish the indexes of an artifact's layers as a referrer; mounts use it with `--trust-index referrer`
    Push(push::Push),
    /// Write the index of one layer to a file
    Build(build::Build),
    /// Summarize the indexes of an artifact's layers, or an index in a file
    Show(show::Show),
}

impl Index {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact cannot be read, or has no layer that can be indexed.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Push(flags) => flags.run(&invocation),
            Action::Build(flags) => flags.run(&invocation),
            Action::Show(flags) => flags.run(&invocation),
        }
    }
}

/// One layer, in the output. The keys are stable.
#[derive(Debug, Serialize)]
struct Layer {
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
struct Summary {
    digest: Option<String>,
    /// Size as stored, in bytes.
    size: u64,
    entries: u32,
    spans: u32,
    /// Bytes of the unpacked layer.
    length: u64,
}

impl Summary {
    fn of(index: &LayerIndex, digest: Option<String>, size: u64) -> Self {
        Self { digest, size, entries: index.entry_count(), spans: index.span_count(), length: index.stream_length() }
    }
}

impl Layer {
    fn new(number: usize, source: &BlobSource, index: Option<Summary>) -> Self {
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
fn table(layers: &[Layer]) -> String {
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
fn reading(content: &ContentFlags) -> Reading<'_> {
    Reading { caching: Caching::Unfilled { spool: None }, ..Reading::of(content) }
}

/// The flags for a platform.
fn content(platform: Option<Platform>) -> ContentFlags {
    ContentFlags { platform, ..ContentFlags::default() }
}

/// Looks an artifact up, and describes it.
async fn described(source: &Source, parts: Parts) -> Result<(Resolved, Description), Failure> {
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
fn archives(description: &Description) -> impl Iterator<Item = (usize, &BlobSource)> {
    let is_archive = |(_, source): &(usize, &BlobSource)| source.form == Form::Archive && source.sealing == Sealing::None;
    description.sources.iter().enumerate().filter(is_archive)
}
