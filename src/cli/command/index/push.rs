//! `ocifs index push`: publishes the indexes of an artifact's layers as a referrer.

use clap::Args;
use serde::Serialize;

use super::common::Common;
use super::layers::{Layer, Summary, archives, content, described, reading, table};
use crate::cli::exit::{Code, Failure};
use crate::cli::runtime::resumable;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{pushing, reference, wiring};
use crate::cli::terminal::escape;
use crate::oci::Version;
use crate::publish::{OwnIndex, refer_to};

/// Flags of `push`.
#[derive(Args, Clone, Debug)]
pub struct Push {
    /// The artifact: repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Flags of all actions.
    #[command(flatten)]
    common: Common,
}

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    /// The referrer, by digest.
    reference: String,
    digest: String,
    /// The manifest whose layers are indexed, by digest.
    subject: String,
    layers: Vec<Layer>,
}

impl Push {
    /// Runs the command.
    ///
    /// # Errors
    /// A layer cannot be read or indexed, or the registry refuses the referrer.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(&self.reference, environment)?;
        let storage = self.common.reaching.storage.clone().for_command(environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let content = content(self.common.platform.clone());
        let report = resumable(
            async {
                let (found, description) =
                    described(&source, wiring::build(&source, reading(&content), &flags, &storage, environment)?).await?;
                let (push, artifacts) = (&*found.parts.push, &found.parts.artifacts);
                let (mut layers, mut indexes) = (Vec::new(), Vec::new());
                for (number, layer) in archives(&description).filter(|(_, layer)| layer.guide.is_none()) {
                    let own = OwnIndex::of(artifacts, layer).await?;
                    let index = own.index.clone();
                    let sent = own.send(push, &found.repository).await?;
                    layers.push(Layer::new(number, layer, Some(Summary::of(&index, Some(sent.digest.to_string()), sent.size))));
                    indexes.push(sent);
                }
                if indexes.is_empty() {
                    let shown = escape::terminal(&self.reference).into_owned();
                    return Err(Failure::new(Code::NotFound, format!("{shown} has no layer that lacks an index and could have one")));
                }
                let subject = &description.shown;
                let referrer = refer_to(push, &found.repository, subject, &indexes).await?;
                pushing::keep_listed(push, &found.repository, &subject.descriptor(), &referrer.descriptor()).await?;
                push.finish().await?;
                artifacts.flush().await;
                let by_digest = |digest| reference::with_version(&source, &Version::Digest(digest));
                let (reference, digest) = (by_digest(referrer.digest), referrer.digest.to_string());
                Ok(Report { reference, digest, subject: by_digest(subject.digest), layers })
            },
            "nothing was attached",
        )?;
        self.common.output.show(&report, text)
    }
}

fn text(report: &Report) -> String {
    let shown = |text: &str| escape::terminal(text).into_owned();
    format!("{}\n  refers to {}\n\n{}", shown(&report.reference), shown(&report.subject), table(&report.layers))
}
