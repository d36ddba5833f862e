//! `ocifs mount`: everything that flags and prompts say, and the way to the background.
//!
//! Everything that a person must see (prompts, warnings, the reason of a failure) happens in the process that was
//! started; the daemon only sends its reason through the pipe. What may hang, so that it needs a thread, is left to the daemon.

use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;

use crate::cli::daemon::log;
use crate::cli::daemon::mount_point::MountPoint;
use crate::cli::daemon::plan::{Plan, Target};
use crate::cli::daemon::serve::{self, Announce};
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::environment::{self, Environment};
use crate::cli::settings::file::File;
use crate::cli::settings::flags::Mount;
use crate::cli::settings::mount_options;
use crate::cli::settings::passphrases::{self, Origin};
use crate::cli::terminal::escape;
use crate::cli::terminal::message::warn;
use crate::durable;
use crate::oci::Source;
use crate::seal::Passphrase;
use crate::sys::daemon::{Outcome, Side, split};
use crate::sys::inherited::Inherited;
use crate::sys::{mount, process};

/// The arguments with every `-o` list written out as flags, in front of those that were typed, which therefore win.
///
/// # Errors
/// An option that nobody knows.
pub fn expand_options(arguments: &[OsString], flags: &Mount) -> Result<Option<Vec<OsString>>, Failure> {
    let mut expanded = Vec::new();
    for list in &flags.options {
        expanded.extend(mount_options::flags(list)?);
    }
    let Some(place) = arguments.iter().position(|argument| argument == "mount").filter(|_| !expanded.is_empty()) else {
        return Ok(None);
    };
    let (before, after) = arguments.split_at(place + 1);
    Ok(Some([before, &expanded, after].concat()))
}

/// Runs the command.
///
/// # Errors
/// See the exit codes; nothing is left mounted.
pub fn run(
    mut flags: Mount,
    matches: &ArgMatches,
    file: &File,
    environment: &Environment,
    verbose: u8,
    inherited: Inherited,
) -> Result<(), Failure> {
    let mut origins = passphrases::in_order(&flags.reaching.keys, matches);
    // Whatever fails later, the secret does not stay readable.
    hide_secrets(&flags.reaching.keys);
    protect_memory();
    let source = source(&flags.source, environment)?;
    file.complete_mount(&mut flags, environment)?;
    let registry = match &source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Some(registry),
        Source::Layout { .. } => None,
    };
    file.complete_registry(&mut flags.reaching.registry, registry, environment)?;
    let target = target(&flags, environment)?;
    if let Some(secret) = environment::variable("OCIFS_PASSPHRASE").and_then(|secret| secret.into_string().ok()) {
        origins.push(Origin::Literal(secret.into()));
    }
    origins.extend(file.passphrases(environment)?);
    let passphrases = passphrases::read_all(&origins)?;
    process::raise_open_file_limit();
    let plan = Plan { flags, source, target, passphrases, environment: environment.clone(), verbose, inherited };
    if plan.flags.check_only {
        plan.mount_point()?;
        return serve::check(&plan);
    }
    if plan.flags.foreground {
        let point = ready_to_serve(&plan)?;
        return serve::serve(plan, point, Announce::Foreground);
    }
    in_background(plan)
}

/// The source, with a layout's directory made absolute since the daemon works in `/`.
///
/// # Errors
/// Text that follows no grammar.
pub fn source(text: &str, environment: &Environment) -> Result<Source, Failure> {
    Ok(match Source::parse(text)? {
        Source::Layout { directory, name } => Source::Layout { directory: environment.absolute(&directory, None)?, name },
        other => other,
    })
}

/// Before the first secret is read, and for the daemon too: a process that is forked stays as it is.
pub fn protect_memory() {
    if let Err(error) = process::protect_memory() {
        tracing::warn!(%error, "memory with keys is not protected");
    }
}

/// Takes passphrases of the command line out of the list of processes, with a warning.
pub fn hide_secrets(flags: &passphrases::Flags) {
    if flags.literal.is_empty() {
        return;
    }
    warn("--passphrase may be seen by others on this machine while the command starts; prefer --passphrase-file");
    if let Err(error) = passphrases::wipe_from_command_line() {
        warn(&format!("the passphrase stays visible in the list of processes: {error}"));
    }
}

fn target(flags: &Mount, environment: &Environment) -> Result<Target, Failure> {
    match mount::given_descriptor(&flags.directory) {
        Some(device) => Ok(Target::Given(device?)),
        None => environment.absolute(&flags.directory, None).map(Target::Directory),
    }
}

/// Opens the mount point, then the log, so that a mistake in the first leaves nothing behind.
fn ready_to_serve(plan: &Plan) -> Result<Option<MountPoint>, Failure> {
    let point = plan.mount_point()?;
    start_log(plan)?;
    Ok(point)
}

fn start_log(plan: &Plan) -> Result<(), Failure> {
    let target = plan.log_file().map_or(log::Target::Terminal, log::Target::File);
    let shown = match &target {
        log::Target::File(path) => escape::path(path),
        log::Target::Terminal => "standard error".to_owned(),
    };
    let failed = |error| Failure::other(format!("cannot write the log {shown}: {error}; give --log-file or --state-dir"));
    if let (log::Target::File(path), None) = (&target, &plan.flags.log.log_file) {
        for directory in [Some(plan.state_directory()?), path.parent()].into_iter().flatten() {
            durable::private_directory(directory).map_err(failed)?;
        }
    }
    log::start(&target, plan.flags.log.log_format, plan.verbose).map_err(failed)
}

/// Forks, and waits for the daemon. Where only a key is missing and somebody sits at the terminal, asks for it
/// and starts anew.
fn in_background(mut plan: Plan) -> Result<(), Failure> {
    loop {
        let side = split().map_err(|error| Failure::other(format!("cannot start a background process: {error}")))?;
        let start = match side {
            Side::Child(readiness) => {
                let announce = Announce::Parent(readiness);
                return match ready_to_serve(&plan) {
                    Ok(point) => serve::serve(plan, point, announce),
                    Err(failure) => announce.failed(failure),
                };
            }
            Side::Parent(start) => start,
        };
        match start.wait().map_err(|error| Failure::other(format!("lost the background process: {error}")))? {
            Outcome::Ready { notes } => {
                notes.lines().for_each(crate::cli::terminal::message::report);
                return Ok(());
            }
            Outcome::Failed { code, .. } if code == Code::Key as u8 && plan.passphrases.is_empty() && passphrases::can_ask() => {
                plan.passphrases = ask()?;
            }
            Outcome::Failed { code, message } => return Err(Failure::new(Code::of_number(code), message)),
            Outcome::Died => return Err(died(plan.log_file().as_deref())),
        }
    }
}

fn ask() -> Result<Vec<Passphrase>, Failure> {
    passphrases::read_all(&[Origin::Prompt])
}

fn died(log: Option<&Path>) -> Failure {
    let Some(log) = log else { return Failure::other("the background process ended unexpectedly") };
    let last = log::last_lines(log, 1).pop().map(|line| format!(": {line}")).unwrap_or_default();
    Failure::other(format!("the background process ended unexpectedly; its log is {}{last}", escape::path(log)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::settings::flags::{Cli, Command};

    fn expanded(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let Command::Mount(flags) = Cli::parse_from(&arguments).command else { panic!("not a mount") };
        let expanded = expand_options(&arguments, &flags).unwrap().unwrap_or(arguments);
        expanded.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn options_count_as_flags_and_typed_flags_win() {
        let arguments = expanded(&["ocifs", "mount", "--cache-size=1G", "-o", "ro,cache-size=2G,memory-limit=64M", "reg.io", "/mnt"]);
        let Command::Mount(flags) = Cli::parse_from(&arguments).command else { panic!("not a mount") };
        assert!(flags.read_only);
        assert_eq!((flags.reaching.storage.cache_size, flags.reaching.storage.memory_limit), (Some(1 << 30), Some(64 << 20)));
    }

    #[test]
    fn without_options_nothing_changes() {
        assert_eq!(expanded(&["ocifs", "mount", "-o", "noauto", "reg.io", "/mnt"]).len(), 6);
    }

    #[test]
    fn a_layout_s_directory_becomes_absolute() {
        let source = source("oci:some/layout:v1", &Environment::default()).unwrap();
        assert!(source.to_string().starts_with("oci:/") && source.to_string().ends_with("some/layout:v1"));
    }
}
