//! The flags of `ocifs mount`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::flags::{Access, ContentFlags, LogFlags, Permissions, Reaching, WriteFlags};
use crate::cli::terminal::units;

/// Mount a registry, a prefix of it, one artifact or an OCI layout on a directory
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct Mount {
    /// Registry, prefix, repository:tag, repository@digest, oci:DIRECTORY[:tag] or oci-archive:FILE[:tag]
    #[arg(value_name = "SOURCE")]
    pub source: String,

    /// An existing empty directory, or /dev/fd/N of an existing FUSE mount
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Stay in the foreground (notifies systemd when ready)
    #[arg(short, long)]
    pub foreground: bool,

    /// How the mount is accessed.
    #[command(flatten)]
    pub access: Access,

    /// Mount options as mount(8) passes them: flag names without the leading hyphens
    #[arg(short = 'o', long = "options", value_name = "OPTIONS", action = ArgAction::Append)]
    pub options: Vec<String>,

    /// Give up if the mount is not ready within this time
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_WAIT", hide_env = true)]
    pub wait: Option<Duration>,

    /// Check source and mount point without mounting.
    #[arg(long, hide = true)]
    pub check_only: bool,

    /// Which content is shown, and how.
    #[command(flatten)]
    pub content: ContentFlags,

    /// Access and attributes.
    #[command(flatten)]
    pub permissions: Permissions,

    /// Mount on a non-empty directory; its content is hidden while mounted
    #[arg(long, help_heading = "Permissions")]
    pub nonempty: bool,

    /// Staging and publishing.
    #[command(flatten)]
    pub writing: WriteFlags,

    /// Reading and publishing.
    #[command(flatten)]
    pub reaching: Reaching,

    /// Logging.
    #[command(flatten)]
    pub log: LogFlags,
}
