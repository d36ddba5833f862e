//! Flags shared by several commands, grouped as `--help` shows them; those that no file sets are in `command_flags`.
//!
//! Members of the groups in [`SETTINGS`] and [`CONNECTION`] are also keys of the configuration file, and every flag of `ocifs mount` is a
//! mount option; each is declared only here. Precedence: flag, environment, file, default.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgAction, Args};
use tempfile::TempDir;

pub use super::choices::{AsKind, Format, LogFormat, Profile, TrustIndex, Verify, View};
pub use super::command_flags::{Concurrency, Output, QueryFlags, ReadPlatform, Transferring};
use super::environment::Environment;
use super::login::LoginFlags;
use super::{custom, passphrases};
use crate::cli::exit::Failure;
use crate::cli::terminal::{escape, units};
use crate::durable;
use crate::oci::Platform;

/// Groups whose flags the configuration file can set globally. In clap, a group that flattens others has no members of its own.
pub const SETTINGS: [&str; 8] =
    ["Access", "ContentFlags", "Permissions", "WriteFlags", "Storage", "StateDirectory", "Transport", "LogFlags"];

/// The group whose flags the configuration file can set per registry.
pub const CONNECTION: &str = "Connection";

/// How the mount is accessed.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// Use cached content only; send no request
    #[arg(long)]
    pub offline: bool,

    /// Mount read-only; the kernel refuses every write
    #[arg(long)]
    pub read_only: bool,

    /// Do not remember in which order files are opened, nor fetch files ahead in the order of an earlier mount
    #[arg(long)]
    pub no_access_order: bool,

    /// Access pattern to optimize for; `small-files` needs a read-only mount and implies --verify strict [default: general]
    #[arg(long, value_name = "PROFILE", env = "OCIFS_PROFILE", hide_env = true)]
    pub profile: Option<Profile>,
}

/// Which content is shown, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Content")]
pub struct ContentFlags {
    /// How long tags and lists are trusted before revalidation [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_TAG_TTL", hide_env = true)]
    pub tag_ttl: Option<Duration>,

    /// When to verify content: `strict` verifies whole blobs before the first byte [default: auto]
    #[arg(long, value_name = "MODE", env = "OCIFS_VERIFY", hide_env = true)]
    pub verify: Option<Verify>,

    /// Indexes of layers to read by: `referrer` also uses those attached later (`ocifs index push`), which the digest does not cover; needs --read-only
    /// [default: manifest]
    #[arg(long, value_name = "SOURCE", env = "OCIFS_TRUST_INDEX", hide_env = true)]
    pub trust_index: Option<TrustIndex>,

    /// How to show artifacts: merged as their kind implies, one directory per layer, or one file per blob [default: merged]
    #[arg(long, value_name = "VIEW", env = "OCIFS_VIEW", hide_env = true)]
    pub view: Option<View>,

    /// Platform to show of a multi-platform image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,

    /// Repositories to list if the registry has no catalog, comma-separated; repeatable
    #[arg(long = "repo", value_name = "NAME", action = ArgAction::Append, value_delimiter = ',')]
    pub repositories: Vec<String>,
}

/// Access and attributes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Permissions")]
pub struct Permissions {
    /// Allow access by other users; the kernel then checks owners and modes
    #[arg(long)]
    pub allow_other: bool,

    /// With --allow-other, also open .oci to other users; it exposes all content regardless of file modes
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

    /// Forbid executing programs on the mount
    #[arg(long)]
    pub noexec: bool,
}

/// Staging and publishing.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Writing")]
pub struct WriteFlags {
    /// Allow deleting tags in the registry (`rmdir TAG`, and the old name after `mv`)
    #[arg(long)]
    pub allow_delete: bool,

    /// Publish files of encrypted artifacts unencrypted; refused without this flag
    #[arg(long)]
    pub plaintext: bool,

    /// Do not attach layer indexes as referrers to images and oci-sync artifacts; readers build their own
    #[arg(long)]
    pub no_index: bool,

    /// Maximum bytes to stage; writes beyond fail with "no space left" [default: limited by the disk]
    #[arg(long, value_name = "SIZE", value_parser = units::size, env = "OCIFS_STAGING_SIZE", hide_env = true)]
    pub staging_size: Option<u64>,

    /// How long the daemon may publish after an unmount; the rest stays staged [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_EXIT_TIMEOUT", hide_env = true)]
    pub exit_timeout: Option<Duration>,

    /// Artifact kind of new tags [default: files]
    #[arg(long, value_name = "KIND", env = "OCIFS_AS_KIND", hide_env = true)]
    pub as_kind: Option<AsKind>,

    /// Blobs uploaded at a time [default: 4]
    #[arg(long, value_name = "N", env = "OCIFS_CONCURRENCY", hide_env = true)]
    pub concurrency: Option<NonZeroUsize>,
}

/// Directories and budgets.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cache and state")]
pub struct Storage {
    /// Cache directory [default: $XDG_CACHE_HOME/ocifs, as root /var/cache/ocifs]
    #[arg(long, value_name = "DIR", value_parser = absolute(), env = "OCIFS_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,

    /// Maximum size of the cache, shared by all mounts that use the directory [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::cache_size, env = "OCIFS_CACHE_SIZE", hide_env = true)]
    pub cache_size: Option<u64>,

    /// Maximum memory for reading and publishing, on top of the process itself [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::memory, env = "OCIFS_MEMORY_LIMIT", hide_env = true)]
    pub memory_limit: Option<u64>,

    /// Leave this much of the disk free [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::size, env = "OCIFS_CACHE_MIN_FREE", hide_env = true)]
    pub cache_min_free: Option<u64>,

    /// Directory for staged edits, logs and sockets [default: $XDG_STATE_HOME/ocifs, as root /var/lib/ocifs]
    #[arg(long, value_name = "DIR", value_parser = absolute(), env = "OCIFS_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,

    /// A temporary cache directory, removed with the last clone.
    #[expect(dead_code, reason = "held until the command ends")]
    #[arg(skip)]
    pub temporary: Option<Arc<TempDir>>,
}

impl Storage {
    /// Fills in the default directories, for a command that only passes content through: if none is set and the default cannot be used (no
    /// home directory, or not writable), content is kept in a temporary directory while the command runs.
    ///
    /// # Errors
    /// No temporary directory can be created either.
    pub fn for_command(self, environment: &Environment) -> Result<Self, Failure> {
        let usual = environment.cache_directory().and_then(|directory| {
            durable::private_directory(&directory).map_err(|error| Failure::other(format!("{}: {error}", escape::path(&directory))))
        });
        let (None, Err(why)) = (&self.cache_dir, usual) else { return self.with_directories(environment) };
        let place = tempfile::Builder::new().prefix("ocifs-").tempdir();
        let place = place.map_err(|error| why.clone().context(format_args!("no cache ({error})")))?;
        tracing::debug!("using a temporary cache: {}", why.message);
        Self { cache_dir: Some(place.path().to_owned()), temporary: Some(Arc::new(place)), ..self }.with_directories(environment)
    }

    /// Fills in the default directories where none is set.
    ///
    /// # Errors
    /// The environment determines no cache directory.
    pub fn with_directories(self, environment: &Environment) -> Result<Self, Failure> {
        let cache_dir = match self.cache_dir {
            Some(directory) => directory,
            None => environment.cache_directory()?,
        };
        let state_dir = self.state_dir.or_else(|| environment.state_directory().ok());
        Ok(Self { cache_dir: Some(cache_dir), state_dir, ..self })
    }
}

/// Where the daemons of mounts keep their state.
#[derive(Args, Clone, Debug, Default)]
pub struct StateDirectory {
    /// State directory of the mount, if not the default
    #[arg(long, value_name = "DIR", value_parser = absolute(), env = "OCIFS_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

impl StateDirectory {
    /// The directory, or the default one if the environment determines it.
    pub fn or_default(self, environment: &Environment) -> Option<PathBuf> {
        self.state_dir.or_else(|| environment.state_directory().ok())
    }
}

/// How registries are reached.
#[derive(Args, Clone, Debug, Default)]
pub struct RegistryFlags {
    /// Settings for every registry.
    #[command(flatten)]
    pub transport: Transport,

    /// Settings for one registry.
    #[command(flatten)]
    pub connection: Connection,

    /// The credential to use.
    #[command(flatten)]
    pub login: LoginFlags,
}

/// How every registry is reached.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry")]
pub struct Transport {
    /// Read credentials from this file only (docker's config.json or podman's auth.json)
    #[arg(long, value_name = "FILE", value_parser = absolute(), env = "OCIFS_REGISTRY_CONFIG", hide_env = true)]
    pub registry_config: Option<PathBuf>,

    /// Ignore the mirrors and rules of containerd's hosts.toml and podman's registries.conf
    #[arg(long)]
    pub no_mirrors: bool,

    /// Fail an operation when its transfer makes no progress for this long [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_IO_TIMEOUT", hide_env = true)]
    pub io_timeout: Option<Duration>,
}

/// How one registry is reached.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry")]
pub struct Connection {
    /// Use plain HTTP, or TLS if false [default: HTTP for localhost, 127.0.0.0/8 and [::1], else TLS]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub plain_http: Option<bool>,

    /// Do not verify the registry's TLS certificate
    #[arg(long)]
    pub insecure: bool,

    /// Also trust the certificate authorities in this PEM file
    #[arg(long, value_name = "FILE", value_parser = absolute(), env = "OCIFS_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,

    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", value_parser = absolute(), requires = "key_file", env = "OCIFS_CERT_FILE", hide_env = true)]
    pub cert_file: Option<PathBuf>,

    /// Private key of the client certificate, PEM
    #[arg(long, value_name = "FILE", value_parser = absolute(), requires = "cert_file", env = "OCIFS_KEY_FILE", hide_env = true)]
    pub key_file: Option<PathBuf>,

    /// Also send the registry's credentials and client certificate to the token server at this origin; with `?service=NAME`
    /// only for tokens of that service; repeatable
    #[arg(long = "trusted-realm", value_name = "ORIGIN", action = ArgAction::Append)]
    pub trusted_realms: Vec<String>,

    /// Send this header with every request to the registry, `NAME: VALUE`; repeatable
    #[arg(short = 'H', long = "header", value_name = "HEADER", action = ArgAction::Append, value_parser = custom::header)]
    pub headers: Vec<(String, String)>,

    /// Connect to ADDRESS for HOST:PORT, HOST:PORT:ADDRESS; repeatable
    #[arg(long = "resolve", value_name = "HOST:PORT:ADDRESS", action = ArgAction::Append, value_parser = custom::address)]
    pub addresses: Vec<(String, SocketAddr)>,
}

/// How artifacts are read and published, with or without a mount.
#[derive(Args, Clone, Debug, Default)]
pub struct Reaching {
    /// Directories and budgets.
    #[command(flatten)]
    pub storage: Storage,

    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryFlags,

    /// Keys.
    #[command(flatten)]
    pub keys: passphrases::Flags,
}

/// The staged tags to work on.
#[derive(Args, Clone, Debug)]
pub struct TagFlags {
    /// A path in a mount, or a registry, repository or tag [default: the mount of the working directory, else the only mount]
    #[arg(value_name = "PATH|REF")]
    pub target: Option<String>,

    /// For tags without a daemon.
    #[command(flatten)]
    pub reaching: Reaching,
}

/// Logging of a mount.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub struct LogFlags {
    /// Log file [default: a file in the state directory; with --foreground, standard error]
    #[arg(long, value_name = "FILE", value_parser = absolute(), env = "OCIFS_LOG_FILE", hide_env = true)]
    pub log_file: Option<PathBuf>,

    /// Log format [default: text; journal when standard error goes to systemd]
    #[arg(long, value_name = "FORMAT", env = "OCIFS_LOG_FORMAT", hide_env = true)]
    pub log_format: Option<LogFormat>,
}

/// Permission bits in octal.
fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("`{}` is not a mode; write it in octal, like 0644", text.escape_debug()))
}

/// A path, made absolute: a relative one starts from the working directory, `~/` is the home directory.
fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| Environment::of_process().absolute(&path, None).map_err(|failure| failure.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!((mode("0644"), mode("755")), (Ok(0o644), Ok(0o755)));
        assert!(mode("888").is_err() && mode("77777").is_err() && mode("").is_err());
    }
}
