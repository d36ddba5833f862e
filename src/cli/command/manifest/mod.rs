//! `ocifs manifest`: raw manifests, and indexes of them.

mod get;
mod index;
mod put;
mod rm;

use clap::{Args, Subcommand};

use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;

/// Get, put and delete raw manifests; create and update indexes
#[derive(Args, Clone, Debug)]
pub struct Manifest {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
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
    /// Delete a manifest and every tag that points to it
    #[command(visible_aliases = ["delete", "remove"])]
    Rm(rm::Rm),
    /// Create and update indexes (multi-platform images)
    Index(index::Index),
}

impl Manifest {
    /// Runs the command.
    ///
    /// # Errors
    /// The manifest cannot be read, is invalid, or the registry refuses it.
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
