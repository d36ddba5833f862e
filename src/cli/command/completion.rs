//! `ocifs completion`: shell completions, generated from the clap definitions.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;
use crate::cli::terminal::output;

/// Print completions for a shell: `source <(ocifs completion bash)`
#[derive(Args, Clone, Debug)]
pub struct Completion {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completion {
    /// Runs the command.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn run(self, _: Invocation) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ocifs", &mut text);
        output::bytes(&text)
    }
}
