//! `ocifs manifest`: manifests as they are, and indexes made of them.

mod get;
mod index;
mod put;
mod rm;

use clap::{Args, Subcommand};

use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;

/// Get, put and delete manifests as they are; make indexes
#[derive(Args, Clone, Debug)]
pub struct Manifest {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// What is done.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print a manifest, byte for byte
    #[command(visible_aliases = ["fetch", "show"])]
    Get(get::Get),
    /// Print the config of an artifact, byte for byte
    #[command(visible_aliases = ["fetch-config", "get-config"])]
    Config(get::Get),
    /// Put a manifest from a file
    #[command(visible_alias = "push")]
    Put(put::Put),
    /// Delete a manifest, with every tag that holds it
    #[command(visible_aliases = ["delete", "remove"])]
    Rm(rm::Rm),
    /// Make and change indexes (multi-platform images)
    Index(index::Index),
}

impl Manifest {
    /// Runs the command.
    ///
    /// # Errors
    /// The manifest cannot be read, is not a manifest, or is refused.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Get(flags) => flags.manifest(&invocation),
            Action::Config(flags) => flags.config(&invocation),
            Action::Put(flags) => flags.run(&invocation),
            Action::Rm(flags) => flags.run(&invocation),
            Action::Index(flags) => flags.run(&invocation),
        }
    }
}
