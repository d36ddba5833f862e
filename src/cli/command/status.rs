//! `ocifs status`: mounts, their daemons and staged tags.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::mounts::health::{self, Health};
use crate::cli::mounts::{self, busy};
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{Format, StateDirectory, Storage};
use crate::cli::settings::invocation::Invocation;
use crate::cli::staged::orphaned::{Orphaned, Reach, StagedSelection};
use crate::cli::staged::summary;
use crate::cli::terminal::{escape, message, output, units};
use crate::control::{self, CacheStatus, Client, Record, Request};
use crate::fs::{Selection, StagedTag};
use crate::oci::Source;
use crate::sys::mountinfo::Mount;

/// Longest wait for one daemon's answer.
const PULSE: Duration = Duration::from_secs(2);

/// Show mounts and staged edits: sources, cache use, daemons, edited tags
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// A mount, or any path in it; all mounts if absent
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The mount's state directory.
    #[command(flatten)]
    state: StateDirectory,
}

/// One mount, or a registry or layout whose staged tags belong to no mount. Its keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    mount_point: Option<String>,
    source: String,
    /// `running`, `hung`, `dead` or `unknown` (another user's); `left` without a mount. `detached`: not mounted in this namespace but still
    /// in use elsewhere. `ending`: without users; the daemon publishes before it exits.
    state: &'static str,
    pid: Option<u32>,
    /// Visible users of a detached mount.
    users: Vec<String>,
    /// Directory of the staged edits.
    state_directory: Option<String>,
    /// The edited tags.
    staged: Vec<StagedTag>,
    #[serde(flatten)]
    daemon: Option<Details>,
}

/// Details that only the daemon knows.
#[derive(Debug, Serialize)]
struct Details {
    version: String,
    since: u64,
    offline: bool,
    read_only: bool,
    /// Why `ls` does not list all repositories.
    unlisted: Option<String>,
    staged_bytes: u64,
    staging_size: Option<u64>,
    exit_timeout: u64,
    log: Option<String>,
    cache: CacheStatus,
}

impl Status {
    /// Runs the command.
    ///
    /// # Errors
    /// DIR is not in an ocifs mount.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let state_directory = self.state.or_default(environment);
        let found = match &self.directory {
            Some(path) => vec![mounts::containing(path, environment)?.0],
            None => mounts::all()?,
        };
        let mut rows: Vec<Row> = found.iter().map(|mount| row(mount, state_directory.as_deref(), environment)).collect();
        let only_one = self.directory.is_some();
        if !only_one {
            let detached = mounts::detached(state_directory.as_deref(), environment)?;
            rows.extend(detached.iter().map(|(record, client)| detached_row(record, client)));
        }
        rows.extend(without_mount(only_one, &rows, state_directory, &invocation)?);
        match (self.format, only_one) {
            (format @ (Format::Json | Format::Yaml), _) => return output::data(format, &rows),
            (Format::Text, true) => rows.iter().take(1).try_for_each(|row| output::line(&details(row)))?,
            (Format::Text, false) if rows.iter().all(|row| row.mount_point.is_none()) => output::line("nothing is mounted")?,
            (Format::Text, false) => output::line(&overview(&rows))?,
        }
        rows.iter().filter(|row| row.state == "detached").try_for_each(|row| output::line(&users(row)))?;
        print_staged(&rows)
    }
}

/// Staged tags outside any mount, in the state directory and those of dead mounts; with DIR, only that mount's.
fn without_mount(only_one: bool, rows: &[Row], state_directory: Option<PathBuf>, invocation: &Invocation) -> Result<Vec<Row>, Failure> {
    let mut places = BTreeMap::new();
    for row in rows.iter().filter(|row| row.state == "dead") {
        let source = if only_one { Source::parse(&row.source).ok() } else { None };
        let state = row.state_directory.as_ref().map(PathBuf::from).or_else(|| state_directory.clone());
        places.insert(state, StagedSelection { source, selection: Selection::All });
    }
    if !only_one {
        places.insert(state_directory, StagedSelection::all());
    }
    let rows = places.into_iter().map(|(state, wanted)| orphaned(state, &wanted, invocation));
    Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Staged tags in a state directory that belong to no mount: left by a crash, or because a registry was unreachable at unmount.
/// Sends no request.
fn orphaned(state_directory: Option<PathBuf>, wanted: &StagedSelection, invocation: &Invocation) -> Result<Vec<Row>, Failure> {
    let storage =
        Storage { state_dir: state_directory.clone(), ..invocation.file.group(None)? }.with_directories(&invocation.environment)?;
    let reach = Reach { storage: &storage, origins: &[], offline: true, invocation };
    until_interrupted(async {
        let orphaned = Orphaned::open(state_directory.as_deref(), wanted, &reach).await?;
        let row = |(source, staged): (&str, Vec<StagedTag>)| Row {
            mount_point: None,
            source: source.to_owned(),
            state: "left",
            pid: None,
            users: Vec::new(),
            state_directory: state_directory.as_ref().map(|path| path.to_string_lossy().into_owned()),
            staged: staged.into_iter().filter(is_worth_showing).collect(),
            daemon: None,
        };
        let rows = orphaned.staged().await?.into_iter().map(row).filter(|row| !row.staged.is_empty()).collect();
        orphaned.close().await;
        Ok(rows)
    })
}

/// Whether to print a staged tag.
fn is_worth_showing(tag: &StagedTag) -> bool {
    tag.edited || tag.error.is_some()
}

/// Prints the edited tags, with notes.
fn print_staged(rows: &[Row]) -> Result<(), Failure> {
    let tags: Vec<StagedTag> = rows.iter().flat_map(|row| row.staged.iter().cloned()).collect();
    if tags.is_empty() {
        return Ok(());
    }
    output::line(&format!("\n{}", summary::table(&tags)))?;
    let outside = rows.iter().filter(|row| row.mount_point.is_none()).flat_map(|row| &row.staged).count();
    if outside > 0 {
        output::line(&format!(
            "\n{} outside any mount: the next mount picks it up, `ocifs sync REF` publishes it",
            summary::count(outside)
        ))?;
    }
    let notes = rows.iter().filter_map(|row| summary::plain_text_note(&row.staged, row.state_directory.as_deref().unwrap_or_default()));
    notes.collect::<BTreeSet<_>>().iter().try_for_each(|note| output::line(&format!("\n{note}")))
}

fn row(mount: &Mount, state_directory: Option<&Path>, environment: &Environment) -> Row {
    let client = mounts::client(mount, state_directory, environment);
    let mut row = empty_row(&mount.mount_point, &mount.source.to_string_lossy(), &client);
    match client.status(PULSE) {
        Ok(status) => fill(&mut row, &client, status),
        Err(_) => {
            row.state = match health::health(mount) {
                Health::Dead => "dead",
                Health::Hung => "hung",
                // Alive, but too busy to answer in time.
                Health::Answers if row.pid.is_some() => "running",
                Health::Answers | Health::Unknown => "unknown",
            };
            if row.state == "dead" {
                row.state_directory = mounts::recorded_state(client.record()).map(|path| path.to_string_lossy().into_owned());
            }
        }
    }
    row
}

/// A daemon whose mount is not visible in this namespace.
fn detached_row(record: &Record, client: &Client) -> Row {
    let mut row = empty_row(&record.mount_point, &record.source, client);
    match client.status(PULSE) {
        Ok(status) => {
            row.state = if status.serving { "detached" } else { "ending" };
            fill(&mut row, client, status);
        }
        Err(_) => row.state = "hung",
    }
    row.users = record.device.map(busy::places).unwrap_or_default();
    row
}

fn empty_row(mount_point: &Path, source: &str, client: &Client) -> Row {
    Row {
        mount_point: Some(mount_point.to_string_lossy().into_owned()),
        source: source.to_owned(),
        state: "running",
        // Taken from the socket rather than the daemon's answer: scripts act on it.
        pid: client.daemon().map(|process| process.pid()),
        users: Vec::new(),
        state_directory: None,
        staged: Vec::new(),
        daemon: None,
    }
}

/// Fills in the daemon's answer.
fn fill(row: &mut Row, client: &Client, status: control::Status) {
    row.state_directory = status.state_directory.as_ref().map(|path| path.to_string_lossy().into_owned());
    row.staged = if status.read_only { Vec::new() } else { staged_of(client) };
    row.daemon = Some(Details::from(status));
}

/// Users of a detached mount, one per line.
fn users(row: &Row) -> String {
    let mount_point = escape::terminal(row.mount_point.as_deref().unwrap_or_default());
    let mut lines = vec![format!("\n{mount_point} is no longer mounted here but still in use:")];
    lines.extend(row.users.iter().map(|user| format!("  {user}")));
    if row.users.is_empty() {
        lines.push("  by open files, or by users that are not visible to this user".to_owned());
    }
    lines.join("\n")
}

/// The edited tags of a mount; empty, with a warning, if its daemon does not answer.
fn staged_of(client: &Client) -> Vec<StagedTag> {
    match client.collect::<StagedTag>(&Request::Staged { selection: Selection::All }, &mut |_| {}) {
        Ok(tags) => tags.into_iter().filter(is_worth_showing).collect(),
        Err(error) => {
            message::warn(&format!("cannot list staged tags: {error}"));
            Vec::new()
        }
    }
}

impl From<control::Status> for Details {
    fn from(status: control::Status) -> Self {
        Self {
            version: status.version,
            since: status.since,
            offline: status.offline,
            read_only: status.read_only,
            unlisted: status.unlisted,
            staged_bytes: status.staged,
            staging_size: status.staging_size,
            exit_timeout: status.exit_timeout,
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
    let cells = rows.iter().filter_map(|row| {
        let mount_point = row.mount_point.as_ref()?;
        let cache = row.daemon.as_ref().map(|daemon| units::show_size(daemon.cache.data)).unwrap_or_default();
        let state = if row.daemon.as_ref().is_some_and(|daemon| daemon.offline) { "offline" } else { row.state };
        Some(vec![
            escape::terminal(mount_point).into_owned(),
            escape::terminal(&row.source).into_owned(),
            state.to_owned(),
            uptime(row),
            cache,
            row.staged.len().to_string(),
            row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ])
    });
    output::table(&["mount point", "source", "state", "up", "cached", "staged", "pid"], cells.collect())
}

fn details(row: &Row) -> String {
    let mut pairs = vec![
        ("mount point", escape::terminal(row.mount_point.as_deref().unwrap_or_default()).into_owned()),
        ("source", escape::terminal(&row.source).into_owned()),
        ("state", row.state.to_owned()),
    ];
    pairs.extend(row.pid.map(|pid| ("pid", pid.to_string())));
    if let Some(daemon) = &row.daemon {
        pairs.push(("up", uptime(row)));
        pairs.push(("offline", if daemon.offline { "yes" } else { "no" }.to_owned()));
        pairs.push(("read-only", if daemon.read_only { "yes" } else { "no" }.to_owned()));
        pairs.extend(daemon.unlisted.as_ref().map(|why| ("listing", escape::terminal(why).into_owned())));
        if !daemon.read_only {
            let most = daemon.staging_size.map(|size| format!(" of {}", units::show_size(size))).unwrap_or_default();
            let place = row.state_directory.as_ref().map(|path| format!(" in {}", escape::terminal(path))).unwrap_or_default();
            pairs.push(("staged", format!("{}{most}{place}", units::show_size(daemon.staged_bytes))));
        }
        pairs.extend(daemon.log.as_ref().map(|log| ("log", escape::terminal(log).into_owned())));
        pairs.extend(output::cache_pairs(&daemon.cache));
    }
    output::pairs(&pairs)
}
