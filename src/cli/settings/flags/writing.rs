//! The command line of the write side: flags of a mount that stages, and the commands that show, publish and take back.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{Format, Reaching};
use crate::cli::terminal::units;
use crate::oci::Tag;
use crate::publish::ArtifactKind;

/// Staging and publishing of a mount.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Writing")]
pub struct WriteFlags {
    /// Allow tags to be deleted in the registry (`rmdir TAG`, and the old name after `mv`)
    #[arg(long)]
    pub allow_delete: bool,

    /// Publish in clear what encrypted artifacts hold; without this, such files are refused
    #[arg(long)]
    pub plaintext: bool,

    /// Most bytes to stage; a write beyond fails with "no space left" [default: what the disk holds]
    #[arg(long, value_name = "SIZE", value_parser = units::size, env = "OCIFS_STAGING_SIZE", hide_env = true)]
    pub staging_size: Option<u64>,

    /// How long the daemon pushes after an unmount before it leaves the rest staged [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_EXIT_TIMEOUT", hide_env = true)]
    pub exit_timeout: Option<Duration>,

    /// Kind of artifact that a new tag becomes [default: files]
    #[arg(long, value_name = "KIND", env = "OCIFS_AS_KIND", hide_env = true)]
    pub as_kind: Option<AsKind>,

    /// Blobs sent at a time [default: 4]
    #[arg(long, value_name = "N", env = "OCIFS_CONCURRENCY", hide_env = true)]
    pub concurrency: Option<NonZeroUsize>,
}

/// `--as-kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AsKind {
    /// Titled layers, as ORAS reads them
    #[default]
    Files,
    /// A container image
    Image,
    /// One archive as oci-sync writes it, sealed where a passphrase is given
    OciSync,
}

impl From<AsKind> for ArtifactKind {
    fn from(kind: AsKind) -> Self {
        match kind {
            AsKind::Files => Self::Files,
            AsKind::Image => Self::Image,
            AsKind::OciSync => Self::OciSync,
        }
    }
}

/// `ocifs sync`.
#[derive(Args, Clone, Debug)]
pub struct Sync {
    /// A path in a mount, or a registry, repository or tag; the mount of the working directory, else the only one, if absent
    #[arg(value_name = "PATH|REF")]
    pub target: Option<String>,

    /// Say what would happen, change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Publish under this tag instead; the edits move there
    #[arg(long = "as", value_name = "TAG", value_parser = tag, conflicts_with_all = ["theirs", "rebase"])]
    pub as_tag: Option<String>,

    /// Overwrite a tag that moved upstream, and publish what safety would skip
    #[arg(long, conflicts_with_all = ["theirs", "rebase"])]
    pub force: bool,

    /// Drop the edits of tags that moved upstream and show what is there
    #[arg(long, conflicts_with = "rebase")]
    pub theirs: bool,

    /// Lay the edits of tags that moved upstream over what is there now
    #[arg(long)]
    pub rebase: bool,

    /// Allow tags to be deleted in the registry
    #[arg(long)]
    pub allow_delete: bool,

    /// Publish in clear what encrypted artifacts hold; without this, such files are refused
    #[arg(long)]
    pub plaintext: bool,

    /// Kind of artifact that a new tag becomes [default: the mount's, else files]
    #[arg(long, value_name = "KIND")]
    pub as_kind: Option<AsKind>,

    /// Blobs sent at a time [default: the mount's, else 4]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<NonZeroUsize>,

    /// Publish droppings of editors and systems too, and what `.ocifsignore` names
    #[arg(long)]
    pub no_ignore: bool,

    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Where no daemon is asked.
    #[command(flatten)]
    pub without: Reaching,
}

/// `ocifs diff`.
#[derive(Args, Clone, Debug)]
pub struct Diff {
    /// A path in a mount, or a registry, repository or tag; the mount of the working directory, else the only one, if absent
    #[arg(value_name = "PATH|REF")]
    pub target: Option<String>,

    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Where no daemon is asked.
    #[command(flatten)]
    pub without: Reaching,
}

/// `ocifs discard`.
#[derive(Args, Clone, Debug)]
pub struct Discard {
    /// A path in a mount, or a registry, repository or tag; the mount of the working directory, else the only one, if absent
    #[arg(value_name = "PATH|REF")]
    pub target: Option<String>,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Where no daemon is asked.
    #[command(flatten)]
    pub without: Reaching,
}

/// `ocifs new`.
#[derive(Args, Clone, Debug)]
pub struct New {
    /// repository:tag of a registry that is mounted, or the path where it shall be
    #[arg(value_name = "REF")]
    pub target: String,

    /// Where the mount is dead.
    #[command(flatten)]
    pub without: Reaching,
}

fn tag(text: &str) -> Result<String, String> {
    Tag::parse(text).map(|tag| tag.to_string()).map_err(|error| error.to_string())
}
