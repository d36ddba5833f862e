//! What one mount is to be: everything that flags, environment, file and prompts say, settled before anything starts.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::daemon::log;
use crate::cli::daemon::mount_point::{self, MountPoint};
use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{Mount, View};
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::oci::{LayoutName, Source, Version};
use crate::seal::Passphrase;
use crate::sys::inherited::Inherited;

/// How long a daemon publishes by default after its mount is gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Where to mount.
pub enum Target {
    /// On this directory: absolute, and not looked at yet.
    Directory(PathBuf),
    /// Nowhere: somebody mounted already and handed us the descriptor.
    Given(OwnedFd),
}

impl Target {
    /// The path for names of logs.
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
    /// What nobody needs any more once everything is read.
    pub inherited: Inherited,
}

impl Plan {
    /// The state directory.
    ///
    /// # Errors
    /// None is known.
    pub fn state_directory(&self) -> Result<&Path, Failure> {
        self.flags.reaching.storage.state_dir.as_deref().ok_or_else(|| Failure::usage("no state directory is known; give --state-dir"))
    }

    /// Whether anything can be written: not with `--read-only`, not where the root is a digest, and not where parts of
    /// artifacts are shown instead of their files.
    pub fn is_writable(&self) -> bool {
        !self.flags.read_only && !self.is_by_digest() && self.flags.content.view.unwrap_or_default() == View::Merged
    }

    /// Opens and checks the directory to mount on; `None` where somebody mounted already. May start threads.
    ///
    /// # Errors
    /// It cannot be mounted on.
    pub fn mount_point(&self) -> Result<Option<MountPoint>, Failure> {
        let Target::Directory(directory) = &self.target else { return Ok(None) };
        let mut reserved: Vec<mount_point::Reserved<'_>> = vec![("state directory", self.state_directory()?)];
        reserved.extend(self.flags.reaching.storage.cache_dir.as_deref().map(|path| ("cache directory", path)));
        if let Source::Layout { directory, .. } = &self.source {
            reserved.push(("layout", directory));
        }
        mount_point::prepare(directory, self.flags.permissions.nonempty, &reserved).map(Some)
    }

    /// How long is published after the mount is gone.
    pub fn exit_timeout(&self) -> Duration {
        self.flags.writing.exit_timeout.unwrap_or(EXIT_TIMEOUT)
    }

    fn is_by_digest(&self) -> bool {
        match &self.source {
            Source::Artifact { version, .. } => matches!(version, Version::Digest(_)),
            Source::Layout { name, .. } => matches!(name, Some(LayoutName::Digest(_))),
            Source::Registry { .. } => false,
        }
    }

    /// The modules below the file system.
    ///
    /// # Errors
    /// As [`wiring::build`].
    pub fn parts(&self) -> Result<Parts, Failure> {
        let by_digest = matches!(&self.source, Source::Artifact { version: Version::Digest(_), .. });
        let reading = Reading {
            flags: &self.flags.content,
            offline: self.flags.offline,
            by_digest,
            begins: self.is_writable(),
            passphrases: self.passphrases.clone(),
        };
        wiring::build(&self.source, reading, &self.flags.reaching.registry, &self.flags.reaching.storage, &self.environment)
    }

    /// The file that the log is written to; standard error where there is none.
    pub fn log_file(&self) -> Option<PathBuf> {
        match (&self.flags.log.log_file, self.flags.foreground) {
            (Some(file), _) => Some(file.clone()),
            (None, true) => None,
            (None, false) => self.state_directory().ok().map(|state| log::file_of(state, self.target.path())),
        }
    }
}
