//! `ocifs index build`: writes the index of a layer, or the access order, to a file.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::common::Common;
use super::layers::{Layer, Summary, archives, described, reading, table};
use super::order::{self, Order};
use crate::cli::exit::{Code, Failure};
use crate::cli::output_file::Destination;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{reference, wiring};
use crate::cli::terminal::escape;
use crate::oci::Digest;
use crate::publish::OwnIndex;

/// Flags of `build`.
#[derive(Args, Clone, Debug)]
pub struct Build {
    /// The artifact: repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Write the index to this file
    #[arg(short = 'O', long = "output-file", value_name = "FILE")]
    file: PathBuf,

    /// The layer, by number as `ocifs index show` prints it [default: the only one]
    #[arg(long, value_name = "NUMBER")]
    layer: Option<usize>,

    /// Write the order in which files were opened by mounts with this cache instead
    #[arg(long, conflicts_with = "layer")]
    access_order: bool,

    /// Flags of all actions.
    #[command(flatten)]
    common: Common,
}

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    layer: Option<Layer>,
    access_order: Option<Order>,
}

impl Build {
    /// Runs the command.
    ///
    /// # Errors
    /// The layer cannot be read or indexed, or the file cannot be written.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(&self.reference, environment)?;
        let storage = self.common.reaching.storage.clone().for_command(environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let content = self.common.platform.content();
        let parts = wiring::build(&source, reading(&content), &flags, &storage, environment)?;
        let (report, bytes) = until_interrupted(async {
            let (found, description) = described(&source, parts).await?;
            if self.access_order {
                let order = order::remembered(&found, &description, &escape::terminal(&self.reference)).await?;
                return Ok((Report { file: self.file.clone(), layer: None, access_order: Some(Order::of("cache", &order)?) }, order));
            }
            let layers: Vec<_> = archives(&description).collect();
            let (number, layer) = chosen(&layers, self.layer)?;
            let own = OwnIndex::of(&found.parts.artifacts, layer).await?;
            let digest = Digest::of(&own.attached).to_string();
            let summary = Summary::of(&own.index, Some(digest), own.attached.len() as u64);
            let layer = Layer::new(number, layer, Some(summary));
            Ok((Report { file: self.file.clone(), layer: Some(layer), access_order: None }, own.attached))
        })?;
        let mut destination = Destination::new(Some(&self.file))?;
        destination.write(&bytes)?;
        destination.finish()?;
        self.common.output.show(&report, text)
    }
}

/// The layer with a number, or the only one.
fn chosen<T: Copy>(layers: &[(usize, T)], wanted: Option<usize>) -> Result<(usize, T), Failure> {
    let found = match (wanted, layers) {
        (None, [only]) => Some(only),
        (None, []) => return Err(Failure::new(Code::NotFound, "it has no layer that could have an index")),
        (None, _) => None,
        (Some(wanted), _) => layers.iter().find(|(number, _)| *number == wanted),
    };
    found.copied().ok_or_else(|| {
        let numbers = layers.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>().join(", ");
        Failure::usage(format!("choose one of the layers {numbers} with --layer"))
    })
}

fn text(report: &Report) -> String {
    let holds = match (&report.layer, &report.access_order) {
        (Some(layer), _) => table(std::slice::from_ref(layer)),
        (None, Some(order)) => format!("the order of {} files", order.files),
        (None, None) => String::new(),
    };
    format!("{}\n\n{holds}", escape::path(&report.file))
}
