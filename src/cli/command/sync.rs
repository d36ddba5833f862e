//! `ocifs sync`: what the kernel holds is written back first, then the daemon publishes; without a daemon this process does.

use clap::ArgMatches;

use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::{Format, Sync};
use crate::cli::staged::peer::{Asking, Peer};
use crate::cli::staged::report;
use crate::cli::staged::target::{AtMount, Target};
use crate::cli::terminal::output;
use crate::publish::{Options, Report};

/// Runs the command.
///
/// # Errors
/// At least one tag was not published: see the exit codes.
pub fn run(flags: Sync, matches: &ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    let options = options(&flags);
    let asking = Asking::new(flags.without, matches, file, environment)?;
    let target = asking.finder().find(flags.target.as_deref())?;
    let passphrases = if matches!(target, Target::Mount(_)) { asking.passphrases()? } else { Vec::new() };
    let done = asking.ask(target, async |peer| peer.sync(&options, passphrases).await)?;
    print(&done, options.dry_run, flags.format)?;
    report::ended(&done)
}

fn options(flags: &Sync) -> Options {
    Options {
        dry_run: flags.dry_run,
        as_tag: flags.as_tag.clone(),
        force: flags.force,
        theirs: flags.theirs,
        rebase: flags.rebase,
        allow_delete: flags.allow_delete,
        as_kind: flags.as_kind.map(Into::into),
        concurrency: flags.concurrency,
        no_ignore: flags.no_ignore,
        plaintext: flags.plaintext,
    }
}

/// Publishes through the daemon of a mount, showing how it goes on. The passphrases are tried before the mount's own.
///
/// # Errors
/// The daemon cannot be asked; what was not published is in the reports.
pub async fn at_mount(target: AtMount, options: Options) -> Result<Vec<Report>, Failure> {
    Peer::Daemon(Box::new(target)).sync(&options, Vec::new()).await
}

/// Prints what became of each tag.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(reports: &[Report], dry_run: bool, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&reports.iter().map(report::Row::from).collect::<Vec<_>>()),
        Format::Text if reports.is_empty() => output::line("nothing is staged"),
        Format::Text => reports.iter().filter_map(|report| report::line(report, dry_run)).try_for_each(|line| output::line(&line)),
    }
}
