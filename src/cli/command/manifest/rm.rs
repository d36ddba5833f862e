//! `ocifs manifest rm`.

use clap::Args;

use crate::cli::command::rm::confirm;
use crate::cli::exit::{Code, Failure};
use crate::cli::listing::holding;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, reference};
use crate::cli::terminal::{escape, output, prompt};
use crate::oci::Version;

/// Flags.
#[derive(Args, Clone, Debug)]
pub struct Rm {
    /// repository@digest, repository:tag, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// Do not ask for confirmation, and ignore a missing manifest
    #[arg(short, long)]
    force: bool,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Rm {
    /// Runs the command.
    ///
    /// # Errors
    /// The user did not confirm, or the registry refuses.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (source, push) = opened::to_change(&self.reference, invocation)?;
        let deleted = until_interrupted(async {
            let (repository, version) = reference::named(&source, push.as_ref()).await?;
            let manifest = match push.manifest(&repository, &version).await {
                Ok(manifest) => manifest,
                Err(error) if self.force && Code::from(error.kind) == Code::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let reference = reference::with_version(&source, &Version::Digest(manifest.digest));
            if !self.yes && !self.force {
                prompt::needs_terminal(&format!("delete {reference}"))?;
                let tags = holding::tags(push.as_ref(), &repository).await?;
                let tags = holding::holding(push.as_ref(), &repository, tags, &manifest.digest).await?;
                confirm(&reference, &manifest.digest, &tags, "go too").await?;
            }
            push.delete_manifest(&repository, &manifest.digest).await?;
            if let Some(subject) = manifest.subject() {
                push.unlink_referrer(&repository, &subject.digest, &manifest.digest).await?;
            }
            Ok(Some(reference))
        })?;
        deleted.map_or(Ok(()), |reference| output::line(&format!("deleted {}", escape::terminal(&reference))))
    }
}
