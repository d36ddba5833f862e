//! The serving process: contacts the source, mounts, answers commands and cleans up.
//!
//! The order is part of the interface: nothing is mounted before the source has answered, success is announced only once the mount answers,
//! and a failure in between is undone.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::blocking::spawn_blocking;
use crate::cli::daemon::attached::Attached;
use crate::cli::daemon::contents::{self, Contents};
use crate::cli::daemon::handler::RequestHandler;
use crate::cli::daemon::info::MountInfo;
use crate::cli::daemon::mount_point::MountPoint;
use crate::cli::daemon::plan::{MountTarget, Plan};
use crate::cli::daemon::root;
use crate::cli::daemon::service_manager;
use crate::cli::daemon::shutdown::{self, Signals};
use crate::cli::exit::{Code, Failure};
use crate::cli::source::wiring::{self, Parts};
use crate::cli::staged::summary;
use crate::cli::terminal::{escape, message};
use crate::control::{Record, Server};
use crate::error::{Error, ErrorKind};
use crate::fs::{self, FileSystem, ROOT, Root};
use crate::fuse::{self, Session};
use crate::sys::daemon::Readiness;
use crate::sys::{mount, process, space};

/// Default time for contacting the source and mounting.
const WAIT: Duration = Duration::from_secs(120);
/// How long a new mount may take to answer.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long to wait for the tree of a mounted artifact: small ones are ready by then; larger ones are mounted anyway.
const LAYERS: Duration = Duration::from_secs(5);
/// How long to wait for facts that only lead to a note.
const REMARKS: Duration = Duration::from_secs(3);
/// Most orphaned tags that a new mount lists.
const ANNOUNCED: usize = 50;
/// How long background work may take to stop.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// The kernel's read-ahead, where we may set it, in KiB.
const READ_AHEAD_KIB: u32 = 2048;

/// Receiver of the startup outcome.
pub enum Announce {
    /// The service manager; the caller prints failures.
    Foreground,
    /// The process that forked us.
    Parent(Readiness),
}

impl Announce {
    /// Announces that the mount answers, with notes for the user.
    fn ready(self, info: &MountInfo, notes: &[String]) -> Result<(), Failure> {
        match self {
            Self::Foreground => {
                let (source, point) = (escape::terminal(&info.source), escape::path(&info.mount_point));
                message::report(&format!("{source} is mounted on {point}"));
                notes.iter().for_each(|note| message::report(note));
                service_manager::tell(&[sd_notify::NotifyState::Ready]);
                Ok(())
            }
            Self::Parent(readiness) => readiness
                .ready(&notes.join("\n"))
                .map_err(|error| Failure::other(format!("the process that started this mount is gone: {error}"))),
        }
    }

    /// Reports a failure, with the log's path if the log has more. The daemon then ends quietly.
    fn failed_after_start(self, failure: Failure, log: Option<&Path>) -> Result<(), Failure> {
        match log {
            Some(log) if matches!(failure.code, Code::Other | Code::Unreachable | Code::Mount) && matches!(self, Self::Parent(_)) => {
                let message = format!("{} (log: {})", failure.message, escape::path(log));
                self.failed(Failure::new(failure.code, message))
            }
            _ => self.failed(failure),
        }
    }

    /// Reports a failure. The daemon then ends quietly.
    pub fn failed(self, failure: Failure) -> Result<(), Failure> {
        match self {
            Self::Foreground => Err(failure),
            Self::Parent(readiness) => {
                // The parent may be gone.
                let _ = readiness.failed(failure.code as u8, &escape::one_line(&failure.message));
                Ok(())
            }
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("ocifs").enable_all();
    builder.build().map_err(|error| Failure::other(format!("cannot start threads: {error}")))
}

/// Contacts the source, then exits.
///
/// # Errors
/// As [`serve`].
pub fn check(plan: &Plan) -> Result<(), Failure> {
    runtime()?.block_on(async { root::contact(plan, &plan.parts()?).await.map(drop) })
}

/// Serves until unmounted, on the mount point or an existing FUSE mount.
///
/// # Errors
/// In the foreground, why the mount failed; in the background the error goes to the parent.
pub fn serve(mut plan: Plan, point: Option<MountPoint>, announce: Announce) -> Result<(), Failure> {
    process::make_new_files_private();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return announce.failed(failure),
    };
    // Handle signals before mounting, so that none kills the process and leaves the mount behind.
    let started = runtime.block_on(async {
        let mut signals = Signals::watch()?;
        tokio::select! {
            mounted = start(&mut plan, point) => Ok((mounted?, signals)),
            () = signals.received() => Err(Failure::other("interrupted")),
        }
    });
    let (mounted, signals) = match started {
        Ok(started) => started,
        Err(failure) => {
            tracing::error!("{failure}");
            // Reported last, after cleanup.
            runtime.shutdown_timeout(SHUTDOWN);
            return announce.failed_after_start(failure, plan.log_file().as_deref());
        }
    };
    let result = runtime.block_on(mounted.run(announce, signals));
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

/// A mount that answers requests.
struct Mounted {
    session: Session,
    attached: Option<Attached>,
    device: Option<(u32, u32)>,
    server: Option<Server>,
    handler: Arc<RequestHandler>,
    parts: Parts,
    stop: Arc<Notify>,
    /// Notes printed once the mount answers.
    notes: Vec<String>,
}

async fn start(plan: &mut Plan, point: Option<MountPoint>) -> Result<Mounted, Failure> {
    let wait = plan.flags.wait.unwrap_or(WAIT);
    let late = |_| Failure::new(Code::Unreachable, format!("{} did not answer within {} s", plan.source, wait.as_secs()));
    let parts = plan.parts()?;
    let root = timeout(wait, root::contact(plan, &parts)).await.map_err(late)??;
    let writing = writing(plan, &parts)?;
    let contents = if plan.flags.access.offline {
        Contents::default()
    } else {
        timeout(REMARKS, contents::of(&plan.source, &parts)).await.unwrap_or_default()
    };
    let info = Arc::new(MountInfo { unlisted: contents.unlisted.clone(), ..info(plan, point.as_ref(), writing.as_ref()) });
    let is_artifact = matches!(root, Root::Content(..));
    let config = root::config(plan, root, &parts, &info, writing);
    let file_system = FileSystem::new(config, parts.artifacts.clone()).map_err(|error| Failure::other(error.to_string()))?;
    let file_system = Arc::new(file_system);
    if is_artifact {
        root_is_readable(&file_system).await?;
    }
    let mut notes: Vec<String> = contents.unlisted.into_iter().chain(contents.empty).collect();
    if !info.is_read_only() {
        notes.extend(adopt_orphaned(&file_system).await);
    }
    let (undo, session, attached) = mount_file_system(plan, point, &file_system, info.is_read_only()).await?;
    let device = attached.as_ref().and_then(Attached::device);
    let server = device.map(|device| listen(plan, &info, device)).transpose()?;
    let stop = Arc::new(Notify::new());
    let handler = Arc::new(RequestHandler {
        info,
        file_system,
        cache: parts.cache.clone(),
        artifacts: parts.artifacts.clone(),
        source: plan.source.clone(),
        attached: attached.clone(),
        connection: session.connection(),
        push_at_end: AtomicBool::new(true),
        stop: Arc::clone(&stop),
    });
    // Only now: flags may name such a descriptor, for example for certificates.
    std::mem::take(&mut plan.inherited).close();
    undo.keep();
    Ok(Mounted { session, attached, device, server, handler, parts, stop, notes })
}

/// Mounts the file system and waits until it answers. It is unmounted again unless [`Undo::keep`] is called.
async fn mount_file_system(
    plan: &mut Plan,
    point: Option<MountPoint>,
    file_system: &Arc<FileSystem>,
    read_only: bool,
) -> Result<(Undo, Session, Option<Attached>), Failure> {
    let (descriptor, attached) = attach(plan, point, read_only)?;
    let undo = Undo(attached.clone());
    let options = fuse::Options::for_io_timeout(plan.flags.reaching.registry.transport.io_timeout.unwrap_or(wiring::IO_TIMEOUT));
    let session = Session::start(Arc::clone(file_system), descriptor, tokio::runtime::Handle::current(), &options)
        .map_err(|error| Failure::mount(format!("the FUSE handshake with the kernel failed: {error}")))?;
    if let Some(attached) = &attached {
        first_answer(attached).await?;
        if let Some(device) = attached.device()
            && let Err(error) = fuse::raise_read_ahead(device, READ_AHEAD_KIB)
        {
            tracing::debug!(%error, "cannot set the kernel's read-ahead");
        }
    }
    Ok((undo, session, attached))
}

/// How edits are staged and published on a writable mount.
fn writing(plan: &Plan, parts: &Parts) -> Result<Option<fs::Writing>, Failure> {
    if !plan.is_writable() {
        return Ok(None);
    }
    let hint = |failure: Failure| failure.context("cannot stage edits (use --read-only to mount without)");
    let uppers = wiring::uppers(plan.state_directory()?, plan.flags.writing.staging_size).map_err(hint)?;
    Ok(Some(wiring::writing(&plan.flags.writing, uppers, parts)))
}

/// Adopts tags left staged by an earlier daemon, with one note per tag.
async fn adopt_orphaned(file_system: &FileSystem) -> Vec<String> {
    let tags = file_system.adopt().await;
    for tag in &tags {
        tracing::info!(reference = %tag.reference, error = tag.error, "staged earlier");
    }
    let tags: Vec<_> = tags.into_iter().filter(|tag| tag.edited || tag.error.is_some()).collect();
    let mut notes: Vec<String> = tags.iter().take(ANNOUNCED).map(summary::staged_earlier).collect();
    if tags.len() > ANNOUNCED {
        notes.push(format!("staged earlier: {} more (see `ocifs status`)", tags.len() - ANNOUNCED));
    }
    notes
}

fn info(plan: &Plan, point: Option<&MountPoint>, writing: Option<&fs::Writing>) -> MountInfo {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    MountInfo {
        source: plan.source.to_string(),
        mount_point: point.map_or_else(|| plan.target.path(), |point| &point.path).to_owned(),
        since,
        offline: plan.flags.access.offline,
        unlisted: None,
        uppers: writing.map(|writing| Arc::clone(&writing.uppers)),
        state_directory: plan.flags.reaching.storage.state_dir.clone(),
        exit_timeout: plan.exit_timeout(),
        log: plan.log_file(),
        cache_directory: plan.flags.reaching.storage.cache_dir.clone().unwrap_or_default(),
    }
}

fn attach(plan: &mut Plan, point: Option<MountPoint>, read_only: bool) -> Result<(OwnedFd, Option<Attached>), Failure> {
    let taken = MountTarget::Directory(plan.target.path().to_owned());
    match (std::mem::replace(&mut plan.target, taken), point) {
        (MountTarget::Given(descriptor), _) => Ok((descriptor, None)),
        (MountTarget::Directory(directory), None) => Err(Failure::mount(format!("{} was not prepared", escape::path(&directory)))),
        (MountTarget::Directory(_), Some(point)) => {
            let options = mount::Options {
                source: plan.source.to_string(),
                read_only,
                no_exec: plan.flags.permissions.noexec,
                allow_other: plan.flags.permissions.allow_other,
            };
            let descriptor = mount::mount(&point.directory, &point.path, &options).map_err(|error| Failure::mount(error.message))?;
            Ok((descriptor, Some(Attached::at(point.path))))
        }
    }
}

/// Unmounts on drop, unless the start succeeded.
struct Undo(Option<Attached>);

impl Undo {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(attached) = &self.0
            && let Err(error) = attached.detach()
        {
            tracing::warn!(%error, "cannot unmount after a failed start");
        }
    }
}

/// Reads the root of a mounted artifact, so that an unreadable one fails before it is mounted. Large layers may take longer; that is not a
/// failure, and reading continues. Never reads through the mount: a pending request would keep it busy and this process alive.
async fn root_is_readable(file_system: &Arc<FileSystem>) -> Result<(), Failure> {
    let entered = Arc::clone(file_system);
    let entering = tokio::spawn(async move { entered.getattr(ROOT).await.map(drop) });
    match timeout(LAYERS, entering).await {
        Ok(Ok(Ok(()))) | Err(_) => Ok(()),
        Ok(Ok(Err(error))) => Err(unreadable(&error)),
        Ok(Err(error)) => Err(Failure::other(format!("the artifact cannot be read: {error}"))),
    }
}

/// Explains why the root of an artifact cannot be read.
fn unreadable(error: &Error) -> Failure {
    let message = match error.kind {
        ErrorKind::KeyWrong => "none of the given passphrases decrypts the artifact".to_owned(),
        ErrorKind::KeyMissing => "the artifact is encrypted; use --passphrase-file or --ask-passphrase".to_owned(),
        ErrorKind::Integrity => format!("the artifact is damaged: {error}"),
        ErrorKind::Gone => format!("part of the artifact is missing in the registry: {error}"),
        _ => format!("the artifact cannot be read: {error}"),
    };
    Failure::new(Code::from(error.kind), message)
}

/// Waits until the mount answers statfs, which needs no network.
async fn first_answer(attached: &Attached) -> Result<(), Failure> {
    let path = attached.mount_point().to_owned();
    let shown = escape::path(&path);
    match timeout(FIRST_ANSWER, spawn_blocking(move || space::free(&path))).await {
        Ok(Ok(Ok(_))) if attached.is_there() => Ok(()),
        Ok(Ok(Ok(_))) => Err(Failure::mount(format!("{shown} was unmounted during startup"))),
        Ok(Ok(Err(error))) => Err(Failure::mount(format!("the mount on {shown} does not answer: {error}"))),
        Ok(Err(_)) | Err(_) => Err(Failure::mount(format!("the mount on {shown} does not answer"))),
    }
}

fn listen(plan: &Plan, info: &MountInfo, device: (u32, u32)) -> Result<Server, Failure> {
    let directory = plan.environment.socket_directory(plan.state_directory()?);
    let pid = std::process::id();
    let record = Record {
        pid,
        start_time: process::start_time(pid).unwrap_or_default(),
        device: Some(device),
        source: info.source.clone(),
        mount_point: info.mount_point.clone(),
        state_directory: info.state_directory.clone(),
        log: info.log.clone(),
    };
    Server::bind(&directory, record)
        .map_err(|error| Failure::other(format!("cannot create the control socket in {}: {error}", escape::path(&directory))))
}

impl Mounted {
    /// Announces the mount, serves until it is gone, publishes staged edits, flushes documents.
    async fn run(self, announce: Announce, mut signals: Signals) -> Result<(), Failure> {
        let Self { session, attached, device, server, handler, parts, stop, notes } = self;
        let undo = Undo(attached.clone());
        let foreground = matches!(announce, Announce::Foreground);
        announce.ready(&handler.info, &notes)?;
        undo.keep();
        tracing::info!(source = %handler.info.source, mount_point = %handler.info.mount_point.display(), ?device, "mounted");
        let server = server.map(Arc::new);
        let serving = server.clone().map(|server| {
            let handler = Arc::clone(&handler);
            tokio::spawn(async move { server.serve(handler).await })
        });
        let mut ended = std::pin::pin!(session.wait());
        let (served, given_up) = tokio::select! {
            result = &mut ended => (result, false),
            () = stop.notified() => (Ok(()), false),
            () = signals.received() => (Ok(()), shutdown::detach(attached, &mut ended, &mut signals).await),
        };
        match &served {
            Ok(()) => tracing::info!("unmounted"),
            Err(error) => tracing::error!(%error, "serving ended"),
        }
        handler.file_system.disconnect();
        if let Some(server) = &server {
            server.mount_is_gone();
        }
        let published = shutdown::publish_rest(&handler, &mut signals, given_up, foreground).await;
        handler.file_system.close().await;
        parts.artifacts.flush().await;
        if let Some(serving) = serving {
            // Remove the socket last: commands that wait for this daemon find its process id there.
            serving.abort();
            let _ = serving.await;
        }
        served.map_err(|error| Failure::mount(format!("serving ended: {error}")))?;
        published
    }
}
