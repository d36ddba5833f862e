//! `ocifs inspect`: kind, platform and layers of an artifact, read from its manifests alone.

use clap::Args;
use serde::Serialize;

use crate::artifact::Description;
use crate::cli::exit::Failure;
use crate::cli::runtime::block_on;
use crate::cli::settings::flags::{Format, ReadPlatform, RegistryFlags, Storage};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::reference;
use crate::cli::source::wiring::{self, Reading};
use crate::cli::terminal::{escape, output, units};
use crate::content::{BlobSource, Sealing};
use crate::layer::Form;
use crate::oci::{Digest, Manifest};

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: String,
    media_type: String,
    artifact_type: Option<String>,
    /// The dialect: oci-sync, sealed, index, image, files, archive or blobs.
    kind: &'static str,
    platform: Option<String>,
    /// All platforms of an index.
    platforms: Vec<String>,
    encrypted: bool,
    /// Total size of the layers as stored, in bytes.
    size: u64,
    layers: Vec<Layer>,
    /// Parts that cannot be shown faithfully; known only once the artifact has been opened.
    warnings: Vec<String>,
}

/// One layer.
#[derive(Debug, Serialize)]
struct Layer {
    title: Option<String>,
    media_type: String,
    digest: String,
    size: u64,
    /// `at-once`, or `after-one-pass`: the first read fetches and verifies the whole layer, later reads are random access.
    readable: &'static str,
}

/// Explain an artifact without mounting it: kind, platform, layers and how lazily they can be read
#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// The platform.
    #[command(flatten)]
    platform: ReadPlatform,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The cache.
    #[command(flatten)]
    storage: Storage,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Inspect {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact does not exist or its manifests cannot be read.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(&self.reference, environment)?;
        let storage = self.storage.for_command(environment)?;
        let registry = invocation.registry(reference::registry(&source))?;
        let content = self.platform.content();
        let reading = Reading { by_digest: true, ..Reading::of(&content) };
        let report = block_on(async {
            let parts = wiring::build(&source, reading, &registry, &storage, environment)?;
            let (repository, version) = reference::named(&source, parts.pull.as_ref()).await?;
            let digest = parts.pull.resolve(&repository, &version).await?.digest;
            let description = parts.artifacts.describe(&repository, &digest).await?;
            parts.artifacts.flush().await;
            Ok(report(source.to_string(), &digest, &description))
        })?;
        output::show(self.format, &report, text)
    }
}

fn report(reference: String, digest: &Digest, description: &Description) -> Report {
    let layers: Vec<Layer> = description.sources.iter().map(layer).collect();
    Report {
        reference,
        digest: digest.to_string(),
        media_type: description.manifest.media_type.clone(),
        artifact_type: description.shown.artifact_type().map(str::to_owned),
        kind: description.dialect.name(),
        platform: description.platform.as_ref().map(ToString::to_string),
        platforms: platforms(&description.manifest),
        encrypted: description.is_encrypted(),
        size: layers.iter().fold(0, |total, layer| total.saturating_add(layer.size)),
        layers,
        warnings: description.warnings.clone(),
    }
}

fn platforms(manifest: &Manifest) -> Vec<String> {
    let entries = manifest.index().map(|index| index.manifests.as_slice()).unwrap_or_default();
    let known = entries.iter().filter_map(|entry| entry.platform.as_ref()).filter(|platform| !platform.is_unknown());
    known.map(ToString::to_string).collect()
}

fn layer(source: &BlobSource) -> Layer {
    let raw = source.form == Form::Raw && source.sealing == Sealing::None;
    Layer {
        title: source.descriptor.annotation("org.opencontainers.image.title").map(str::to_owned),
        media_type: source.descriptor.media_type.clone(),
        digest: source.descriptor.digest.to_string(),
        size: source.descriptor.size,
        readable: if raw || source.guide.is_some() { "at-once" } else { "after-one-pass" },
    }
}

fn text(report: &Report) -> String {
    let shown = |text: &str| escape::terminal(text).into_owned();
    let mut pairs =
        vec![("reference", shown(&report.reference)), ("digest", report.digest.clone()), ("media type", shown(&report.media_type))];
    pairs.extend(report.artifact_type.as_ref().map(|kind| ("artifact type", shown(kind))));
    pairs.push(("kind", report.kind.to_owned()));
    pairs.extend(report.platform.as_ref().map(|platform| ("platform", shown(platform))));
    if !report.platforms.is_empty() {
        pairs.push(("platforms", shown(&report.platforms.join(", "))));
    }
    pairs.push(("encrypted", if report.encrypted { "yes" } else { "no" }.to_owned()));
    pairs.push(("size", units::show_size(report.size)));
    pairs.extend(report.warnings.iter().map(|warning| ("warning", shown(warning))));
    let rows = report.layers.iter().map(|layer| {
        let readable = layer.readable.replace('-', " ");
        let title = layer.title.as_deref().map(shown).unwrap_or_default();
        vec![short(&layer.digest), units::show_size(layer.size), readable, shown(&layer.media_type), title]
    });
    let table = output::table(&["layer", "size", "readable", "media type", "title"], rows.collect());
    let head = output::pairs(&pairs);
    if report.layers.is_empty() { head } else { format!("{head}\n\n{table}") }
}

/// The start of a digest, long enough to tell layers apart.
fn short(digest: &str) -> String {
    digest.split(':').nth(1).unwrap_or(digest).chars().take(12).collect()
}
