//! The program: flags, configuration, environment, wiring of the modules, commands, exit codes.
//!
//! The only module that reads the environment or the home directory and that writes to a terminal.

mod command;
mod daemon;
mod exit;
mod mounts;
mod runtime;
mod settings;
mod source;
mod staged;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use command::{cache, diff, discard, inspect, mount, new, status, sync, umount};
use daemon::log::{self, Target};
use exit::Failure;
use settings::environment::Environment;
use settings::file::File;
use settings::flags::{Cli, Command};
use settings::mount_options;
use terminal::message::report;

use crate::sys::inherited::Inherited;
use crate::sys::process;

/// Runs the program with the arguments and the environment of this process.
pub fn main() -> ExitCode {
    // Before there is a second thread.
    process::share_memory_pools();
    // Before anything is opened. Without /proc nothing is mounted, and what else is started is short-lived.
    let inherited = Inherited::withhold().unwrap_or_default();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match run(arguments, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure.message);
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(arguments: Vec<OsString>, inherited: Inherited) -> Result<(), Failure> {
    let is_command = |name: &std::ffi::OsStr| name == "help" || Cli::command().find_subcommand(name).is_some();
    let arguments =
        if mount_options::is_mount_helper(&arguments, is_command) { mount_options::from_mount_helper(arguments)? } else { arguments };
    let (mut cli, mut matches) = parse(&arguments);
    if let Command::Mount(flags) = &cli.command
        && let Some(expanded) = mount::expand_options(&arguments, flags)?
    {
        (cli, matches) = parse(&expanded);
    }
    let environment = Environment::of_process();
    let file = File::load(cli.global.config.as_deref(), &environment)?;
    let verbose = cli.global.verbose;
    let daemon = matches!(cli.command, Command::Mount(_));
    if !daemon {
        log::start(&Target::Terminal, None, verbose).map_err(|error| Failure::other(error.to_string()))?;
    }
    match cli.command {
        Command::Mount(flags) => mount::run(*flags, innermost(&matches), &file, &environment, verbose, inherited),
        Command::Umount(flags) => umount::run(&flags, &file, &environment),
        Command::Status(flags) => status::run(&flags, &file, &environment),
        Command::Sync(flags) => sync::run(*flags, innermost(&matches), &file, &environment),
        Command::Diff(flags) => diff::run(*flags, innermost(&matches), &file, &environment),
        Command::Discard(flags) => discard::run(*flags, innermost(&matches), &file, &environment),
        Command::New(flags) => new::run(*flags, innermost(&matches), &file, &environment),
        Command::Refresh(flags) => status::refresh(&flags, &file, &environment),
        Command::Cache(flags) => cache::run(flags.command, innermost(&matches), &file, &environment),
        Command::Inspect(flags) => inspect::run(*flags, &file, &environment),
    }
}

/// Parses, or prints help, version or what is wrong, and ends.
fn parse(arguments: &[OsString]) -> (Cli, ArgMatches) {
    let matches = Cli::command().try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (cli, matches)
}

/// The matches of the innermost command, which hold its flags.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}
