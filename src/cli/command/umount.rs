//! `ocifs umount`: publishes staged edits, then unmounts. If nothing else uses the file system, the daemon has exited when the command
//! returns; otherwise it keeps serving the remaining users, and they are listed.
//!
//! If edits cannot be published, the mount stays unless the user decided otherwise. Works on dead mounts and on hung daemons. Only a
//! mount without a daemon is accessed itself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::{discard, sync};
use crate::cli::exit::{Code, Failure};
use crate::cli::mounts::{self, busy, health};
use crate::cli::runtime::{EDITS_ARE_KEPT, resumable};
use crate::cli::settings::flags::{Format, StateDirectory};
use crate::cli::settings::invocation::Invocation;
use crate::cli::staged::orphaned::{StagedSelection, Unheld};
use crate::cli::staged::report;
use crate::cli::staged::target::{self, AtMount};
use crate::cli::terminal::{escape, message, units};
use crate::control::{Client, PATIENCE, Request};
use crate::error::ErrorKind;
use crate::fs::Selection;
use crate::oci::Source;
use crate::publish::{Options, Outcome, Report};
use crate::sys::mountinfo::Mount;
use crate::sys::process::{Ending, Process};
use crate::sys::unmount::{Force, abort_connection, unmount};

/// Longest wait for a sign of life from the daemon.
const PULSE: Duration = Duration::from_secs(2);
/// How long a mount may stay busy without visible users, or appear in a mount namespace that is just being created.
const MOMENT: Duration = Duration::from_secs(1);
/// How long a daemon may take to exit after a signal.
const GRACE: Duration = Duration::from_secs(2);

/// Publish staged edits, then unmount; works on dead and hung daemons too
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "unmount")]
pub struct Umount {
    /// The mount point. Other users of the file system (containers, bind mounts) are listed and keep being served
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Detach it at once, even while files are open
    #[arg(short, long)]
    lazy: bool,

    /// Publish nothing; staged edits stay for the next mount
    #[arg(long, conflicts_with = "discard")]
    no_sync: bool,

    /// Discard staged edits instead of publishing them (asks unless --yes)
    #[arg(long)]
    discard: bool,

    /// Publish files of encrypted artifacts unencrypted; refused without this flag
    #[arg(long, conflicts_with_all = ["no_sync", "discard"])]
    plaintext: bool,

    /// Do not ask for confirmation
    #[arg(short, long, requires = "discard")]
    yes: bool,

    /// Wait this long for the daemon before killing it
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "10s", hide_default_value = false)]
    wait: Duration,

    /// The mount's state directory.
    #[command(flatten)]
    state: StateDirectory,
}

impl Umount {
    /// Runs the command.
    ///
    /// # Errors
    /// Unpublished edits: exit code 16, and the mount stays. Not an ocifs mount, files in use, or no permission: 15.
    pub fn run(self, Invocation { environment, .. }: Invocation) -> Result<(), Failure> {
        let flags = &self;
        let state_directory = flags.state.clone().or_default(&environment);
        let mount = mounts::at(&flags.directory, &environment)?;
        let client = mounts::client(&mount, state_directory.as_deref(), &environment);
        let daemon = client.daemon();
        if daemon.is_none() && (flags.discard || flags.no_sync) && !health::is_dead(&mount) {
            let (shown, owner) = (escape::path(&flags.directory), owner(&mount));
            return Err(Failure::mount(format!("cannot find the daemon of {shown} to tell it what to do with staged edits{owner}")));
        }
        // A hung daemon cannot publish; its edits stay staged.
        let staging = client.status(PULSE).ok().filter(|status| !status.read_only);
        if staging.is_some() {
            publish_or_discard(flags, &mount, &client)?;
        }
        let inside = if flags.lazy { busy::processes(&mount.mount_point) } else { Vec::new() };
        let removed = remove(flags, &mount, &client).inspect_err(|_| {
            if staging.is_some() {
                // The mount stays, so re-enable publishing at its end. An unreachable daemon keeps its edits staged.
                let _ = client.ask(&Request::PublishAtEnd { push: true }, PATIENCE);
            }
        })?;
        if let Some(daemon) = &daemon
            && removed == Removed::Unmounted
            && let Some(places) = used_elsewhere(&client, &mount)
        {
            let users = inside.into_iter().chain(places).collect();
            report_users(flags, &mount, &Remaining { daemon: daemon.pid(), client: &client, users, stages: staging.is_some() });
            return Ok(());
        }
        if let Some(daemon) = &daemon {
            let publishing = staging.as_ref().filter(|_| !flags.no_sync && !flags.discard);
            let extra = publishing.map(|status| Duration::from_secs(status.exit_timeout)).unwrap_or_default();
            end(daemon, flags.wait.saturating_add(extra))?;
        }
        client.remove_leftovers();
        let left = staging.as_ref().and_then(|status| status.state_directory.clone()).or(state_directory);
        report_unpublished(flags, &mount, left.as_deref(), staging.is_some())
    }
}

/// Other visible places where the file system is mounted; `None` once its daemon serves no user. A new mount namespace starts as a copy of
/// another, so new processes get a moment to release it.
fn used_elsewhere(client: &Client, mount: &Mount) -> Option<Vec<String>> {
    let begun = Instant::now();
    loop {
        let places = busy::places(mount.device);
        let is_serving = match client.status(PULSE) {
            Ok(status) => status.serving,
            // A hung daemon stays if it has visible users.
            Err(error) => error.kind == ErrorKind::TimedOut && !places.is_empty(),
        };
        if !is_serving {
            return None;
        }
        if begun.elapsed() >= MOMENT || is_mounted_here(mount) {
            return Some(places);
        }
        std::thread::sleep(MOMENT / 10);
    }
}

/// Whether the file system is mounted in this namespace.
fn is_mounted_here(mount: &Mount) -> bool {
    mounts::all().is_ok_and(|all| all.iter().any(|other| other.device == mount.device))
}

/// A daemon that still has users.
struct Remaining<'command> {
    daemon: u32,
    client: &'command Client,
    /// Its users: processes that were inside at detach time, and other mount points.
    users: Vec<String>,
    /// Whether the mount is writable.
    stages: bool,
}

/// Lists the remaining users of the file system, one per line, and staged tags. If the last user and the daemon leave meanwhile, prints
/// nothing more.
fn report_users(flags: &Umount, mount: &Mount, remaining: &Remaining<'_>) {
    let Remaining { daemon, client, users, stages } = remaining;
    let is_here = is_mounted_here(mount);
    if *stages && (flags.discard || is_here) {
        // Later edits were not discarded, and the other mount points end by their own decision.
        if let Err(error) = client.ask(&Request::PublishAtEnd { push: true }, PATIENCE) {
            tracing::debug!("cannot tell the daemon what to do with later edits: {error}");
        }
    }
    let fate = match (stages, flags.no_sync && !is_here) {
        (false, _) => "",
        (true, false) => ", and publishes their edits when they leave",
        (true, true) => ", and keeps staged edits for the next mount",
    };
    message::report(&format!(
        "{} is unmounted; the daemon (pid {daemon}) keeps serving its other users{fate}:",
        escape::path(&mount.mount_point)
    ));
    if users.is_empty() {
        message::report("  users that are not visible to this user");
    }
    users.iter().for_each(|user| message::report(&format!("  {user}")));
    let staged = if *stages { health::staged(client, Selection::All).unwrap_or_default() } else { Vec::new() };
    let names: Vec<_> = staged.iter().filter(|tag| tag.edited).map(|tag| escape::terminal(&tag.reference)).collect();
    if !names.is_empty() {
        message::report(&format!("still staged: {} (see `ocifs status`, publish with `ocifs sync`)", names.join(", ")));
    }
}

/// Publishes or discards staged edits as the flags say, and tells the daemon how to treat edits made in between.
fn publish_or_discard(flags: &Umount, mount: &Mount, client: &Client) -> Result<(), Failure> {
    let selection = target::selection(mounts::below_root(mount));
    let target = || AtMount { mount: mount.clone(), client: client.clone(), selection: selection.clone() };
    if flags.discard {
        let discarded = discard::at_mount(target(), flags.yes)?;
        discarded.iter().try_for_each(|reference| discard::report(reference))?;
    }
    let push = !flags.discard && !flags.no_sync;
    client.ask(&Request::PublishAtEnd { push }, PATIENCE)?;
    if !push {
        return Ok(());
    }
    let refused = |failure: Failure| match failure.code {
        Code::Interrupted => failure,
        code => Failure::new(Code::NotPushed, format!("{}; {}", failure.message, ways_out(code, &escape::path(&mount.mount_point)))),
    };
    let reports = resumable(sync::at_mount(target(), Options { plaintext: flags.plaintext, ..Options::default() }), EDITS_ARE_KEPT)
        .map_err(refused)?;
    let changed: Vec<Report> = reports.iter().filter(|report| report.outcome != Outcome::Unchanged).cloned().collect();
    if !changed.is_empty() {
        sync::print(&changed, false, Format::Text)?;
    }
    report::outcome(&reports).map_err(refused)
}

/// Suggests what to do with edits that failed with this code.
fn ways_out(code: Code, shown: &str) -> String {
    let first = match code {
        Code::Conflict => "publish under another tag with `ocifs sync --as TAG`, ".to_owned(),
        Code::Unreachable => "try again when the registry answers, ".to_owned(),
        Code::Authentication => "try again after `ocifs login`, ".to_owned(),
        Code::Key => format!("give the passphrase with `ocifs sync --passphrase-file FILE {shown}`, "),
        Code::NotPushed => format!("publish anyway with `ocifs sync --force {shown}`, "),
        _ => String::new(),
    };
    format!(
        "{shown} stays mounted: {first}keep the edits for the next mount with `ocifs umount --no-sync {shown}`, \
         or drop them with `ocifs umount --discard {shown}`"
    )
}

/// How a mount was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    /// Unmounted; the file system may have other users.
    Unmounted,
    /// The daemon hung and its connection was aborted.
    Aborted,
}

fn remove(flags: &Umount, mount: &Mount, client: &Client) -> Result<Removed, Failure> {
    let force = if flags.lazy { Force::Lazy } else { Force::None };
    match unmount_in_a_moment(mount, force) {
        Ok(()) => Ok(Removed::Unmounted),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && health::is_dead(mount) => {
            // Open files in it fail anyway.
            unmount(&mount.mount_point, Force::Lazy).map_err(|error| refusal(mount, &error))?;
            Ok(Removed::Unmounted)
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && hangs(client) => abort_hung(mount),
        Err(error) => Err(refusal(mount, &error)),
    }
}

/// Retries: a mount without visible users is busy for a moment while a process scans `/proc` or a file is being closed.
fn unmount_in_a_moment(mount: &Mount, force: Force) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match unmount(&mount.mount_point, force) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < MOMENT && busy::describe(mount).is_empty() => {
                std::thread::sleep(MOMENT / 10);
            }
            other => return other,
        }
    }
}

/// Reports tags of the mount that are still staged; a failure if the daemon should have published them.
fn report_unpublished(flags: &Umount, mount: &Mount, state_directory: Option<&Path>, published: bool) -> Result<(), Failure> {
    if !mounts::is_own(mount) {
        if published {
            message::report("unmounted; run `ocifs status` as the user who mounted it to see what is still staged");
        }
        return Ok(());
    }
    let Ok(source) = Source::parse(&mount.source.to_string_lossy()) else { return Ok(()) };
    let wanted = StagedSelection { source: Some(source), selection: Selection::All };
    let left = Unheld::look(state_directory, &wanted).map(|found| found.references()).unwrap_or_default();
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = left.iter().map(|reference| escape::terminal(reference)).collect();
    let message = format!("unmounted; still staged: {} (see `ocifs status`, publish with `ocifs sync`)", names.join(", "));
    if published && !flags.no_sync && !flags.discard {
        return Err(Failure::new(Code::NotPushed, message));
    }
    message::report(&message);
    Ok(())
}

fn hangs(client: &Client) -> bool {
    client.ask(&Request::Version, PULSE).is_err_and(|error| error.kind == ErrorKind::TimedOut)
}

/// Aborts the connection: nothing else ends processes blocked on a hung daemon.
fn abort_hung(mount: &Mount) -> Result<Removed, Failure> {
    if let Err(error) = abort_connection(mount.device.1) {
        tracing::debug!(%error, "cannot abort the connection");
    }
    unmount(&mount.mount_point, Force::Lazy).map_err(|error| refusal(mount, &error))?;
    Ok(Removed::Aborted)
}

fn end(daemon: &Process, grace: Duration) -> Result<(), Failure> {
    if daemon.wait_for_end(grace) {
        return Ok(());
    }
    for ending in [Ending::Terminate, Ending::Kill] {
        if let Err(error) = daemon.end(ending) {
            return Err(Failure::mount(format!("unmounted, but the daemon (pid {}) is still running: {error}", daemon.pid())));
        }
        if daemon.wait_for_end(GRACE) {
            return Ok(());
        }
    }
    Err(Failure::mount(format!("unmounted, but the daemon (pid {}) is still running", daemon.pid())))
}

fn refusal(mount: &Mount, error: &io::Error) -> Failure {
    let shown = escape::path(&mount.mount_point);
    match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::mount(in_use(&shown, &busy::describe(mount))),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotFound if !is_mounted_here(mount) => {
            Failure::mount(format!("{shown} is no longer mounted"))
        }
        // fusermount3 does not find other users' mounts.
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => match owner(mount) {
            owner if owner.is_empty() => Failure::mount(format!("no permission to unmount {shown}: {error}")),
            owner => Failure::mount(format!("no permission to unmount {shown}{owner}")),
        },
        _ => Failure::mount(format!("cannot unmount {shown}: {error}")),
    }
}

/// Names the other user who made the mount, as a message suffix; empty for one's own.
fn owner(mount: &Mount) -> String {
    mounts::other_owner(mount).map(|owner| format!("; it was mounted by {owner}")).unwrap_or_default()
}

fn in_use(shown: &str, users: &str) -> String {
    if users.is_empty() {
        format!("{shown} is in use by a process that this user cannot see; end it or use `ocifs umount --lazy`")
    } else {
        format!("{shown} is in use by {users}; end them or use `ocifs umount --lazy`")
    }
}
