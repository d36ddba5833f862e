//! `ocifs tag`: adds tags to an artifact without transferring content.

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::history::{self, Done};
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, reference};
use crate::cli::terminal::output;
use crate::oci::{Tag as Name, Version};
use crate::transfer::{self, Destination};

/// Add tags to an artifact
#[derive(Args, Clone, Debug)]
pub struct Tag {
    /// repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// The new tags
    #[arg(value_name = "TAG", required = true)]
    tags: Vec<String>,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

impl Tag {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact does not exist, or the registry refuses a tag.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let (source, push) = opened::to_change(&self.reference, &invocation)?;
        let tags: Vec<Name> = self.tags.iter().map(|tag| Name::parse(tag)).collect::<Result<_, _>>()?;
        until_interrupted(async {
            let (repository, version) = reference::named(&source, push.as_ref()).await?;
            let manifest = push.manifest(&repository, &version).await?;
            let destination = Destination { push, repository };
            for tag in tags {
                transfer::put_tag(&destination, &manifest, &tag).await?;
                let reference = reference::with_version(&source, &Version::Tag(tag));
                output::line(&format!("{reference}  {}", manifest.digest))?;
                history::add(Done::now("tag", reference, None, manifest.digest), environment);
            }
            Ok(())
        })
    }
}
