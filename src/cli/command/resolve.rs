//! `ocifs resolve`: prints the digest a tag points to.

use std::time::Duration;

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::{ContentFlags, RegistryFlags, Storage};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::reference;
use crate::cli::source::wiring::{self, Caching, Parts, Reading};
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

    /// The member of a multi-platform image, os/arch[/variant]; an image for another platform is an error
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,

    /// Where answers are cached.
    #[command(flatten)]
    storage: Storage,
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
        let storage = self.storage.for_command(environment)?;
        // The registry is asked, and the last answer serves while it is unreachable.
        let content = ContentFlags { tag_ttl: Some(Duration::ZERO), ..ContentFlags::default() };
        let reading = Reading { caching: Caching::Unfilled { spool: None }, ..Reading::of(&content) };
        let digest = until_interrupted(async {
            let Parts { pull, artifacts, .. } = wiring::build(&source, reading, &flags, &storage, environment)?;
            let (repository, version) = reference::named(&source, pull.as_ref()).await?;
            let mut digest = artifacts.digest(&repository, &version).await?;
            if let Some(platform) = &self.platform {
                let manifest = artifacts.named_manifest(&repository, &digest).await?;
                digest = transfer::fitting(&transfer::Source { pull, repository }, &manifest, platform).await?;
            }
            artifacts.flush().await;
            Ok(digest)
        })?;
        match self.full_reference {
            true => output::line(&reference::with_version(&source, &Version::Digest(digest))),
            false => output::line(&digest.to_string()),
        }
    }
}
