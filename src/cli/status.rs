//! `ocifs status` and `ocifs refresh`: what the mount table and the daemons say.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::config::File;
use super::environment::Environment;
use super::exit::Failure;
use super::flags::{Format, Refresh, Status};
use super::{escape, mount_point, mounts, output, units};
use crate::control::{self, CacheStatus, PATIENCE, Request};
use crate::error::ErrorKind;
use crate::sys::mountinfo::Mount;

/// How long one daemon may take to answer.
const PULSE: Duration = Duration::from_secs(2);

/// One mount. The keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    mount_point: String,
    source: String,
    /// `running`, `hung`, `dead` or `unknown` (another user's).
    state: &'static str,
    pid: Option<u32>,
    #[serde(flatten)]
    daemon: Option<Details>,
}

/// What only the daemon knows.
#[derive(Debug, Serialize)]
struct Details {
    version: String,
    since: u64,
    offline: bool,
    read_only: bool,
    log: Option<String>,
    cache: CacheStatus,
}

/// Runs `status`.
///
/// # Errors
/// DIR lies in no mount of ours.
pub fn run(flags: &Status, file: &File, environment: &Environment) -> Result<(), Failure> {
    let state_directory = file.state_directory(flags.state_dir.clone(), environment)?;
    let found = match &flags.directory {
        Some(path) => vec![mounts::containing(path, environment)?.0],
        None => mounts::all()?,
    };
    let rows: Vec<Row> = found.iter().map(|mount| row(mount, state_directory.as_deref(), environment)).collect();
    match (flags.format, flags.directory.is_some()) {
        (Format::Json, _) => output::json(&rows),
        (Format::Text, true) => rows.iter().try_for_each(|row| output::line(&details(row))),
        (Format::Text, false) if rows.is_empty() => output::line("nothing is mounted"),
        (Format::Text, false) => output::line(&overview(&rows)),
    }
}

fn row(mount: &Mount, state_directory: Option<&Path>, environment: &Environment) -> Row {
    let client = mounts::client(mount, state_directory, environment);
    let mut row = Row {
        mount_point: mount.mount_point.to_string_lossy().into_owned(),
        source: mount.source.to_string_lossy().into_owned(),
        state: "running",
        pid: None,
        daemon: None,
    };
    match client.status(PULSE) {
        Ok(status) => {
            row.pid = Some(status.pid);
            row.daemon = Some(Details::from(status));
        }
        Err(error) => {
            row.pid = client.daemon();
            row.state = match (error.kind, row.pid) {
                (ErrorKind::TimedOut, _) | (_, Some(_)) => "hung",
                _ => without_daemon(mount),
            };
        }
    }
    row
}

/// What a mount is whose daemon cannot be found: its socket may lie where we do not look, or be another user's.
/// Only here the mount itself is asked, from a thread that may hang.
fn without_daemon(mount: &Mount) -> &'static str {
    match mount_point::look(&mount.mount_point, |path| std::fs::read_dir(path).map(drop)) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => "dead",
        Err(error) if error.kind() == io::ErrorKind::TimedOut => "hung",
        _ => "unknown",
    }
}

impl From<control::Status> for Details {
    fn from(status: control::Status) -> Self {
        Self {
            version: status.version,
            since: status.since,
            offline: status.offline,
            read_only: status.read_only,
            log: status.log.map(|path| path.to_string_lossy().into_owned()),
            cache: status.cache,
        }
    }
}

fn uptime(row: &Row) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_secs()).unwrap_or_default();
    row.daemon.as_ref().map(|daemon| units::show_duration(now.saturating_sub(daemon.since))).unwrap_or_default()
}

fn overview(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let cache = row.daemon.as_ref().map(|daemon| units::show_size(daemon.cache.data)).unwrap_or_default();
        let state = if row.daemon.as_ref().is_some_and(|daemon| daemon.offline) { "offline" } else { row.state };
        vec![
            escape::terminal(&row.mount_point).into_owned(),
            escape::terminal(&row.source).into_owned(),
            state.to_owned(),
            uptime(row),
            cache,
            row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ]
    });
    output::table(&["mount point", "source", "state", "up", "cached", "pid"], cells.collect())
}

fn details(row: &Row) -> String {
    let mut pairs = vec![
        ("mount point", escape::terminal(&row.mount_point).into_owned()),
        ("source", escape::terminal(&row.source).into_owned()),
        ("state", row.state.to_owned()),
    ];
    pairs.extend(row.pid.map(|pid| ("pid", pid.to_string())));
    if let Some(daemon) = &row.daemon {
        pairs.push(("up", uptime(row)));
        pairs.push(("offline", if daemon.offline { "yes" } else { "no" }.to_owned()));
        pairs.extend(daemon.log.as_ref().map(|log| ("log", escape::terminal(log).into_owned())));
        pairs.extend(cache_pairs(&daemon.cache));
    }
    output::pairs(&pairs)
}

/// Figures of a cache for people.
pub fn cache_pairs(cache: &CacheStatus) -> Vec<(&'static str, String)> {
    vec![
        ("cache", escape::path(&cache.directory)),
        ("content", format!("{} of {}", units::show_size(cache.data), units::show_size(cache.size))),
        ("pinned", units::show_size(cache.pinned)),
        ("indexes", units::show_size(cache.indexes)),
        ("streams", cache.streams.to_string()),
    ]
}

/// Runs `refresh`.
///
/// # Errors
/// PATH lies in no mount, or a daemon does not answer.
pub fn refresh(flags: &Refresh, file: &File, environment: &Environment) -> Result<(), Failure> {
    let state_directory = file.state_directory(flags.state_dir.clone(), environment)?;
    let (found, path) = match &flags.path {
        Some(path) => {
            let (mount, rest) = mounts::containing(path, environment)?;
            let rest = rest.to_string_lossy().into_owned();
            (vec![mount], (!rest.is_empty()).then_some(rest))
        }
        None => (mounts::all()?, None),
    };
    if found.is_empty() {
        return Err(Failure::mount("nothing is mounted"));
    }
    for mount in &found {
        let client = mounts::client(mount, state_directory.as_deref(), environment);
        client
            .ask(&Request::Refresh { path: path.clone() }, PATIENCE)
            .map_err(|error| Failure::from(error).context(escape::path(&mount.mount_point)))?;
    }
    Ok(())
}
