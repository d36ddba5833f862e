//! The serving process: contacts the source, mounts, answers commands, and leaves nothing behind.
//!
//! The order is what users rely on: nothing is mounted before the source has answered, success is announced only
//! once the mount answers, and whatever fails in between is undone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::answers::{Answers, Facts};
use super::environment::Environment;
use super::exit::{Code, Failure};
use super::flags::Mount;
use super::root;
use super::wiring::{self, Parts, Reading};
use super::{escape, logging, umount};
use crate::control::{Record, Server};
use crate::error::ErrorKind;
use crate::fs::{FileSystem, Root};
use crate::fuse::{self, Session};
use crate::oci::{Source, Version};
use crate::seal::Passphrase;
use crate::sys::daemon::Readiness;
use crate::sys::{mount, mountinfo, process};

/// How long contacting the source and mounting may take together by default.
const WAIT: Duration = Duration::from_secs(120);
/// How long a mount may take to answer the first question.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long a mount that is one artifact is waited for: small ones are there by then, others are mounted all the same.
const LAYERS: Duration = Duration::from_secs(5);
/// How long open files may keep a daemon that was asked to end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long background work may take to notice the end.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// What the kernel reads ahead, where we may say so.
const READ_AHEAD_KIB: u32 = 1024;

/// Where to mount.
pub enum Target {
    /// On this directory.
    Directory(PathBuf),
    /// Nowhere: somebody mounted already and handed us the descriptor.
    Given(OwnedFd),
}

impl Target {
    /// The path for records and names of logs.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(directory) => directory,
            Self::Given(_) => Path::new("/dev/fd"),
        }
    }
}

/// Everything that is needed to serve.
pub struct Plan {
    /// Flags, completed.
    pub flags: Mount,
    /// What is mounted.
    pub source: Source,
    /// Where.
    pub target: Target,
    /// Passphrases in order.
    pub passphrases: Vec<Passphrase>,
    /// Directories.
    pub environment: Environment,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl Plan {
    /// The state directory.
    ///
    /// # Errors
    /// None is known.
    pub fn state_directory(&self) -> Result<&Path, Failure> {
        self.flags.storage.state_dir.as_deref().ok_or_else(|| Failure::usage("no state directory is known; give --state-dir"))
    }

    fn parts(&self) -> Result<Parts, Failure> {
        let by_digest = matches!(&self.source, Source::Artifact { version: Version::Digest(_), .. });
        let reading = Reading { flags: &self.flags.content, offline: self.flags.offline, by_digest, passphrases: self.passphrases.clone() };
        wiring::build(&self.source, reading, &self.flags.registry, &self.flags.storage, &self.environment)
    }

    fn log(&self) -> Option<PathBuf> {
        match (&self.flags.log.log_file, self.flags.foreground) {
            (Some(file), _) => Some(file.clone()),
            (None, true) => None,
            (None, false) => self.state_directory().ok().map(|state| logging::file_of(state, self.target.path())),
        }
    }
}

/// Who hears how the start went.
pub enum Announce {
    /// The service manager; failures are printed by the caller.
    Foreground,
    /// The process that forked us.
    Parent(Readiness),
}

impl Announce {
    fn ready(self) -> Result<(), Failure> {
        match self {
            Self::Foreground => {
                if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                    tracing::debug!(%error, "no service manager was told");
                }
                Ok(())
            }
            Self::Parent(readiness) => {
                readiness.ready().map_err(|error| Failure::other(format!("nobody waits for this mount any more: {error}")))
            }
        }
    }

    /// Passes a failure on. The daemon itself then ends quietly.
    pub fn failed(self, failure: Failure) -> Result<(), Failure> {
        match self {
            Self::Foreground => Err(failure),
            Self::Parent(readiness) => {
                // A parent that is gone has nobody to tell.
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

/// Contacts the source and ends.
///
/// # Errors
/// As [`serve`].
pub fn check(plan: &Plan) -> Result<(), Failure> {
    runtime()?.block_on(async { root::contact(plan, &plan.parts()?).await.map(drop) })
}

/// Serves until unmounted.
///
/// # Errors
/// In the foreground the reason why the mount did not come up or ended; in the background it goes to the parent.
pub fn serve(mut plan: Plan, announce: Announce) -> Result<(), Failure> {
    process::make_new_files_private();
    if let Err(error) = process::protect_memory() {
        tracing::warn!(%error, "memory with keys is not protected");
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(failure) => return announce.failed(failure),
    };
    // Watched before anything is mounted, so that no signal can end the process with the mount left behind.
    let started = runtime.block_on(async {
        let mut signals = Signals::watch()?;
        tokio::select! {
            mounted = start(&mut plan) => Ok((mounted?, signals)),
            () = signals.received() => Err(Failure::other("interrupted")),
        }
    });
    let (mounted, signals) = match started {
        Ok(started) => started,
        Err(failure) => {
            tracing::error!("{failure}");
            // The reason goes last: whoever hears it finds nothing left behind.
            runtime.shutdown_timeout(SHUTDOWN);
            return announce.failed(failure);
        }
    };
    let result = runtime.block_on(mounted.run(announce, signals));
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

/// A mount that answers.
struct Mounted {
    session: Session,
    mount_point: Option<PathBuf>,
    device: Option<(u32, u32)>,
    server: Option<Server>,
    answers: Arc<Answers>,
    parts: Parts,
    stop: Arc<Notify>,
}

async fn start(plan: &mut Plan) -> Result<Mounted, Failure> {
    let wait = plan.flags.wait.unwrap_or(WAIT);
    let late = |_| Failure::new(Code::Unreachable, format!("{} did not answer within {} s", plan.source, wait.as_secs()));
    let parts = plan.parts()?;
    let root = timeout(wait, root::contact(plan, &parts)).await.map_err(late)??;
    let facts = Arc::new(facts(plan));
    let is_artifact = matches!(root, Root::Content(..));
    let config = root::config(plan, root, &parts, &facts);
    let file_system = FileSystem::new(config, parts.artifacts.clone()).map_err(|error| Failure::other(error.to_string()))?;
    let file_system = Arc::new(file_system);
    let (descriptor, mount_point) = attach(plan)?;
    let undo = Undo(mount_point.clone());
    let options = fuse::Options::for_io_timeout(plan.flags.registry.io_timeout.unwrap_or(wiring::IO_TIMEOUT));
    let session = Session::start(Arc::clone(&file_system), descriptor, tokio::runtime::Handle::current(), &options)
        .map_err(|error| Failure::mount(format!("the kernel does not talk FUSE on this mount: {error}")))?;
    if let Some(mount_point) = &mount_point {
        first_answer(mount_point, is_artifact).await?;
    }
    let device = mount_point.as_ref().and_then(|path| mountinfo::at(path).ok().flatten()).map(|mount| mount.device);
    if let Some(device) = device
        && let Err(error) = fuse::raise_read_ahead(device, READ_AHEAD_KIB)
    {
        tracing::debug!(%error, "the kernel keeps its own read-ahead");
    }
    let server = device.map(|device| listen(plan, &facts, device)).transpose()?;
    let stop = Arc::new(Notify::new());
    let answers = Arc::new(Answers {
        facts,
        file_system,
        cache: parts.cache.clone(),
        source: plan.source.clone(),
        mount_point: mount_point.clone(),
        stop: Arc::clone(&stop),
    });
    undo.keep();
    Ok(Mounted { session, mount_point, device, server, answers, parts, stop })
}

fn facts(plan: &Plan) -> Facts {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Facts {
        source: plan.source.to_string(),
        mount_point: plan.target.path().to_owned(),
        since,
        offline: plan.flags.offline,
        read_only: true,
        log: plan.log(),
        cache_directory: plan.flags.storage.cache_dir.clone().unwrap_or_default(),
    }
}

fn attach(plan: &mut Plan) -> Result<(OwnedFd, Option<PathBuf>), Failure> {
    let given = Target::Directory(PathBuf::new());
    match std::mem::replace(&mut plan.target, given) {
        Target::Given(descriptor) => Ok((descriptor, None)),
        Target::Directory(directory) => {
            let options = mount::Options {
                source: plan.source.to_string(),
                read_only: true,
                no_exec: plan.flags.permissions.noexec,
                allow_other: plan.flags.permissions.allow_other,
            };
            let descriptor = mount::mount(&directory, &options)?;
            Ok((descriptor, Some(directory)))
        }
    }
}

/// Takes a mount away again unless everything went well.
struct Undo(Option<PathBuf>);

impl Undo {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(mount_point) = &self.0
            && let Err(error) = umount::detach(mount_point)
        {
            tracing::warn!(%error, "a mount that did not come up stays behind");
        }
    }
}

/// Waits until a look at the mount point is answered by this mount and not by what is below it. Where the whole mount
/// is one artifact, the answer may take as long as its layers do; that is no reason to fail.
async fn first_answer(mount_point: &Path, is_artifact: bool) -> Result<(), Failure> {
    let path = mount_point.to_owned();
    let look = tokio::task::spawn_blocking(move || -> io::Result<bool> {
        let shown = std::fs::metadata(&path)?.dev();
        let listed = mountinfo::at(&path)?.map(|mount| mount.device);
        Ok(listed.is_some_and(|(major, minor)| process::device_number(major, minor) == shown))
    });
    let shown = escape::path(mount_point);
    match timeout(if is_artifact { LAYERS } else { FIRST_ANSWER }, look).await {
        Ok(Ok(Ok(true))) => Ok(()),
        Ok(Ok(Ok(false))) => Err(Failure::mount(format!("{shown} was unmounted while it came up"))),
        Ok(Ok(Err(error))) if is_artifact => Err(unreadable(&error)),
        Ok(Ok(Err(error))) => Err(Failure::mount(format!("the mount on {shown} does not answer: {error}"))),
        Err(_) if is_artifact => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Failure::mount(format!("the mount on {shown} does not answer"))),
    }
}

/// Why the root of an artifact cannot be looked at, by what the mount itself answered.
fn unreadable(error: &io::Error) -> Failure {
    let kind = error.raw_os_error().and_then(fuse::kind);
    let message = match kind {
        Some(ErrorKind::KeyWrong) => "no given passphrase opens the artifact".to_owned(),
        Some(ErrorKind::KeyMissing) => "the artifact is encrypted; use --passphrase-file or --ask-passphrase".to_owned(),
        Some(ErrorKind::Integrity) => "the artifact is damaged: its bytes do not match their digests, or a frame is broken".to_owned(),
        Some(ErrorKind::Gone) => "a part of the artifact is missing in the registry".to_owned(),
        _ => format!("the artifact cannot be read: {error}"),
    };
    Failure::new(kind.map_or(Code::Mount, Code::from), message)
}

fn listen(plan: &Plan, facts: &Facts, device: (u32, u32)) -> Result<Server, Failure> {
    let directory = plan.environment.socket_directory(plan.state_directory()?);
    let pid = std::process::id();
    let record = Record {
        pid,
        start_time: process::start_time(pid).unwrap_or_default(),
        source: facts.source.clone(),
        mount_point: facts.mount_point.clone(),
        log: facts.log.clone(),
    };
    Server::bind(&directory, device, &record)
        .map_err(|error| Failure::other(format!("cannot make the control socket in {}: {error}", escape::path(&directory))))
}

impl Mounted {
    /// Announces, serves until the mount is gone, flushes what was learned.
    async fn run(self, announce: Announce, signals: Signals) -> Result<(), Failure> {
        let Self { session, mount_point, device, server, answers, parts, stop } = self;
        let undo = Undo(mount_point.clone());
        announce.ready()?;
        undo.keep();
        tracing::info!(source = %answers.facts.source, mount_point = %answers.facts.mount_point.display(), ?device, "mounted");
        let serving = server.map(|server| {
            let handler = Arc::clone(&answers);
            tokio::spawn(async move { server.serve(handler).await })
        });
        let ending = tokio::spawn(end_on_signal(signals, mount_point, Arc::clone(&stop)));
        let result = tokio::select! {
            result = session.wait() => result,
            () = stop.notified() => Ok(()),
        };
        tracing::info!("unmounted");
        ending.abort();
        parts.artifacts.flush().await;
        if let Some(serving) = serving {
            // The socket goes last: whoever waits for this daemon learns its process id there.
            serving.abort();
            let _ = serving.await;
        }
        result.map_err(|error| Failure::mount(format!("serving ended: {error}")))
    }
}

/// The signals that ask a daemon to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they do not end the process by themselves.
    fn watch() -> Result<Self, Failure> {
        let watch = |kind| signal(kind).map_err(|error| Failure::other(format!("cannot watch signals: {error}")));
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Unmounts when asked to end. Open files may finish for a moment; then the process goes all the same.
async fn end_on_signal(mut signals: Signals, mount_point: Option<PathBuf>, stop: Arc<Notify>) {
    signals.received().await;
    let Some(mount_point) = mount_point else { return stop.notify_one() };
    let detached = tokio::task::spawn_blocking(move || umount::detach(&mount_point)).await;
    match detached {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot unmount"),
        Err(error) => tracing::warn!(%error, "cannot unmount"),
    }
    tokio::select! {
        () = tokio::time::sleep(FAREWELL) => {}
        () = signals.received() => {}
    }
    stop.notify_one();
}
