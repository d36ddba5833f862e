//! `ocifs status` and `ocifs refresh`: what the mount table and the daemons say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::daemon::mount_point;
use crate::cli::exit::Failure;
use crate::cli::mounts;
use crate::cli::mounts::busy;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::{Format, Reaching, Refresh, Status};
use crate::cli::staged::orphaned::{Here, Reach, Wanted};
use crate::cli::staged::summary;
use crate::cli::staged::target::recorded_state;
use crate::cli::terminal::escape;
use crate::cli::terminal::output;
use crate::cli::terminal::units;
use crate::control::{self, CacheStatus, Client, PATIENCE, Record, Request};
use crate::error::ErrorKind;
use crate::fs::{Selection, StagedTag};
use crate::oci::Source;
use crate::sys::mountinfo::Mount;

/// How long one daemon may take to answer.
const PULSE: Duration = Duration::from_secs(2);

/// One mount, or a registry or layout for which something is staged without one. The keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    mount_point: Option<String>,
    source: String,
    /// `running`, `hung`, `dead` or `unknown` (another user's); `left` without a mount. `detached`: mounted nowhere in this namespace and
    /// served for others. `ending`: used by nobody, the daemon publishes on its way out.
    state: &'static str,
    pid: Option<u32>,
    /// Who uses a detached mount, as far as can be seen.
    users: Vec<String>,
    /// Where edits are staged.
    state_directory: Option<String>,
    /// The edited tags.
    staged: Vec<StagedTag>,
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
    staged_bytes: u64,
    staging_size: Option<u64>,
    exit_timeout: u64,
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
    let mut rows: Vec<Row> = found.iter().map(|mount| row(mount, state_directory.as_deref(), environment)).collect();
    if flags.directory.is_none() {
        let detached = mounts::detached(state_directory.as_deref(), environment)?;
        rows.extend(detached.iter().map(|(record, client)| detached_row(record, client)));
    }
    rows.extend(without_mount(flags, &rows, state_directory, file, environment)?);
    match (flags.format, flags.directory.is_some()) {
        (Format::Json, _) => output::json(&rows)?,
        (Format::Text, true) => rows.iter().take(1).try_for_each(|row| output::line(&details(row)))?,
        (Format::Text, false) if rows.iter().all(|row| row.mount_point.is_none()) => output::line("nothing is mounted")?,
        (Format::Text, false) => output::line(&overview(&rows))?,
    }
    if flags.format == Format::Json {
        return Ok(());
    }
    rows.iter().filter(|row| row.state == "detached").try_for_each(|row| output::line(&users(row)))?;
    print_staged(&rows)
}

/// What is staged and held by nobody, here and where dead mounts staged; with DIR only what that one left.
fn without_mount(
    flags: &Status,
    rows: &[Row],
    state_directory: Option<PathBuf>,
    file: &File,
    environment: &Environment,
) -> Result<Vec<Row>, Failure> {
    let mut places = BTreeMap::new();
    for row in rows.iter().filter(|row| row.state == "dead") {
        let source = flags.directory.as_ref().and_then(|_| Source::parse(&row.source).ok());
        let state = row.state_directory.as_ref().map(PathBuf::from).or_else(|| state_directory.clone());
        places.insert(state, Wanted { source, selection: Selection::All });
    }
    if flags.directory.is_none() {
        places.insert(state_directory, Wanted::all());
    }
    let rows = places.into_iter().map(|(state, wanted)| left(state, &wanted, file, environment));
    Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// What is staged in a state directory and held by no mount: a crash left it, or a registry was away when its mount ended. Asks no
/// registry.
fn left(state_directory: Option<PathBuf>, wanted: &Wanted, file: &File, environment: &Environment) -> Result<Vec<Row>, Failure> {
    let mut flags = Reaching::default();
    flags.storage.state_dir.clone_from(&state_directory);
    file.complete_storage(&mut flags.storage, environment)?;
    let reach = Reach { flags: &flags, origins: &[], offline: true, file, environment };
    until_interrupted(async {
        let here = Here::open(state_directory.as_deref(), wanted, &reach).await?;
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
        let rows = here.staged().await?.into_iter().map(row).filter(|row| !row.staged.is_empty()).collect();
        here.close().await;
        Ok(rows)
    })
}

/// Whether a person needs to know of a staged tag.
fn is_worth_showing(tag: &StagedTag) -> bool {
    tag.edited || tag.error.is_some()
}

/// The list of edited tags, and what a person must know of it.
fn print_staged(rows: &[Row]) -> Result<(), Failure> {
    let tags: Vec<StagedTag> = rows.iter().flat_map(|row| row.staged.iter().cloned()).collect();
    if tags.is_empty() {
        return Ok(());
    }
    output::line(&format!("\n{}", summary::table(&tags)))?;
    let held_by_nobody = rows.iter().filter(|row| row.mount_point.is_none()).flat_map(|row| &row.staged).count();
    if held_by_nobody > 0 {
        output::line(&format!("\n{} in no mount: the next mount shows it; `ocifs sync REF` publishes it", summary::count(held_by_nobody)))?;
    }
    let notes = rows.iter().filter_map(|row| summary::plain_text_note(&row.staged, row.state_directory.as_deref().unwrap_or_default()));
    notes.collect::<BTreeSet<_>>().iter().try_for_each(|note| output::line(&format!("\n{note}")))
}

fn row(mount: &Mount, state_directory: Option<&Path>, environment: &Environment) -> Row {
    let client = mounts::client(mount, state_directory, environment);
    let mut row = empty_row(&mount.mount_point, &mount.source.to_string_lossy(), &client);
    match client.status(PULSE) {
        Ok(status) => fill(&mut row, &client, status),
        Err(error) => {
            row.state = match (error.kind, row.pid) {
                (ErrorKind::TimedOut, _) | (_, Some(_)) => "hung",
                _ => without_daemon(mount),
            };
            if row.state == "dead" {
                row.state_directory = recorded_state(client.record()).map(|path| path.to_string_lossy().into_owned());
            }
        }
    }
    row
}

/// A daemon whose mount is not in the table of this namespace.
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
        // Not what a daemon says of itself: others act on it.
        pid: client.daemon().map(|process| process.pid()),
        users: Vec::new(),
        state_directory: None,
        staged: Vec::new(),
        daemon: None,
    }
}

/// What a daemon says.
fn fill(row: &mut Row, client: &Client, status: control::Status) {
    row.state_directory = status.state_directory.as_ref().map(|path| path.to_string_lossy().into_owned());
    row.staged = if status.read_only { Vec::new() } else { staged_of(client) };
    row.daemon = Some(Details::from(status));
}

/// Who uses a detached mount, one line each.
fn users(row: &Row) -> String {
    let mount_point = escape::terminal(row.mount_point.as_deref().unwrap_or_default());
    let mut lines = vec![format!("\n{mount_point} is not mounted here any more, and still used:")];
    lines.extend(row.users.iter().map(|user| format!("  {user}")));
    if row.users.is_empty() {
        lines.push("  by open files, or by somebody whom this user cannot see".to_owned());
    }
    lines.join("\n")
}

/// The edited tags of a mount. A daemon that cannot say costs them, with a warning.
fn staged_of(client: &Client) -> Vec<StagedTag> {
    match client.collect::<StagedTag>(&Request::Staged { selection: Selection::All }, &mut |_| {}) {
        Ok(tags) => tags.into_iter().filter(is_worth_showing).collect(),
        Err(error) => {
            crate::cli::terminal::message::warn(&format!("what is staged is not known: {error}"));
            Vec::new()
        }
    }
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

/// Whether a mount's daemon is gone for good, so that nothing of it can be asked.
pub fn is_dead(mount: &Mount) -> bool {
    without_daemon(mount) == "dead"
}

impl From<control::Status> for Details {
    fn from(status: control::Status) -> Self {
        Self {
            version: status.version,
            since: status.since,
            offline: status.offline,
            read_only: status.read_only,
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
        if !daemon.read_only {
            let most = daemon.staging_size.map(|size| format!(" of {}", units::show_size(size))).unwrap_or_default();
            let place = row.state_directory.as_ref().map(|path| format!(" in {}", escape::terminal(path))).unwrap_or_default();
            pairs.push(("staged", format!("{}{most}{place}", units::show_size(daemon.staged_bytes))));
        }
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
