//! `ocifs index push`: publishes the indexes of an artifact's layers, or its access order, as a referrer.

use clap::Args;
use serde::Serialize;

use super::common::Common;
use super::layers::{Layer, Summary, archives, described, reading, table};
use super::order::{self, Order};
use crate::artifact::Description;
use crate::cli::exit::{Code, Failure};
use crate::cli::runtime::resumable;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::resolved::Resolved;
use crate::cli::source::{pushing, reference, wiring};
use crate::cli::terminal::escape;
use crate::oci::{Descriptor, Version};
use crate::publish::{OwnIndex, refer_access_order, refer_to};

/// Flags of `push`.
#[derive(Args, Clone, Debug)]
pub struct Push {
    /// The artifact: repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Publish the order in which files were opened by mounts with this cache instead; other mounts then fetch them ahead in this order, until they remember
    /// one of their own. Of several, they take the one that the registry lists last
    #[arg(long)]
    access_order: bool,

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
    /// The manifest that it is about, by digest.
    subject: String,
    layers: Vec<Layer>,
    access_order: Option<Order>,
}

impl Push {
    /// Runs the command.
    ///
    /// # Errors
    /// A layer cannot be read or indexed, there is no access order, or the registry refuses the referrer.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(&self.reference, environment)?;
        let storage = self.common.reaching.storage.clone().for_command(environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let content = self.common.platform.content();
        let parts = wiring::build(&source, reading(&content), &flags, &storage, environment)?;
        let shown = escape::terminal(&self.reference).into_owned();
        let report = resumable(
            async {
                let (found, description) = described(&source, parts).await?;
                let (push, subject) = (&*found.parts.push, &description.shown);
                let (referrer, layers, order) = match self.access_order {
                    true => {
                        let order = order::remembered(&found, &description, &shown).await?;
                        let summary = Order::of("cache", &order)?;
                        (refer_access_order(push, &found.repository, subject, order).await?, Vec::new(), Some(summary))
                    }
                    false => {
                        let (layers, indexes) = send_indexes(&found, &description, &shown).await?;
                        (refer_to(push, &found.repository, subject, &indexes).await?, layers, None)
                    }
                };
                pushing::keep_listed(push, &found.repository, &subject.descriptor(), &referrer.descriptor()).await?;
                push.finish().await?;
                found.parts.artifacts.flush().await;
                let by_digest = |digest| reference::with_version(&source, &Version::Digest(digest));
                let (reference, digest) = (by_digest(referrer.digest), referrer.digest.to_string());
                Ok(Report { reference, digest, subject: by_digest(subject.digest), layers, access_order: order })
            },
            "nothing was attached",
        )?;
        self.common.output.show(&report, text)
    }
}

/// Builds and sends the indexes that the layers of an artifact lack.
async fn send_indexes(found: &Resolved, description: &Description, shown: &str) -> Result<(Vec<Layer>, Vec<Descriptor>), Failure> {
    let (mut layers, mut indexes) = (Vec::new(), Vec::new());
    for (number, layer) in archives(description).filter(|(_, layer)| layer.guide.is_none()) {
        let own = OwnIndex::of(&found.parts.artifacts, layer).await?;
        let index = own.index.clone();
        let sent = own.send(&*found.parts.push, &found.repository).await?;
        layers.push(Layer::new(number, layer, Some(Summary::of(&index, Some(sent.digest.to_string()), sent.size))));
        indexes.push(sent);
    }
    match indexes.is_empty() {
        true => Err(Failure::new(Code::NotFound, format!("{shown} has no layer that lacks an index and could have one"))),
        false => Ok((layers, indexes)),
    }
}

fn text(report: &Report) -> String {
    let shown = |text: &str| escape::terminal(text).into_owned();
    let holds = match &report.access_order {
        Some(order) => format!("the order of {} files", order.files),
        None => table(&report.layers),
    };
    format!("{}\n  refers to {}\n\n{holds}", shown(&report.reference), shown(&report.subject))
}
