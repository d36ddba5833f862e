//! The program: the command line, settings, wiring of the modules, commands, exit codes. The only module that reads the environment or
//! the home directory and that writes to a terminal.
//!
//! - `command`: the commands, one file each
//! - `output_file`: standard output or a file for raw bytes
//! - `settings`: flags, environment, configuration file and mount options become plain structs
//! - `source`: from SOURCE or REF to the opened modules below the file system
//! - `listing`: what a registry, a repository and an artifact hold
//! - `mounts`: mounts on this machine, their health and users
//! - `staged`: staged tags, with or without a daemon
//! - `daemon`: the serving process of a mount
//! - `terminal`: messages, tables, JSON, progress, prompts, units, escaping

mod checks;
mod command;
mod daemon;
mod exit;
mod listing;
mod mounts;
mod output_file;
mod runtime;
mod settings;
mod source;
mod staged;
mod terminal;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use command::{Cli, Command};
use daemon::log::{self, LogTarget};
use exit::Failure;
use settings::environment::Environment;
use settings::file::File;
use settings::invocation::Invocation;
use settings::mount_options;
use terminal::message;

use crate::sys::inherited::Inherited;
use crate::sys::process;

/// Runs the program with the arguments and the environment of this process.
pub fn main() -> ExitCode {
    // Before there is a second thread.
    process::share_memory_pools();
    process::survive_file_size_limit();
    // Before anything is opened. Without /proc nothing is mounted, and other commands are short-lived.
    let inherited = Inherited::withhold().unwrap_or_default();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match run(arguments, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            message::report(&failure.message);
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(mut arguments: Vec<OsString>, inherited: Inherited) -> Result<(), Failure> {
    let is_command = |name: &OsStr| name == "help" || Cli::command().find_subcommand(name).is_some();
    if mount_options::is_mount_helper(&arguments, is_command) {
        arguments = mount_options::from_mount_helper(arguments)?;
    }
    let (mut cli, _) = parse(Cli::command(), &arguments);
    if let Command::Mount(flags) = &cli.command
        && let Some(expanded) = mount_options::expand(&arguments, &flags.options, &Cli::command())?
    {
        arguments = expanded;
        (cli, _) = parse(Cli::command(), &arguments);
    }
    let environment = Environment::of_process();
    let file = File::load(cli.global.config.as_deref(), &environment, &Cli::command())?;
    let command = file.as_defaults(Cli::command());
    let (cli, matches) = parse(command.clone(), &arguments);
    let verbose = cli.global.verbose;
    // A mount starts its log once it is known where to.
    if !matches!(cli.command, Command::Mount(_)) {
        log::start(&LogTarget::Terminal, None, verbose).map_err(|error| Failure::other(error.to_string()))?;
    }
    cli.command.run(Invocation { command, arguments, matches, file, environment, verbose, inherited })
}

/// Parses, or prints help, version or an error, and ends.
fn parse(command: clap::Command, arguments: &[OsString]) -> (Cli, ArgMatches) {
    let matches = command.try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (cli, matches)
}
