//! `ocifs sync`: what the kernel holds is written back first, then the daemon publishes; without a daemon this process does.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ArgMatches;

use super::config::File as Configuration;
use super::environment::Environment;
use super::exit::Failure;
use super::flags::{Format, Reaching, Sync};
use super::interrupt::{blocking, until_interrupted};
use super::left::{Left, Reach};
use super::progress::Progress;
use super::target::{self, AtMount, Finder, Target};
use super::{escape, output, passphrases, reports};
use crate::control::{Client, Request};
use crate::fs::Selection;
use crate::publish::{Listener, Options, Report};
use crate::sys::mountinfo;
use crate::sys::syncfs::sync_file_system;

/// How long the kernel may take to write back what it holds.
const WRITE_BACK: Duration = Duration::from_secs(300);

/// Runs the command.
///
/// # Errors
/// At least one tag was not published: see the exit codes.
pub fn run(mut flags: Sync, matches: &ArgMatches, file: &Configuration, environment: &Environment) -> Result<(), Failure> {
    let options = options(&flags);
    let origins = passphrases::origins(&flags.without.keys, matches, file, environment)?;
    file.complete_storage(&mut flags.without.storage, environment)?;
    let state_directory = flags.without.storage.state_dir.clone();
    let finder = Finder { state_directory: state_directory.as_deref(), environment };
    let done = match finder.find(flags.target.as_deref())? {
        Target::Mount(target) => until_interrupted(at_mount(*target, options.clone())),
        Target::Left(wanted) => match Left::find(state_directory.as_deref(), &wanted)? {
            Some(left) => {
                left.unreadable.iter().for_each(|reason| super::warn(reason));
                let reach = reach(&flags.without, passphrases::read_all(&origins)?, file, environment);
                until_interrupted(without_daemon(&left, &reach, &options))
            }
            None => Ok(Vec::new()),
        },
    }?;
    print(&done, options.dry_run, flags.format)?;
    reports::ended(&done)
}

/// What is needed to work without a daemon.
pub fn reach<'command>(
    flags: &'command Reaching,
    passphrases: Vec<crate::seal::Passphrase>,
    file: &'command Configuration,
    environment: &'command Environment,
) -> Reach<'command> {
    Reach { flags, passphrases, offline: false, file, environment }
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
    }
}

/// Publishes through the daemon of a mount, showing how it goes on.
///
/// # Errors
/// The daemon cannot be asked; what was not published is in the reports.
pub async fn at_mount(target: AtMount, options: Options) -> Result<Vec<Report>, Failure> {
    let AtMount { mount, client, selection } = target;
    blocking(move || {
        // What processes elsewhere wrote to a detached mount is handed over when they close it.
        let is_here = mountinfo::at(&mount.mount_point).is_ok_and(|found| found.is_some_and(|found| found.device == mount.device));
        if is_here {
            write_back(&mount.mount_point, &client)?;
        }
        publish(&client, selection, options)
    })
    .await
}

fn publish(client: &Client, selection: Selection, options: Options) -> Result<Vec<Report>, Failure> {
    let mut progress = Progress::new();
    Ok(client.collect(&Request::Sync { selection, options }, &mut |event| progress.hear(&event))?)
}

/// Makes the kernel hand over what it holds of files that are still open. The daemon is asked first: only if it lives this can end,
/// and where nothing is staged there is nothing to hand over.
fn write_back(mount_point: &Path, client: &Client) -> Result<(), Failure> {
    if target::staged(client)?.is_empty() {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel();
    let path = mount_point.to_owned();
    std::thread::spawn(move || {
        // A directory that cannot be opened is one that this process may not see; what was closed is staged all the same.
        let written = File::open(path).map_or(Ok(()), |directory| sync_file_system(&directory));
        sender.send(written)
    });
    let shown = escape::path(mount_point);
    match receiver.recv_timeout(WRITE_BACK) {
        Ok(Ok(())) => Ok(()),
        // The kernel still had times of a file that was taken back meanwhile: there is nothing to hand over.
        Ok(Err(error)) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Ok(()),
        // The kernel tells this once, also of files that are gone meanwhile.
        Ok(Err(error)) => Err(Failure::other(format!(
            "something that was written to {shown} was not staged: {error}; nothing is published now. The program that wrote it was told \
             so too; look after its files, then sync again"
        ))),
        Err(_) => Err(Failure::other(format!("what was written to {shown} is not staged after {} s", WRITE_BACK.as_secs()))),
    }
}

async fn without_daemon(left: &Left, reach: &Reach<'_>, options: &Options) -> Result<Vec<Report>, Failure> {
    let progress = Arc::new(Mutex::new(Progress::new()));
    let listener: Listener = {
        let progress = Arc::clone(&progress);
        Arc::new(move |event| progress.lock().unwrap_or_else(PoisonError::into_inner).hear(&event))
    };
    Ok(left.sync(reach, options, &listener).await)
}

/// Prints what became of each tag.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(reports: &[Report], dry_run: bool, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&reports.iter().map(reports::Row::from).collect::<Vec<_>>()),
        Format::Text if reports.is_empty() => output::line("nothing is staged"),
        Format::Text => reports.iter().filter_map(|report| reports::line(report, dry_run)).try_for_each(|line| output::line(&line)),
    }
}
