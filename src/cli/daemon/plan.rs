//! The plan of a mount: all settings from flags, environment, file and prompts, fixed before anything starts.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::daemon::log;
use crate::cli::daemon::mount_point::{self, MountPoint};
use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{Profile, TrustIndex, Verify, View};
use crate::cli::settings::mount::Mount;
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::oci::{LayoutForm, LayoutName, Source, Version};
use crate::seal::Passphrase;
use crate::sys::inherited::Inherited;

/// Default time limit for publishing after the mount is gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The target of a mount.
pub enum MountTarget {
    /// An absolute path, not checked yet.
    Directory(PathBuf),
    /// The descriptor of an existing FUSE mount.
    Given(OwnedFd),
}

impl MountTarget {
    /// The path that names the log.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(directory) => directory,
            Self::Given(_) => Path::new("/dev/fd"),
        }
    }
}

/// Everything needed to serve a mount.
pub struct Plan {
    /// The flags, with defaults from the configuration file.
    pub flags: Mount,
    /// The source.
    pub source: Source,
    /// The mount point.
    pub target: MountTarget,
    /// Passphrases in order of priority.
    pub passphrases: Vec<Passphrase>,
    /// The environment.
    pub environment: Environment,
    /// Number of `-v` flags.
    pub verbose: u8,
    /// The caller's descriptors, closed once everything is read.
    pub inherited: Inherited,
}

impl Plan {
    /// The state directory.
    ///
    /// # Errors
    /// Neither a flag nor the environment sets one.
    pub fn state_directory(&self) -> Result<&Path, Failure> {
        self.flags.reaching.storage.state_dir.as_deref().ok_or_else(|| Failure::usage("no state directory; set --state-dir"))
    }

    /// Whether the mount is writable. Not with `--read-only`, for an archive, below a digest, or with a view other than merged.
    pub fn is_writable(&self) -> bool {
        let is_fixed = self.is_by_digest() || matches!(&self.source, Source::Layout { place, .. } if place.form == LayoutForm::Archive);
        !self.flags.access.read_only && !is_fixed && self.flags.content.view.unwrap_or_default() == View::Merged
    }

    /// Applies `--profile` to the other flags.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn with_profile(mut self) -> Result<Self, Failure> {
        if !self.skips_opens() {
            return Ok(self);
        }
        if self.is_writable() {
            return Err(Failure::usage("--profile small-files is for read-only mounts; add --read-only"));
        }
        // The kernel keeps all pages across opens, so they must be right from the start.
        match self.flags.content.verify.replace(Verify::Strict) {
            Some(Verify::Auto) => Err(Failure::usage("--profile small-files implies --verify strict; drop --verify auto")),
            None | Some(Verify::Strict) => Ok(self),
        }
    }

    /// Checks that `--trust-index` weakens nothing that is to be verified by digest alone.
    ///
    /// # Errors
    /// It does.
    pub fn check_trust(&self) -> Result<(), Failure> {
        let reason = match self.flags.content.trust_index {
            Some(TrustIndex::Referrer) if self.flags.content.verify == Some(Verify::Strict) => "--verify strict trusts digests alone",
            Some(TrustIndex::Referrer) if self.is_by_digest() => "a source named by digest is trusted by that digest alone",
            Some(TrustIndex::Referrer) if self.is_writable() => "edits must not rest on them: add --read-only",
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("--trust-index referrer uses indexes that no digest vouches for, but {reason}")))
    }

    /// Whether the kernel need not open files.
    pub fn skips_opens(&self) -> bool {
        self.flags.access.profile == Some(Profile::SmallFiles)
    }

    /// Opens and checks the mount point; `None` for an existing FUSE mount. May start threads.
    ///
    /// # Errors
    /// The mount point cannot be used.
    pub fn mount_point(&self) -> Result<Option<MountPoint>, Failure> {
        let MountTarget::Directory(directory) = &self.target else { return Ok(None) };
        let mut reserved: Vec<mount_point::Reserved<'_>> = vec![("state directory", self.state_directory()?)];
        reserved.extend(self.flags.reaching.storage.cache_dir.as_deref().map(|path| ("cache directory", path)));
        if let Source::Layout { place, .. } = &self.source {
            reserved.push(("layout", &place.path));
        }
        mount_point::prepare(directory, self.flags.nonempty, &reserved).map(Some)
    }

    /// Time limit for publishing after the mount is gone.
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
            offline: self.flags.access.offline,
            access_order: !self.flags.access.no_access_order,
            by_digest,
            begins: self.is_writable(),
            passphrases: self.passphrases.clone(),
            ..Reading::of(&self.flags.content)
        };
        wiring::build(&self.source, reading, &self.flags.reaching.registry, &self.flags.reaching.storage, &self.environment)
    }

    /// The log file; `None` for standard error.
    pub fn log_file(&self) -> Option<PathBuf> {
        match (&self.flags.log.log_file, self.flags.foreground) {
            (Some(file), _) => Some(file.clone()),
            (None, true) => None,
            (None, false) => self.state_directory().ok().map(|state| log::file_of(state, self.target.path())),
        }
    }
}
