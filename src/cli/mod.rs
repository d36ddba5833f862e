//! The program: command line, settings, wiring of the modules, commands, exit codes. Only this module reads the environment and the home
//! directory and writes to a terminal.
//!
//! - `command`: the commands, one file each
//! - `copies`: copies between two places, and their reports
//! - `history`: the latest commands that moved artifacts
//! - `output_file`: standard output or a file for raw bytes
//! - `settings`: flags, environment, configuration file and mount options become plain structs
//! - `source`: opens what a SOURCE or REF names
//! - `listing`: lists registries, repositories and artifacts
//! - `mounts`: mounts on this machine, their health and users
//! - `staged`: staged tags, with or without a daemon
//! - `daemon`: the serving process of a mount
//! - `terminal`: messages, tables, JSON, progress, prompts, units, escaping

mod checks;
mod command;
mod copies;
mod daemon;
mod exit;
mod history;
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
use settings::shortcuts::{self, Shortcut};
use settings::spellings;
use terminal::{escape, message};

use crate::sys::inherited::Inherited;
use crate::sys::process;

/// Runs the program with this process's arguments and environment.
pub fn main() -> ExitCode {
    // Must happen before a second thread starts.
    process::share_memory_pools();
    process::survive_file_size_limit();
    // Must happen before anything is opened. Without /proc nothing is mounted, and other commands are short-lived.
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
    let mut environment = Environment::of_process();
    let mut command = Cli::command();
    if let Some(place) = shortcuts::place_of_command(&arguments) {
        let manifest = command.find_subcommand("manifest");
        let is_subcommand = |word: &str| word == "help" || manifest.is_some_and(|manifest| manifest.find_subcommand(word).is_some());
        spellings::respell(&mut arguments, place, is_subcommand);
    }
    if let Some(place) = shortcuts::place_of_command(&arguments).filter(|place| arguments.get(*place).is_some_and(|name| !is_command(name)))
        && let Some(shortcut) = shortcut_at(place, &arguments, &mut environment)?
    {
        arguments = shortcuts::expand(&arguments, place, &shortcut)?;
        // As in oci-sync, whose listing shows only its own artifacts.
        command = command.mut_subcommand("push", |push| push.mut_arg("as_kind", |kind| kind.default_value("oci-sync")));
    }
    let (mut cli, _) = parse(command.clone(), &arguments);
    if let Command::Mount(flags) = &cli.command
        && let Some(expanded) = mount_options::expand(&arguments, &flags.options, &command)?
    {
        arguments = expanded;
        (cli, _) = parse(command.clone(), &arguments);
    }
    environment.oci_sync_file = cli.global.oci_sync_config.map(|path| environment.absolute(&path, None)).transpose()?;
    let file = File::load(cli.global.config.as_deref(), &environment, &command)?;
    let source = (command.clone(), cli.global.config);
    let command = file.as_defaults(command);
    let (cli, matches) = parse(command.clone(), &arguments);
    let verbose = cli.global.verbose;
    // A mount starts its log later, once the path is known.
    if !matches!(cli.command, Command::Mount(_)) {
        log::start(&LogTarget::Terminal, None, verbose).map_err(|error| Failure::other(error.to_string()))?;
    }
    cli.command.run(Invocation { command, arguments, matches, file, source, environment, verbose, inherited })
}

/// The shortcut that an argument names. `None` leaves an unknown word to the parser, unless it is used like a shortcut.
fn shortcut_at(place: usize, arguments: &[OsString], environment: &mut Environment) -> Result<Option<Shortcut>, Failure> {
    let named = shortcuts::named_file(arguments);
    environment.oci_sync_file = named.map(|path| environment.absolute(&path, None)).transpose()?;
    let name = arguments.get(place).map(|name| name.to_string_lossy()).unwrap_or_default();
    let found = shortcuts::all(environment)?.remove(name.as_ref());
    if found.is_none() && shortcuts::is_verb(arguments.get(place + 1)) {
        let shown = escape::terminal(&name);
        return Err(Failure::usage(format!("unknown command or shortcut `{shown}`; see `ocifs --help` and `ocifs shortcut list`")));
    }
    Ok(found)
}

/// Parses the arguments, or prints help, version or an error and exits.
fn parse(command: clap::Command, arguments: &[OsString]) -> (Cli, ArgMatches) {
    let matches = command.try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (cli, matches)
}
