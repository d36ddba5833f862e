//! `ocifs index show`: summarizes the indexes of an artifact's layers and its access order, or those in a file.

use std::fs;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::common::Common;
use super::layers::{Layer, Summary, archives, described, reading, table};
use super::order::{self, Order};
use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::{ContentFlags, TrustIndex};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{reference, wiring};
use crate::cli::terminal::{escape, output, units};
use crate::content::Guide;
use crate::error::Error;
use crate::layer::{ATTACHED_INDEX_MOST, Resources, open_attached};
use crate::oci::Digest;

/// Flags of `show`.
#[derive(Args, Clone, Debug)]
pub struct Show {
    /// A file with an index or an access order, or an artifact: repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF|FILE")]
    place: String,

    /// Flags of all actions.
    #[command(flatten)]
    common: Common,
}

/// The output for an artifact. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: String,
    layers: Vec<Layer>,
    /// The order that a mount would fetch files in.
    access_order: Option<Order>,
}

/// The output for a file. Its keys are stable.
#[derive(Debug, Serialize)]
struct FileReport {
    /// The indexed layer.
    layer: String,
    index: Summary,
}

/// The output for a file with an access order. Its keys are stable.
#[derive(Debug, Serialize)]
struct OrderReport {
    access_order: Order,
}

impl Show {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact, an index or the file cannot be read.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let path = Path::new(&self.place);
        if path.is_file() {
            return self.file(path);
        }
        let environment = &invocation.environment;
        let source = reference::parse(&self.place, environment)?;
        let storage = self.common.reaching.storage.clone().for_command(environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let content = ContentFlags { trust_index: Some(TrustIndex::Referrer), ..self.common.platform.content() };
        let report = until_interrupted(async {
            let (found, description) =
                described(&source, wiring::build(&source, reading(&content), &flags, &storage, environment)?).await?;
            let mut layers = Vec::new();
            for (number, layer) in archives(&description) {
                let index = found.parts.artifacts.guide_index(layer).await?;
                let blob = layer.guide.as_ref().and_then(Guide::index);
                let (digest, size) = (blob.map(|blob| blob.digest.to_string()), blob.map_or(0, |blob| blob.size));
                layers.push(Layer::new(number, layer, index.map(|index| Summary::of(&index, digest, size))));
            }
            let access_order = order::usable(&found, &description).await?;
            found.parts.artifacts.flush().await;
            Ok(Report { reference: source.to_string(), digest: description.shown.digest.to_string(), layers, access_order })
        })?;
        self.common.output.show(&report, text)
    }

    fn file(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::from(Error::io(format!("cannot read {}", escape::path(path)), error));
        if fs::metadata(path).map_err(failed)?.len() > ATTACHED_INDEX_MOST {
            return Err(Failure::usage(format!("{} is too large to be an index", escape::path(path))));
        }
        let bytes = fs::read(path).map_err(failed)?;
        if let Ok(access_order) = Order::of("file", &bytes) {
            return self
                .common
                .output
                .show(&OrderReport { access_order }, |report| output::pairs(&[described_order(&report.access_order)]));
        }
        let unusable = |error: Error| error.context(format_args!("{} is neither a usable index nor an access order", escape::path(path)));
        let index = open_attached(&bytes, &Resources::default()).map_err(unusable)?;
        let layer = index.blob_digest().to_string();
        let report = FileReport { layer, index: Summary::of(&index, Some(Digest::of(&bytes).to_string()), bytes.len() as u64) };
        self.common.output.show(&report, file_text)
    }
}

fn text(report: &Report) -> String {
    let mut pairs = vec![("reference", escape::terminal(&report.reference).into_owned()), ("digest", report.digest.clone())];
    pairs.extend(report.access_order.as_ref().map(described_order));
    format!("{}\n\n{}", output::pairs(&pairs), table(&report.layers))
}

fn described_order(order: &Order) -> (&'static str, String) {
    ("access order", format!("{} files (in the {})", order.files, order.from))
}

fn file_text(report: &FileReport) -> String {
    let index = &report.index;
    output::pairs(&[
        ("layer", report.layer.clone()),
        ("entries", index.entries.to_string()),
        ("spans", index.spans.to_string()),
        ("size", units::show_size(index.size)),
        ("unpacked layer", units::show_size(index.length)),
    ])
}
