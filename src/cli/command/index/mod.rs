//! `ocifs index`: indexes of layers, which let them be read by ranges, and the order in which files are opened.

mod build;
mod common;
mod layers;
mod order;
mod push;
mod show;

use clap::{Args, Subcommand};

use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;

/// Build, publish and show indexes of layers: with one, a single file of a large layer is read without fetching the whole
#[derive(Args, Clone, Debug)]
pub struct Index {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Publish the indexes of an artifact's layers as a referrer, which mounts use with `--trust-index referrer`; or its access order, which all use
    Push(push::Push),
    /// Write the index of one layer, or the access order, to a file
    Build(build::Build),
    /// Summarize the indexes of an artifact's layers and its access order, or those in a file
    Show(show::Show),
}

impl Index {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact cannot be read, or has no layer that can be indexed.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Push(flags) => flags.run(&invocation),
            Action::Build(flags) => flags.run(&invocation),
            Action::Show(flags) => flags.run(&invocation),
        }
    }
}
