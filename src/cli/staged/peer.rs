//! Who answers a command about staged tags: the daemon of a mount, or this process.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use clap::ArgMatches;
use serde::de::DeserializeOwned;

use crate::cli::exit::Failure;
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File as Configuration;
use crate::cli::settings::flags::Reaching;
use crate::cli::settings::passphrases::{self, Origin};
use crate::cli::staged::orphaned::{Here, Reach};
use crate::cli::staged::target::{self, AtMount, Finder, Target};
use crate::cli::terminal::escape;
use crate::cli::terminal::progress::Progress;
use crate::control::{Client, Difference, PATIENCE, Request};
use crate::fs::{Selection, StagedTag};
use crate::publish::{Listener, Options, Report};
use crate::seal::Passphrase;
use crate::sys::mountinfo;
use crate::sys::syncfs::sync_file_system;

/// How long the kernel may take to write back what it holds.
const WRITE_BACK: Duration = Duration::from_secs(300);

/// Who answers.
pub enum Peer {
    /// The daemon of a mount.
    Daemon(Box<AtMount>),
    /// This process.
    Here(Box<Here>),
}

impl Peer {
    /// The staged tags that are meant.
    ///
    /// # Errors
    /// A path or reference that is nowhere; the daemon does not answer.
    pub async fn staged(&self) -> Result<Vec<StagedTag>, Failure> {
        match self {
            Self::Daemon(mount) => mount.collect(|selection| Request::Staged { selection }).await,
            Self::Here(here) => Ok(here.staged().await?.into_iter().flat_map(|(_, tags)| tags).collect()),
        }
    }

    /// Publishes them, showing how it goes on. A daemon tries these passphrases before its own.
    ///
    /// # Errors
    /// As [`Peer::staged`]; what was not published is in the reports.
    pub async fn sync(&self, options: &Options, passphrases: Vec<Passphrase>) -> Result<Vec<Report>, Failure> {
        match self {
            Self::Daemon(mount) => {
                let (mount, options) = (mount.clone(), options.clone());
                blocking(move || mount.publish(options, passphrases)).await
            }
            Self::Here(here) => {
                let progress = Mutex::new(Progress::new());
                let listener: Listener = Arc::new(move |event| progress.lock().unwrap_or_else(PoisonError::into_inner).hear(&event));
                here.sync(options, &listener).await
            }
        }
    }

    /// What differs from upstream.
    ///
    /// # Errors
    /// As [`Peer::staged`], and why a tag cannot be compared.
    pub async fn differences(&self) -> Result<Vec<Difference>, Failure> {
        match self {
            Self::Daemon(mount) => mount.collect(|selection| Request::Differences { selection }).await,
            Self::Here(here) => here.differences().await,
        }
    }

    /// Takes edits back; answers the references of the tags concerned.
    ///
    /// # Errors
    /// As [`Peer::staged`], and why a tag cannot be changed.
    pub async fn discard(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Daemon(mount) => mount.collect(|selection| Request::Discard { selection }).await,
            Self::Here(here) => here.discard().await,
        }
    }

    /// The path that was named, if it was one.
    pub fn path(&self) -> Option<&str> {
        let selection = match self {
            Self::Daemon(mount) => &mount.selection,
            Self::Here(here) => here.selection(),
        };
        match selection {
            Selection::Path(path) => Some(path),
            Selection::All | Selection::Reference(_) => None,
        }
    }

    /// Stages an empty tag; answers its path below the mount.
    ///
    /// # Errors
    /// The mount does not show such a tag, it exists, or nothing can be written.
    pub async fn new_tag(&self, reference: String) -> Result<String, Failure> {
        match self {
            Self::Daemon(mount) => {
                let (client, request) = (mount.client.clone(), Request::New { reference });
                let path = blocking(move || Ok(client.ask(&request, PATIENCE)?)).await?;
                Ok(path.as_str().unwrap_or_default().to_owned())
            }
            Self::Here(here) => here.new_tag(&reference).await,
        }
    }
}

/// What a command about staged tags is given besides PATH or REF.
pub struct Asking<'command> {
    flags: Reaching,
    /// Whether a person named the state directory.
    is_named: bool,
    origins: Vec<Origin>,
    /// Those of the command line.
    flagged: Vec<Origin>,
    file: &'command Configuration,
    environment: &'command Environment,
}

impl<'command> Asking<'command> {
    /// Completes the flags. No passphrase is read yet.
    ///
    /// # Errors
    /// A path that cannot be made absolute.
    pub fn new(
        mut flags: Reaching,
        matches: &ArgMatches,
        file: &'command Configuration,
        environment: &'command Environment,
    ) -> Result<Self, Failure> {
        let flagged = passphrases::in_order(&flags.keys, matches);
        let origins = passphrases::origins(&flags.keys, matches, file, environment)?;
        let is_named = flags.storage.state_dir.is_some();
        file.complete_storage(&mut flags.storage, environment)?;
        Ok(Self { flags, is_named, origins, flagged, file, environment })
    }

    /// The passphrases for a daemon: those of the command line. The environment and the configuration it has itself.
    ///
    /// # Errors
    /// A place that cannot be read.
    pub fn passphrases(&self) -> Result<Vec<Passphrase>, Failure> {
        passphrases::read_all(&self.flagged)
    }

    /// Finds out what PATH or REF means.
    pub fn finder(&self) -> Finder<'_> {
        Finder { state_directory: self.flags.storage.state_dir.as_deref(), is_named: self.is_named, environment: self.environment }
    }

    /// Asks whoever answers, until Ctrl-C, and ends what that began.
    ///
    /// # Errors
    /// As [`Here::open`], and what asking says.
    pub fn ask<T>(&self, target: Target, ask: impl AsyncFnOnce(&Peer) -> Result<T, Failure>) -> Result<T, Failure> {
        let Self { flags, origins, file, environment, .. } = self;
        let reach = Reach { flags, origins, offline: false, file, environment };
        until_interrupted(async {
            let peer = match target {
                Target::Mount(mount) => Peer::Daemon(mount),
                Target::Left(state, wanted) => Peer::Here(Box::new(Here::open(state.as_deref(), &wanted, &reach).await?)),
            };
            let answer = ask(&peer).await;
            if let Peer::Here(here) = peer {
                here.close().await;
            }
            answer
        })
    }
}

impl AtMount {
    async fn collect<T: DeserializeOwned + Send + 'static>(&self, request: impl FnOnce(Selection) -> Request) -> Result<Vec<T>, Failure> {
        let (client, request) = (self.client.clone(), request(self.selection.clone()));
        blocking(move || Ok(client.collect(&request, &mut |_| {})?)).await
    }

    fn publish(self, options: Options, passphrases: Vec<Passphrase>) -> Result<Vec<Report>, Failure> {
        // What processes elsewhere wrote to a detached mount is handed over when they close it.
        let is_here =
            mountinfo::at(&self.mount.mount_point).is_ok_and(|found| found.is_some_and(|found| found.device == self.mount.device));
        if is_here {
            write_back(&self.mount.mount_point, &self.client)?;
        }
        let mut progress = Progress::new();
        let request = Request::Sync { selection: self.selection, options, passphrases };
        Ok(self.client.collect(&request, &mut |event| progress.hear(&event))?)
    }
}

/// Makes the kernel hand over what it holds of files that are still open. The daemon is asked first: only if it lives this can end,
/// and where nothing is staged there is nothing to hand over.
fn write_back(mount_point: &Path, client: &Client) -> Result<(), Failure> {
    if target::staged(client, Selection::All)?.is_empty() {
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
