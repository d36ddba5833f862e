//! `ocifs man`: manual pages, generated from the clap definitions.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;

use super::Cli;
use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;
use crate::cli::terminal::{escape, output};

/// Print the manual page, or write those of all commands to a directory
#[derive(Args, Clone, Debug)]
pub struct Man {
    /// Write one page per command to this directory; created if missing
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    /// Runs the command.
    ///
    /// # Errors
    /// A page cannot be written.
    pub fn run(self, _: Invocation) -> Result<(), Failure> {
        let mut command = Cli::command().disable_help_subcommand(true);
        // This fills in the names and inherited flags of subcommands.
        command.build();
        match self.directory {
            Some(directory) => {
                let made = fs::create_dir_all(&directory);
                made.map_err(|error| Failure::other(format!("cannot make {}: {error}", escape::path(&directory))))?;
                write(&command, &directory)
            }
            None => output::bytes(&page(&command)?),
        }
    }
}

/// Writes the pages of a command and its subcommands.
fn write(command: &Command, directory: &Path) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let file = directory.join(format!("{name}.1"));
    fs::write(&file, page(command)?).map_err(|error| Failure::other(format!("cannot write {}: {error}", escape::path(&file))))?;
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).try_for_each(|inner| write(inner, directory))
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    let rendered = Page::new(command.clone()).render(&mut page);
    rendered.map_err(|error| Failure::other(format!("cannot write a manual page: {error}")))?;
    Ok(page)
}
