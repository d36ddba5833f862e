//! `ocifs umount`: what is staged is published first, then this mount point goes. Where nobody else uses the file system its daemon has
//! ended when the command returns; else the daemon serves them on, and they are named.
//!
//! What could not be published keeps the mount, unless the user said what to do with it.
//! Works on dead mounts and on those whose daemon hangs, and never asks the mount itself anything.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::command::discard;
use crate::cli::command::sync;
use crate::cli::daemon::mount_point;
use crate::cli::exit::{Code, Failure};
use crate::cli::mounts;
use crate::cli::mounts::busy;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::{Format, Umount};
use crate::cli::staged::orphaned::{Found, Wanted};
use crate::cli::staged::report;
use crate::cli::staged::target::{self, AtMount};
use crate::cli::terminal::escape;
use crate::control::{Client, PATIENCE, Request};
use crate::error::ErrorKind;
use crate::fs::Selection;
use crate::oci::Source;
use crate::publish::{Options, Outcome, Report};
use crate::sys::mountinfo::Mount;
use crate::sys::process::{Ending, Process};
use crate::sys::unmount::{Force, abort_connection, unmount};

/// How long a daemon may take to say that it lives.
const PULSE: Duration = Duration::from_secs(2);
/// How long a mount may be busy without anybody who uses it, or be seen in a mount namespace that is only just being made.
const MOMENT: Duration = Duration::from_secs(1);
/// How long a daemon that was asked to end may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// Something is not published: exit code 16, and it stays mounted. No mount of ours, files in use, or no permission: 15.
pub fn run(flags: &Umount, file: &File, environment: &Environment) -> Result<(), Failure> {
    let state_directory = file.state_directory(flags.state_dir.clone(), environment)?;
    let mount = mounts::at(&flags.directory, environment)?;
    let client = mounts::client(&mount, state_directory.as_deref(), environment);
    let daemon = client.daemon();
    if daemon.is_none() && (flags.discard || flags.no_sync) && !is_dead(&mount) {
        let shown = escape::path(&flags.directory);
        return Err(Failure::mount(format!("the daemon of {shown} is not found, so it cannot be told what to do with what is staged")));
    }
    // A daemon that does not answer cannot publish; what it staged stays.
    let staging = client.status(PULSE).ok().filter(|status| !status.read_only);
    if staging.is_some() {
        settle(flags, &mount, &client)?;
    }
    let inside = if flags.lazy { busy::processes(&mount.mount_point) } else { Vec::new() };
    let taken = take_away(flags, &mount, &client).inspect_err(|_| {
        if staging.is_some() {
            // It goes on as if nobody had asked. A daemon that cannot be told keeps what is staged, which loses nothing.
            let _ = client.ask(&Request::Farewell { push: true }, PATIENCE);
        }
    })?;
    if let Some(daemon) = &daemon
        && taken == Taken::Unmounted
        && let Some(places) = used_elsewhere(&client, &mount)
    {
        let users = inside.into_iter().chain(places).collect();
        tell_who_stays(flags, &mount, &Remaining { daemon: daemon.pid(), client: &client, users, stages: staging.is_some() });
        return Ok(());
    }
    if let Some(daemon) = &daemon {
        let publishing = staging.as_ref().filter(|_| !flags.no_sync && !flags.discard);
        let extra = publishing.map(|status| Duration::from_secs(status.exit_timeout)).unwrap_or_default();
        end(daemon, flags.wait.saturating_add(extra))?;
    }
    client.remove_leftovers();
    let left = staging.as_ref().and_then(|status| status.state_directory.clone()).or(state_directory);
    tell_what_is_left(flags, &mount, left.as_deref(), staging.is_some())
}

/// Where else the file system is mounted, as far as can be seen; `None` if its daemon serves nobody any more. A mount namespace begins as
/// a copy of another, so what has just begun gets a moment to let go.
fn used_elsewhere(client: &Client, mount: &Mount) -> Option<Vec<String>> {
    let begun = Instant::now();
    loop {
        let places = busy::places(mount.device);
        let is_serving = match client.status(PULSE) {
            Ok(status) => status.serving,
            // One that hangs is left to those who are seen to use it.
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

/// A daemon that others still need.
struct Remaining<'command> {
    daemon: u32,
    client: &'command Client,
    /// Who uses it: processes that were inside when it was taken out of the tree, and other places.
    users: Vec<String>,
    /// Whether anything can be staged.
    stages: bool,
}

/// Names those who still use the file system, one line each, and what of them is staged. They may be gone meanwhile, and the daemon with
/// them; then there is no more to tell.
fn tell_who_stays(flags: &Umount, mount: &Mount, remaining: &Remaining<'_>) {
    let Remaining { daemon, client, users, stages } = remaining;
    let is_here = is_mounted_here(mount);
    if *stages && (flags.discard || is_here) {
        // What is written from now on was not taken back, and the end of another mount point is another decision.
        if let Err(error) = client.ask(&Request::Farewell { push: true }, PATIENCE) {
            tracing::debug!("the daemon cannot be told what to do with later edits: {error}");
        }
    }
    let fate = match (stages, flags.no_sync && !is_here) {
        (false, _) => "",
        (true, false) => ", and publishes what they stage when they leave",
        (true, true) => ", and keeps what is staged for the next mount",
    };
    crate::cli::terminal::message::report(&format!(
        "{} is unmounted; the daemon (pid {daemon}) goes on serving its other users{fate}:",
        escape::path(&mount.mount_point)
    ));
    if users.is_empty() {
        crate::cli::terminal::message::report("  somebody whom this user cannot see");
    }
    users.iter().for_each(|user| crate::cli::terminal::message::report(&format!("  {user}")));
    let staged = if *stages { target::staged(client, Selection::All).unwrap_or_default() } else { Vec::new() };
    let names: Vec<_> = staged.iter().filter(|tag| tag.edited).map(|tag| escape::terminal(&tag.reference)).collect();
    if !names.is_empty() {
        crate::cli::terminal::message::report(&format!(
            "still staged: {}; `ocifs status` lists it, `ocifs sync` publishes it",
            names.join(", ")
        ));
    }
}

/// Publishes or takes back what is staged, as the flags say, and tells the daemon what to do with what comes in between.
fn settle(flags: &Umount, mount: &Mount, client: &Client) -> Result<(), Failure> {
    let selection = target::selection(mounts::below_root(mount));
    let target = || AtMount { mount: mount.clone(), client: client.clone(), selection: selection.clone() };
    if flags.discard {
        discard::at_mount(target(), flags.yes)?;
    }
    let push = !flags.discard && !flags.no_sync;
    client.ask(&Request::Farewell { push }, PATIENCE)?;
    if !push {
        return Ok(());
    }
    let shown = escape::path(&mount.mount_point);
    let ways = format!(
        "{shown} stays mounted: publish under another tag with `ocifs sync --as TAG`, keep the edits for the next mount with \
         `ocifs umount --no-sync {shown}`, or drop them with `ocifs umount --discard {shown}`"
    );
    let refused = |failure: Failure| match failure.code {
        Code::Interrupted => failure,
        _ => Failure::new(Code::NotPushed, format!("{}; {ways}", failure.message)),
    };
    let reports =
        until_interrupted(sync::at_mount(target(), Options { plaintext: flags.plaintext, ..Options::default() })).map_err(refused)?;
    let changed: Vec<Report> = reports.iter().filter(|report| report.outcome != Outcome::Unchanged).cloned().collect();
    if !changed.is_empty() {
        sync::print(&changed, false, Format::Text)?;
    }
    report::ended(&reports).map_err(refused)
}

/// How a mount point became free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// Others may still use the file system.
    Unmounted,
    /// Nobody can: its daemon hung, and the connection was ended.
    Aborted,
}

fn take_away(flags: &Umount, mount: &Mount, client: &Client) -> Result<Taken, Failure> {
    let force = if flags.lazy { Force::Lazy } else { Force::None };
    match unmount_in_a_moment(mount, force) {
        Ok(()) => Ok(Taken::Unmounted),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && is_dead(mount) => {
            // What is still open in it fails anyway.
            unmount(&mount.mount_point, Force::Lazy).map_err(|error| refusal(mount, &error))?;
            Ok(Taken::Unmounted)
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && hangs(client) => take_away_hung(mount),
        Err(error) => Err(refusal(mount, &error)),
    }
}

/// A mount that nobody seems to use is busy for a moment while somebody looks through `/proc`, or while a file is closed.
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

/// What the mount showed and is still staged. After a daemon that should have published it that is a failure.
fn tell_what_is_left(flags: &Umount, mount: &Mount, state_directory: Option<&Path>, published: bool) -> Result<(), Failure> {
    if !mounts::is_own(mount) {
        if published {
            crate::cli::terminal::message::report(
                "unmounted; the user who mounted it sees with `ocifs status` whether anything is still staged",
            );
        }
        return Ok(());
    }
    let Ok(source) = Source::parse(&mount.source.to_string_lossy()) else { return Ok(()) };
    let wanted = Wanted { source: Some(source), selection: Selection::All };
    let left = Found::look(state_directory, &wanted).map(|found| found.references()).unwrap_or_default();
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = left.iter().map(|reference| escape::terminal(reference)).collect();
    let message = format!("unmounted; still staged: {}; `ocifs status` lists it, `ocifs sync` publishes it", names.join(", "));
    if published && !flags.no_sync && !flags.discard {
        return Err(Failure::new(Code::NotPushed, message));
    }
    crate::cli::terminal::message::report(&message);
    Ok(())
}

fn is_dead(mount: &Mount) -> bool {
    mount_point::look(&mount.mount_point, |path| std::fs::read_dir(path).map(drop))
        .is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
}

fn hangs(client: &Client) -> bool {
    client.ask(&Request::Version, PULSE).is_err_and(|error| error.kind == ErrorKind::TimedOut)
}

/// Whoever waits for a hung daemon cannot be ended in any other way than through the connection.
fn take_away_hung(mount: &Mount) -> Result<Taken, Failure> {
    if let Err(error) = abort_connection(mount.device.1) {
        tracing::debug!(%error, "cannot abort the connection");
    }
    unmount(&mount.mount_point, Force::Lazy).map_err(|error| refusal(mount, &error))?;
    Ok(Taken::Aborted)
}

fn end(daemon: &Process, grace: Duration) -> Result<(), Failure> {
    if daemon.wait_for_end(grace) {
        return Ok(());
    }
    for ending in [Ending::Terminate, Ending::Kill] {
        if let Err(error) = daemon.end(ending) {
            return Err(Failure::mount(format!("unmounted, but the daemon (pid {}) does not end: {error}", daemon.pid())));
        }
        if daemon.wait_for_end(LAST_WORDS) {
            return Ok(());
        }
    }
    Err(Failure::mount(format!("unmounted, but the daemon (pid {}) does not end", daemon.pid())))
}

fn refusal(mount: &Mount, error: &io::Error) -> Failure {
    let shown = escape::path(&mount.mount_point);
    match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::mount(in_use(&shown, &busy::describe(mount))),
        io::ErrorKind::PermissionDenied => Failure::mount(format!("no permission to unmount {shown}: {error}")),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => Failure::mount(format!("{shown} is not mounted any more")),
        _ => Failure::mount(format!("cannot unmount {shown}: {error}")),
    }
}

fn in_use(shown: &str, users: &str) -> String {
    if users.is_empty() {
        format!("{shown} is in use by a process that this user cannot see; end it, or use `ocifs umount --lazy`")
    } else {
        format!("{shown} is in use by {users}; end that, or use `ocifs umount --lazy`")
    }
}
