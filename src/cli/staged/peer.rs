//! Carries out a command on staged tags: through the daemon of a mount, or in this process.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::cli::exit::Failure;
use crate::cli::mounts::health;
use crate::cli::runtime::{EDITS_ARE_KEPT, blocking, resumable};
use crate::cli::settings::flags::Reaching;
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases::{self, Origin};
use crate::cli::staged::orphaned::{Orphaned, Reach};
use crate::cli::staged::target::{AtMount, Finder, Target};
use crate::cli::terminal::escape;
use crate::cli::terminal::progress::Progress;
use crate::control::{Client, Difference, PATIENCE, Request};
use crate::fs::{Selection, StagedTag};
use crate::publish::{Listener, Options, Report};
use crate::seal::Passphrase;
use crate::sys::mountinfo;
use crate::sys::syncfs::sync_file_system;

/// Longest time for the kernel to write back dirty pages.
const WRITE_BACK: Duration = Duration::from_secs(300);

/// Carries out a command.
pub enum Peer {
    /// The daemon of a mount.
    Daemon(Box<AtMount>),
    /// This process.
    Orphaned(Box<Orphaned>),
}

impl Peer {
    /// The selected staged tags.
    ///
    /// # Errors
    /// The path or reference is unknown, or the daemon does not answer.
    pub async fn staged(&self) -> Result<Vec<StagedTag>, Failure> {
        match self {
            Self::Daemon(mount) => mount.collect(|selection| Request::Staged { selection }).await,
            Self::Orphaned(orphaned) => Ok(orphaned.staged().await?.into_iter().flat_map(|(_, tags)| tags).collect()),
        }
    }

    /// Publishes the tags, with progress. A daemon tries these passphrases before its own.
    ///
    /// # Errors
    /// As [`Peer::staged`]. Tags that failed are in the reports.
    pub async fn sync(&self, options: &Options, passphrases: Vec<Passphrase>) -> Result<Vec<Report>, Failure> {
        match self {
            Self::Daemon(mount) => {
                let (mount, options) = (mount.clone(), options.clone());
                blocking(move || mount.publish(options, passphrases)).await
            }
            Self::Orphaned(orphaned) => {
                let progress = Mutex::new(Progress::new());
                let listener: Listener = Arc::new(move |event| progress.lock().show(&event));
                orphaned.sync(options, &listener).await
            }
        }
    }

    /// The differences from upstream.
    ///
    /// # Errors
    /// As [`Peer::staged`]; also if a tag cannot be compared.
    pub async fn differences(&self) -> Result<Vec<Difference>, Failure> {
        match self {
            Self::Daemon(mount) => mount.collect(|selection| Request::Differences { selection }).await,
            Self::Orphaned(orphaned) => orphaned.differences().await,
        }
    }

    /// Discards edits and returns the references of their tags.
    ///
    /// # Errors
    /// As [`Peer::staged`]; also if a tag cannot be changed.
    pub async fn discard(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Daemon(mount) => mount.collect(|selection| Request::Discard { selection }).await,
            Self::Orphaned(orphaned) => orphaned.discard().await,
        }
    }

    /// The selected path, if the selection is one.
    pub fn path(&self) -> Option<&str> {
        let selection = match self {
            Self::Daemon(mount) => &mount.selection,
            Self::Orphaned(orphaned) => orphaned.selection(),
        };
        match selection {
            Selection::Path(path) => Some(path),
            Selection::All | Selection::Reference(_) => None,
        }
    }

    /// Stages an empty tag and returns its path below the mount.
    ///
    /// # Errors
    /// The tag is outside the mount or exists, or the mount is read-only.
    pub async fn new_tag(&self, reference: String) -> Result<String, Failure> {
        match self {
            Self::Daemon(mount) => {
                let (client, request) = (mount.client.clone(), Request::New { reference });
                let path = blocking(move || Ok(client.ask(&request, PATIENCE)?)).await?;
                Ok(path.as_str().unwrap_or_default().to_owned())
            }
            Self::Orphaned(orphaned) => orphaned.new_tag(&reference).await,
        }
    }
}

/// The flags of a command on staged tags besides PATH or REF.
pub struct Asking<'command> {
    flags: Reaching,
    /// Whether the user named the state directory.
    is_named: bool,
    origins: Vec<Origin>,
    invocation: &'command Invocation,
}

impl<'command> Asking<'command> {
    /// Fills in the directories. Reads no passphrase yet.
    ///
    /// # Errors
    /// The environment determines no cache directory.
    pub fn new(mut flags: Reaching, invocation: &'command Invocation) -> Result<Self, Failure> {
        let origins = invocation.origins(&flags.keys);
        flags.storage = flags.storage.with_directories(&invocation.environment)?;
        Ok(Self { flags, is_named: invocation.is_given("state_dir"), origins, invocation })
    }

    /// The passphrases to send to a daemon: those on the command line. The daemon has those of the environment and the file itself.
    ///
    /// # Errors
    /// A source cannot be read.
    pub fn passphrases(&self) -> Result<Vec<Passphrase>, Failure> {
        passphrases::read_all(&self.invocation.typed_origins(&self.flags.keys))
    }

    /// Resolves PATH or REF.
    pub fn finder(&self) -> Finder<'_> {
        Finder {
            state_directory: self.flags.storage.state_dir.as_deref(),
            is_named: self.is_named,
            environment: &self.invocation.environment,
        }
    }

    /// Runs `ask` on the peer until Ctrl-C, then cleans up.
    ///
    /// # Errors
    /// As [`Orphaned::open`], and the errors of `ask`.
    pub fn ask<T>(&self, target: Target, ask: impl AsyncFnOnce(&Peer) -> Result<T, Failure>) -> Result<T, Failure> {
        let reach = Reach { storage: &self.flags.storage, origins: &self.origins, offline: false, invocation: self.invocation };
        resumable(
            async {
                let peer = match target {
                    Target::Mount(mount) => Peer::Daemon(mount),
                    Target::Orphaned(state, wanted) => Peer::Orphaned(Box::new(Orphaned::open(state.as_deref(), &wanted, &reach).await?)),
                };
                let answer = ask(&peer).await;
                if let Peer::Orphaned(orphaned) = peer {
                    orphaned.close().await;
                }
                answer
            },
            EDITS_ARE_KEPT,
        )
    }
}

impl AtMount {
    async fn collect<T: DeserializeOwned + Send + 'static>(&self, request: impl FnOnce(Selection) -> Request) -> Result<Vec<T>, Failure> {
        let (client, request) = (self.client.clone(), request(self.selection.clone()));
        blocking(move || Ok(client.collect(&request, &mut |_| {})?)).await
    }

    fn publish(self, options: Options, passphrases: Vec<Passphrase>) -> Result<Vec<Report>, Failure> {
        // Files of a detached mount are written back when the processes that have them open close them.
        let is_here =
            mountinfo::at(&self.mount.mount_point).is_ok_and(|found| found.is_some_and(|found| found.device == self.mount.device));
        if is_here {
            write_back(&self.mount.mount_point, &self.client)?;
        }
        let mut progress = Progress::new();
        let request = Request::Sync { selection: self.selection, options, passphrases };
        Ok(self.client.collect(&request, &mut |event| progress.show(&event))?)
    }
}

/// Makes the kernel write back dirty pages of open files. Asks the daemon first: if it hung, this would never end, and without staged tags
/// there is nothing to write back.
fn write_back(mount_point: &Path, client: &Client) -> Result<(), Failure> {
    if client.status(health::PULSE)?.staged_tags == Some(0) {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel();
    let path = mount_point.to_owned();
    std::thread::spawn(move || {
        // This process may lack access to the directory; closed files are staged anyway.
        let written = File::open(path).map_or(Ok(()), |directory| sync_file_system(&directory));
        sender.send(written)
    });
    let shown = escape::path(mount_point);
    match receiver.recv_timeout(WRITE_BACK) {
        Ok(Ok(())) => Ok(()),
        // The kernel still had the times of a discarded file; there is nothing to write back.
        Ok(Err(error)) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Ok(()),
        // The kernel reports this once, also for files that are gone.
        Ok(Err(error)) => Err(Failure::other(format!(
            "some writes to {shown} could not be staged: {error}; nothing was published. The writing program got this error too: check its \
             files, then sync again"
        ))),
        Err(_) => Err(Failure::other(format!("writes to {shown} are still not staged after {} s", WRITE_BACK.as_secs()))),
    }
}
