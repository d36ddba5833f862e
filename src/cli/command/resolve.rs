//! `ocifs resolve`: prints the digest a tag points to.

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{reference, wiring};
use crate::cli::terminal::output;
use crate::oci::{Platform, Version};
use crate::transfer;

/// Print the digest of an artifact
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "digest")]
pub struct Resolve {
    /// repository:tag, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Print the full reference by digest
    #[arg(short = 'l', long)]
    full_reference: bool,

    /// The member of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Resolve {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact does not exist.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(&self.reference, environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let pull = wiring::readable(&source, &flags, environment)?;
        let digest = until_interrupted(async {
            let (repository, version) = reference::named(&source, pull.as_ref()).await?;
            let Some(platform) = &self.platform else { return Ok(pull.resolve(&repository, &version).await?.digest) };
            let manifest = pull.manifest(&repository, &version).await?;
            Ok(transfer::member_for(&manifest, platform)?)
        })?;
        match self.full_reference {
            true => output::line(&reference::with_version(&source, &Version::Digest(digest))),
            false => output::line(&digest.to_string()),
        }
    }
}
