//! `ocifs umount`: gone means that the mount has left the tree and the daemon has ended.
//!
//! Works on dead mounts and on those whose daemon hangs, and never asks the mount itself anything.

use std::io;
use std::time::Duration;

use super::config::File;
use super::environment::Environment;
use super::exit::Failure;
use super::flags::Umount;
use super::{busy, escape, mount_point, mounts};
use crate::control::{Client, Request};
use crate::error::ErrorKind;
use crate::sys::mountinfo::Mount;
use crate::sys::process::{self, Ending};
use crate::sys::unmount::{Force, abort_connection, unmount};

/// How long a daemon may take to say that it lives.
const PULSE: Duration = Duration::from_secs(2);
/// How long a daemon that was asked to end may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// No mount of ours, files in use, or no permission: exit code 15.
pub fn run(flags: &Umount, file: &File, environment: &Environment) -> Result<(), Failure> {
    let state_directory = file.state_directory(flags.state_dir.clone(), environment)?;
    let mount = mounts::at(&flags.directory, environment)?;
    let client = mounts::client(&mount, state_directory.as_deref(), environment);
    let daemon = client.daemon();
    let force = if flags.lazy { Force::Lazy } else { Force::None };
    match unmount(&mount.mount_point, force) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && is_dead(&mount) => {
            // What is still open in it fails anyway.
            unmount(&mount.mount_point, Force::Lazy).map_err(|error| refusal(&mount, &error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && hangs(&client) => take_away_hung(&mount)?,
        Err(error) => return Err(refusal(&mount, &error)),
    }
    if flags.lazy && daemon.is_some() {
        return Ok(());
    }
    if is_elsewhere(&mount)? {
        return Ok(());
    }
    if let Some(daemon) = daemon {
        end(daemon, flags.wait)?;
    }
    client.remove_leftovers();
    Ok(())
}

/// Whether the file system is mounted on another directory too (`mount --bind`), so that its daemon is still needed.
fn is_elsewhere(mount: &Mount) -> Result<bool, Failure> {
    Ok(mounts::all()?.iter().any(|other| other.device == mount.device))
}

fn is_dead(mount: &Mount) -> bool {
    mount_point::look(&mount.mount_point, |path| std::fs::read_dir(path).map(drop))
        .is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
}

fn hangs(client: &Client) -> bool {
    client.ask(&Request::Version, PULSE).is_err_and(|error| error.kind == ErrorKind::TimedOut)
}

/// Whoever waits for a hung daemon cannot be ended in any other way than through the connection.
fn take_away_hung(mount: &Mount) -> Result<(), Failure> {
    if let Err(error) = abort_connection(mount.device.1) {
        tracing::debug!(%error, "cannot abort the connection");
    }
    unmount(&mount.mount_point, Force::Lazy).map_err(|error| refusal(mount, &error))
}

fn end(daemon: u32, grace: Duration) -> Result<(), Failure> {
    if process::wait_for_end(daemon, grace) {
        return Ok(());
    }
    for ending in [Ending::Terminate, Ending::Kill] {
        if let Err(error) = process::signal(daemon, ending)
            && error.raw_os_error() != Some(3)
        {
            return Err(Failure::mount(format!("unmounted, but the daemon (pid {daemon}) does not end: {error}")));
        }
        if process::wait_for_end(daemon, LAST_WORDS) {
            return Ok(());
        }
    }
    Err(Failure::mount(format!("unmounted, but the daemon (pid {daemon}) does not end")))
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
