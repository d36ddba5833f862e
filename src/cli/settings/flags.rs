//! The command line: every command and flag, grouped as `--help` shows them.
//!
//! Only shapes and words. What a flag means when it is absent is decided in `config.rs`, after the environment
//! and the configuration file were asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::cli::settings::passphrases;
use crate::cli::terminal::units;
use crate::oci::Platform;

mod writing;

pub use writing::{AsKind, Diff, Discard, New, Sync, WriteFlags};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  ocifs mount localhost:5000/team ~/oci      every repository below team
  ocifs mount ghcr.io/org/app:v1 ~/app       one artifact
  ocifs mount oci:./layout ~/layout          an OCI layout directory
  cp -r data ~/oci/app/v2 && ocifs sync ~/oci    a new tag
  ocifs umount ~/oci                         publishes what is still staged first

Exit codes: 0 ok, 1 other, 2 usage, 10 not found, 11 authentication, 12 key, 13 conflict,
14 unreachable, 15 mount point or FUSE, 16 changes not pushed, 130 interrupted";

/// Mount any OCI registry as a directory
#[derive(Debug, Parser)]
#[command(name = "ocifs", version, after_help = EXAMPLES, styles = STYLES, max_term_width = 110)]
#[command(disable_help_subcommand = true, infer_long_args = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Say more: -v what is done, -vv every request
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,

    /// Read this configuration file instead of $XDG_CONFIG_HOME/ocifs/config.yaml
    #[arg(long, global = true, value_name = "FILE", env = "OCIFS_CONFIG", hide_env = true, help_heading = "Global options")]
    pub config: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a registry, a prefix of it, one artifact or an OCI layout on a directory
    Mount(Box<Mount>),
    /// Publish what is staged, then unmount; also when the daemon is dead or hangs
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    /// Show mounts and what is staged: sources, cache use, daemons, edited tags
    Status(Status),
    /// Publish staged edits: new tags, changed tags, deletions
    Sync(Box<Sync>),
    /// Show what is staged, path by path
    Diff(Box<Diff>),
    /// Take staged edits back
    Discard(Box<Discard>),
    /// Stage an empty tag that `mkdir` cannot name
    New(Box<New>),
    /// Forget cached tags and lists, so that the next look asks the registry
    Refresh(Refresh),
    /// Show and manage the local cache
    Cache(Cache),
    /// Explain an artifact without mounting it: kind, platform, layers, how lazily they are readable
    Inspect(Box<Inspect>),
}

/// `ocifs mount`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct Mount {
    /// Registry, prefix, repository:tag, repository@digest, or oci:DIRECTORY[:tag]
    #[arg(value_name = "SOURCE")]
    pub source: String,

    /// An existing empty directory, or /dev/fd/N where FUSE is mounted already
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Stay in the foreground (tells systemd when ready)
    #[arg(short, long)]
    pub foreground: bool,

    /// Mount only what is cached; never ask the registry
    #[arg(long)]
    pub offline: bool,

    /// Refuse every write in the kernel
    #[arg(long)]
    pub read_only: bool,

    /// Mount options as mount(8) gives them; names of flags without the hyphens
    #[arg(short = 'o', long = "options", value_name = "OPTIONS", action = ArgAction::Append)]
    pub options: Vec<String>,

    /// Give up if the mount does not answer in this time
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_WAIT", hide_env = true)]
    pub wait: Option<Duration>,

    /// Check source and mount point, then end without mounting.
    #[arg(long, hide = true)]
    pub check_only: bool,

    /// What is shown.
    #[command(flatten)]
    pub content: ContentFlags,

    /// Who may use the mount.
    #[command(flatten)]
    pub permissions: Permissions,

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

/// What is shown.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Content")]
pub struct ContentFlags {
    /// How long a tag or a list is trusted before the registry is asked again [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_TAG_TTL", hide_env = true)]
    pub tag_ttl: Option<Duration>,

    /// When bytes are checked: `strict` checks whole blobs before the first byte [default: auto]
    #[arg(long, value_name = "MODE", env = "OCIFS_VERIFY", hide_env = true)]
    pub verify: Option<Verify>,

    /// How artifacts are shown: as their kind says, a directory a layer, or a file a blob [default: merged]
    #[arg(long, value_name = "VIEW", env = "OCIFS_VIEW", hide_env = true)]
    pub view: Option<View>,

    /// Platform to show of a multi-platform image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,

    /// Repositories to list where the registry has no catalog, with commas between; may be repeated
    #[arg(long = "repo", value_name = "NAME", action = ArgAction::Append, value_delimiter = ',')]
    pub repositories: Vec<String>,
}

/// Who may use the mount.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Permissions")]
pub struct Permissions {
    /// Let other users in; the kernel then checks owners and modes
    #[arg(long)]
    pub allow_other: bool,

    /// With --allow-other, let other users into .oci too, which has all bytes whatever the modes of files say
    #[arg(long)]
    pub expose_metadata: bool,

    /// Owner of every file [default: as archived, else the mounting user]
    #[arg(long, value_name = "ID", env = "OCIFS_UID", hide_env = true)]
    pub uid: Option<u32>,

    /// Group of every file [default: as archived, else the mounting user's]
    #[arg(long, value_name = "ID", env = "OCIFS_GID", hide_env = true)]
    pub gid: Option<u32>,

    /// Mode of every file [default: as archived, else 0644]
    #[arg(long, value_name = "MODE", value_parser = mode, env = "OCIFS_FILE_MODE", hide_env = true)]
    pub file_mode: Option<u32>,

    /// Mode of every directory [default: as archived, else 0755]
    #[arg(long, value_name = "MODE", value_parser = mode, env = "OCIFS_DIR_MODE", hide_env = true)]
    pub dir_mode: Option<u32>,

    /// Refuse to run programs from the mount
    #[arg(long)]
    pub noexec: bool,

    /// Mount on a directory that is not empty; its content is hidden meanwhile
    #[arg(long)]
    pub nonempty: bool,
}

/// Directories and budget.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cache and state")]
pub struct Storage {
    /// Keep content here [default: $XDG_CACHE_HOME/ocifs, as root /var/cache/ocifs]
    #[arg(long, value_name = "DIR", env = "OCIFS_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,

    /// Most content to keep, over all mounts that share the directory [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::size, env = "OCIFS_CACHE_SIZE", hide_env = true)]
    pub cache_size: Option<u64>,

    /// Most memory for reading and publishing, beside what the process itself takes [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::memory, env = "OCIFS_MEMORY_LIMIT", hide_env = true)]
    pub memory_limit: Option<u64>,

    /// Leave this much of the disk free [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::size, env = "OCIFS_CACHE_MIN_FREE", hide_env = true)]
    pub cache_min_free: Option<u64>,

    /// Keep staged edits, logs and sockets here [default: $XDG_STATE_HOME/ocifs, as root /var/lib/ocifs]
    #[arg(long, value_name = "DIR", env = "OCIFS_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

/// Reaching registries.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry")]
pub struct RegistryFlags {
    /// Read credentials from this file only (config.json of docker, auth.json of podman)
    #[arg(long, value_name = "FILE", env = "OCIFS_REGISTRY_CONFIG", hide_env = true)]
    pub registry_config: Option<PathBuf>,

    /// Speak plain HTTP, or TLS if false [default: HTTP for localhost, 127.0.0.0/8 and [::1], else TLS]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub plain_http: Option<bool>,

    /// Do not check the registry's certificate
    #[arg(long)]
    pub insecure: bool,

    /// Trust the certificate authorities in this PEM file as well
    #[arg(long, value_name = "FILE", env = "OCIFS_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,

    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key_file", env = "OCIFS_CERT_FILE", hide_env = true)]
    pub cert_file: Option<PathBuf>,

    /// Key of the client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert_file", env = "OCIFS_KEY_FILE", hide_env = true)]
    pub key_file: Option<PathBuf>,

    /// Also give the registry's credentials, and the client certificate kept for it, to the token server at this origin; with
    /// `?service=NAME` only for tokens of that service; may be repeated
    #[arg(long = "trusted-realm", value_name = "ORIGIN", action = ArgAction::Append)]
    pub trusted_realms: Vec<String>,

    /// An operation fails when its transfer makes no progress for this long [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_IO_TIMEOUT", hide_env = true)]
    pub io_timeout: Option<Duration>,
}

/// All that a mount, or a command without one, needs to read and publish.
#[derive(Args, Clone, Debug, Default)]
pub struct Reaching {
    /// Directories and budget.
    #[command(flatten)]
    pub storage: Storage,

    /// Reaching registries.
    #[command(flatten)]
    pub registry: RegistryFlags,

    /// Keys.
    #[command(flatten)]
    pub keys: passphrases::Flags,
}

/// Logging of a mount.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub struct LogFlags {
    /// Write the log here [default: a file in the state directory; with --foreground, standard error]
    #[arg(long, value_name = "FILE", env = "OCIFS_LOG_FILE", hide_env = true)]
    pub log_file: Option<PathBuf>,

    /// Form of the log [default: text; journal when systemd reads standard error]
    #[arg(long, value_name = "FORMAT", env = "OCIFS_LOG_FORMAT", hide_env = true)]
    pub log_format: Option<LogFormat>,
}

/// `ocifs umount`.
#[derive(Args, Clone, Debug)]
pub struct Umount {
    /// The mount point. Others who use its file system (containers, bind mounts) are named and served on
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Take it out of the tree at once, even while files are open
    #[arg(short, long)]
    pub lazy: bool,

    /// Publish nothing; what is staged stays for the next mount
    #[arg(long, conflicts_with = "discard")]
    pub no_sync: bool,

    /// Take back what is staged instead of publishing it (asks; --yes does not)
    #[arg(long)]
    pub discard: bool,

    /// Publish in clear what encrypted artifacts hold; without this, such files are refused
    #[arg(long, conflicts_with_all = ["no_sync", "discard"])]
    pub plaintext: bool,

    /// Do not ask
    #[arg(short, long, requires = "discard")]
    pub yes: bool,

    /// Wait this long for the daemon before it is ended by force
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "10s", hide_default_value = false)]
    pub wait: Duration,

    /// The mount's state directory, if it was not the default one
    #[arg(long, value_name = "DIR", env = "OCIFS_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

/// `ocifs status`.
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// A mount, or any path in it; all mounts if absent
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// The mounts' state directory, if it was not the default one
    #[arg(long, value_name = "DIR", env = "OCIFS_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

/// `ocifs refresh`.
#[derive(Args, Clone, Debug)]
pub struct Refresh {
    /// A mount or a path in it; all mounts if absent
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,

    /// The mounts' state directory, if it was not the default one
    #[arg(long, value_name = "DIR", env = "OCIFS_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

/// `ocifs cache`.
#[derive(Args, Clone, Debug)]
pub struct Cache {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What can be done with a cache.
#[derive(Clone, Debug, Subcommand)]
pub enum CacheCommand {
    /// Show how much is kept
    Info(CacheInfo),
    /// Fetch an artifact whole and keep it until it is unpinned
    Pin(Box<Pin>),
    /// Let go of a pinned artifact
    Unpin(Box<Pin>),
    /// Remove everything that is not pinned
    Clear(CacheClear),
    /// Check what is kept; what is broken will be fetched again
    Verify(CacheInfo),
}

/// `ocifs cache info` and `verify`.
#[derive(Args, Clone, Debug)]
pub struct CacheInfo {
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// The cache.
    #[command(flatten)]
    pub storage: Storage,
}

/// `ocifs cache clear`.
#[derive(Args, Clone, Debug)]
pub struct CacheClear {
    /// Pinned artifacts too
    #[arg(long)]
    pub pinned: bool,

    /// The cache.
    #[command(flatten)]
    pub storage: Storage,
}

/// `ocifs cache pin` and `unpin`.
#[derive(Args, Clone, Debug)]
pub struct Pin {
    /// repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    pub reference: String,

    /// Platform of a multi-platform image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,

    /// Reading it.
    #[command(flatten)]
    pub reaching: Reaching,
}

/// `ocifs inspect`.
#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    pub reference: String,

    /// Platform of a multi-platform image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,

    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// The cache.
    #[command(flatten)]
    pub storage: Storage,

    /// Reaching registries.
    #[command(flatten)]
    pub registry: RegistryFlags,
}

/// `--verify`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Trust the registry's transport for blobs that still stream
    #[default]
    Auto,
    /// Check every blob whole before its first byte
    Strict,
}

/// `--view`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// As the artifact's kind says
    #[default]
    Merged,
    /// A directory a layer
    Layers,
    /// A file a blob
    Blobs,
}

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs; keys are stable
    Json,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Time, level, message
    Text,
    /// One JSON object a line
    Json,
    /// Level as a prefix that journald understands, no time
    Journal,
}

/// Permission bits in octal.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("`{}` is not a mode; write it in octal, like 0644", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!((mode("0644"), mode("755")), (Ok(0o644), Ok(0o755)));
        assert!(mode("888").is_err() && mode("77777").is_err() && mode("").is_err());
    }
}
