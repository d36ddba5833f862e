//! The configuration file, and which of flag, environment, file and default counts: the first that says anything.
//!
//! The file is YAML; its keys are the names of the flags. Unknown keys are errors with their place, so that a
//! typing mistake is no silent default.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{
    AsKind, ContentFlags, LogFlags, LogFormat, Mount, Permissions, RegistryFlags, Storage, Verify, View, WriteFlags,
};
use crate::cli::settings::passphrases::Origin;
use crate::cli::terminal::units;
use crate::oci::{Platform, Registry};

/// What the file says. Everything is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct File {
    cache_dir: Option<PathBuf>,
    #[serde(deserialize_with = "size")]
    cache_size: Option<u64>,
    #[serde(deserialize_with = "size")]
    cache_min_free: Option<u64>,
    #[serde(deserialize_with = "memory")]
    memory_limit: Option<u64>,
    state_dir: Option<PathBuf>,
    #[serde(deserialize_with = "duration")]
    tag_ttl: Option<Duration>,
    verify: Option<Verify>,
    view: Option<View>,
    #[serde(deserialize_with = "from_text")]
    platform: Option<Platform>,
    repo: Vec<String>,
    allow_other: Option<bool>,
    expose_metadata: Option<bool>,
    noexec: Option<bool>,
    uid: Option<u32>,
    gid: Option<u32>,
    #[serde(deserialize_with = "mode")]
    file_mode: Option<u32>,
    #[serde(deserialize_with = "mode")]
    dir_mode: Option<u32>,
    read_only: Option<bool>,
    allow_delete: Option<bool>,
    plaintext: Option<bool>,
    #[serde(deserialize_with = "size")]
    staging_size: Option<u64>,
    #[serde(deserialize_with = "duration")]
    exit_timeout: Option<Duration>,
    as_kind: Option<AsKind>,
    concurrency: Option<NonZeroUsize>,
    offline: Option<bool>,
    passphrase_file: Vec<PathBuf>,
    passphrase_command: Vec<String>,
    log_file: Option<PathBuf>,
    log_format: Option<LogFormat>,
    registry_config: Option<PathBuf>,
    #[serde(deserialize_with = "duration")]
    io_timeout: Option<Duration>,
    /// Settings of single registries, by `host` or `host:port`.
    registries: BTreeMap<String, Origins>,
    #[serde(skip)]
    folder: PathBuf,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Origins {
    plain_http: Option<bool>,
    insecure: Option<bool>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    trusted_realm: Vec<String>,
}

impl File {
    /// Reads the file that the user named, or the one at the usual place if there is one.
    ///
    /// # Errors
    /// A named file that is missing, and every mistake in a file, with its place.
    pub fn load(named: Option<&Path>, environment: &Environment) -> Result<Self, Failure> {
        let Some(path) = named.map(Path::to_owned).or_else(|| environment.configuration_file()) else {
            return Ok(Self::default());
        };
        let path = environment.absolute(&path, None)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Failure::usage(format!("cannot read the configuration file {}: {error}", path.display()))),
        };
        Self::parse(&text, path.parent().unwrap_or(Path::new("/")))
            .map_err(|failure| failure.context(format_args!("the configuration file {}", path.display())))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, Failure> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut file: Self = serde_saphyr::from_str(text).map_err(|error| Failure::usage(mistake(error.without_snippet(), text)))?;
        if file.registries.keys().any(|host| Registry::parse(host).is_err()) {
            return Err(Failure::usage("a key of `registries` is no HOST or HOST:PORT"));
        }
        file.folder = folder.to_owned();
        Ok(file)
    }

    /// Fills in what neither flags nor environment say about a mount.
    pub fn complete_mount(&self, mount: &mut Mount, environment: &Environment) -> Result<(), Failure> {
        mount.read_only |= self.read_only.unwrap_or_default();
        mount.offline |= self.offline.unwrap_or_default();
        self.complete_content(&mut mount.content);
        self.complete_permissions(&mut mount.permissions);
        self.complete_writing(&mut mount.writing);
        self.complete_log(&mut mount.log, environment)?;
        self.complete_storage(&mut mount.reaching.storage, environment)
    }

    /// Fills in what is shown.
    pub fn complete_content(&self, flags: &mut ContentFlags) {
        flags.tag_ttl = flags.tag_ttl.or(self.tag_ttl);
        flags.verify = flags.verify.or(self.verify);
        flags.view = flags.view.or(self.view);
        flags.platform = flags.platform.take().or_else(|| self.platform.clone());
        if flags.repositories.is_empty() {
            flags.repositories.clone_from(&self.repo);
        }
    }

    fn complete_permissions(&self, flags: &mut Permissions) {
        flags.allow_other |= self.allow_other.unwrap_or_default();
        flags.expose_metadata |= self.expose_metadata.unwrap_or_default();
        flags.noexec |= self.noexec.unwrap_or_default();
        flags.uid = flags.uid.or(self.uid);
        flags.gid = flags.gid.or(self.gid);
        flags.file_mode = flags.file_mode.or(self.file_mode);
        flags.dir_mode = flags.dir_mode.or(self.dir_mode);
    }

    /// Fills in how edits are published.
    pub fn complete_writing(&self, flags: &mut WriteFlags) {
        flags.allow_delete |= self.allow_delete.unwrap_or_default();
        flags.plaintext |= self.plaintext.unwrap_or_default();
        flags.staging_size = flags.staging_size.or(self.staging_size);
        flags.exit_timeout = flags.exit_timeout.or(self.exit_timeout);
        flags.as_kind = flags.as_kind.or(self.as_kind);
        flags.concurrency = flags.concurrency.or(self.concurrency);
    }

    fn complete_log(&self, flags: &mut LogFlags, environment: &Environment) -> Result<(), Failure> {
        flags.log_format = flags.log_format.or(self.log_format);
        flags.log_file = self.path(flags.log_file.take(), &self.log_file, environment)?;
        Ok(())
    }

    /// Fills in directories and budget; afterwards both directories are set and absolute.
    ///
    /// # Errors
    /// The environment names no directory.
    pub fn complete_storage(&self, flags: &mut Storage, environment: &Environment) -> Result<(), Failure> {
        flags.cache_size = flags.cache_size.or(self.cache_size);
        flags.cache_min_free = flags.cache_min_free.or(self.cache_min_free);
        flags.memory_limit = flags.memory_limit.or(self.memory_limit);
        flags.cache_dir = match self.path(flags.cache_dir.take(), &self.cache_dir, environment)? {
            Some(directory) => Some(directory),
            None => Some(environment.cache_directory()?),
        };
        flags.state_dir = self.state_directory(flags.state_dir.take(), environment)?;
        Ok(())
    }

    /// The state directory, where the environment has one.
    ///
    /// # Errors
    /// A path that cannot be made absolute.
    pub fn state_directory(&self, flag: Option<PathBuf>, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
        Ok(match self.path(flag, &self.state_dir, environment)? {
            Some(directory) => Some(directory),
            None => environment.state_directory().ok(),
        })
    }

    /// Fills in how a registry is reached: its own section of the file first, then what is said for all.
    ///
    /// # Errors
    /// A path that cannot be made absolute.
    pub fn complete_registry(
        &self,
        flags: &mut RegistryFlags,
        registry: Option<&Registry>,
        environment: &Environment,
    ) -> Result<(), Failure> {
        flags.io_timeout = flags.io_timeout.or(self.io_timeout);
        flags.registry_config = self.path(flags.registry_config.take(), &self.registry_config, environment)?;
        let own = registry.and_then(|registry| self.registries.get(registry.as_str())).cloned().unwrap_or_default();
        flags.plain_http = flags.plain_http.or(own.plain_http);
        flags.insecure |= own.insecure.unwrap_or_default();
        flags.ca_file = self.path(flags.ca_file.take(), &own.ca_file, environment)?;
        flags.cert_file = self.path(flags.cert_file.take(), &own.cert_file, environment)?;
        flags.key_file = self.path(flags.key_file.take(), &own.key_file, environment)?;
        if flags.trusted_realms.is_empty() {
            flags.trusted_realms = own.trusted_realm;
        }
        if flags.cert_file.is_some() != flags.key_file.is_some() {
            return Err(Failure::usage("a client certificate needs both --cert-file and --key-file"));
        }
        if flags.plain_http == Some(true) && flags.insecure {
            return Err(Failure::usage("--plain-http and --insecure exclude each other: without TLS there is no certificate to ignore"));
        }
        Ok(())
    }

    /// Places of passphrases, tried after those of the command line.
    ///
    /// # Errors
    /// A path that cannot be made absolute.
    pub fn passphrases(&self, environment: &Environment) -> Result<Vec<Origin>, Failure> {
        let mut origins = Vec::new();
        for path in &self.passphrase_file {
            origins.push(Origin::File(environment.absolute(path, Some(&self.folder))?));
        }
        origins.extend(self.passphrase_command.iter().cloned().map(Origin::Command));
        Ok(origins)
    }

    /// A path of the command line counts from the working directory, one of the file from the file's folder.
    fn path(&self, flag: Option<PathBuf>, own: &Option<PathBuf>, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
        match (flag, own) {
            (Some(path), _) => environment.absolute(&path, None).map(Some),
            (None, Some(path)) => environment.absolute(path, Some(&self.folder)).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// What is wrong in a file and where: the place and the key, and no content, which may be a secret.
fn mistake(error: &serde_saphyr::Error, text: &str) -> String {
    use serde_saphyr::Error;
    let (place, line) = match error.location() {
        Some(location) => {
            let line = usize::try_from(location.line()).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
            (format!("line {}, column {}: ", location.line(), location.column()), line.unwrap_or_default())
        }
        None => (String::new(), ""),
    };
    let key = line.split_once(':').and_then(|(key, _)| plain_key(key.trim_start_matches([' ', '-'])));
    match (error, key) {
        (Error::SerdeUnknownField { field, .. }, _) => {
            let shown = plain_key(field).map(|key| format!(" `{key}`")).unwrap_or_default();
            format!("{place}unknown key{shown}")
        }
        (Error::DuplicateMappingKey { .. }, Some(key)) => format!("{place}the key `{key}` stands there twice"),
        (_, Some(key)) => format!("{place}the value of `{key}` cannot be used"),
        (_, None) => format!("{place}this is no YAML that can be used"),
    }
}

/// A text that can be the name of a setting.
fn plain_key(text: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-' || byte == b'_';
    (!text.is_empty() && text.len() <= 32 && text.bytes().all(plain)).then_some(text)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    parsed(deserializer, units::size)
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    parsed(deserializer, units::memory)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed(deserializer, units::duration)
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    parsed(deserializer, crate::cli::settings::flags::mode)
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<Option<T>, D::Error> {
    parsed(deserializer, str::parse)
}

/// A scalar as it is written in the file, so that `0644` and `10` mean what they mean as flags.
fn parsed<'de, D: Deserializer<'de>, T>(deserializer: D, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::settings::flags::{Cli, Command};

    fn environment() -> Environment {
        Environment { home: Some("/home/a".into()), ..Environment::default() }
    }

    fn mount(arguments: &[&str]) -> Mount {
        match Cli::parse_from([&["ocifs", "mount"], arguments, &["reg.io", "/mnt"]].concat()).command {
            Command::Mount(mount) => *mount,
            _ => panic!("not a mount"),
        }
    }

    #[test]
    fn a_flag_counts_before_the_file_and_the_file_before_the_default() {
        let file =
            File::parse("cache-size: 2GiB\nmemory-limit: 64MiB\ncache-dir: sub\ntag-ttl: 5m\nfile-mode: 0600\n", Path::new("/etc/x"))
                .unwrap();
        let mut flags = mount(&["--cache-size=1M"]);
        file.complete_mount(&mut flags, &environment()).unwrap();
        assert_eq!((flags.reaching.storage.cache_size, flags.reaching.storage.memory_limit), (Some(1 << 20), Some(64 << 20)));
        assert_eq!(flags.content.tag_ttl, Some(Duration::from_secs(300)));
        assert_eq!(flags.reaching.storage.cache_dir.as_deref(), Some(Path::new("/etc/x/sub")));
        assert_eq!(flags.reaching.storage.state_dir.as_deref(), Some(Path::new("/home/a/.local/state/ocifs")));
        assert_eq!(flags.permissions.file_mode, Some(0o600));
    }

    #[test]
    fn a_repository_that_is_named_in_front_of_the_source_does_not_swallow_it() {
        let flags = mount(&["--repo=a,b", "--repo", "c"]);
        assert_eq!((flags.content.repositories, flags.source.as_str()), (["a", "b", "c"].map(str::to_owned).to_vec(), "reg.io"));
    }

    #[test]
    fn half_of_a_client_certificate_is_an_error() {
        let file = File::parse("registries: {reg.io: {cert-file: c.pem}}\n", Path::new("/etc/x")).unwrap();
        let registry = Registry::parse("reg.io").unwrap();
        let mut flags = RegistryFlags::default();
        assert!(file.complete_registry(&mut flags, Some(&registry), &environment()).unwrap_err().message.contains("--key-file"));
        let mut flags = RegistryFlags { key_file: Some("/k.pem".into()), ..RegistryFlags::default() };
        file.complete_registry(&mut flags, Some(&registry), &environment()).unwrap();
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, word) in [
            ("offline: true\ncache_size: 1G\n", "line 2, column 1: unknown key `cache_size`"),
            ("cache-size: lots\n", "line 1, column 13: the value of `cache-size` cannot be used"),
            ("registries: {UPPER_: {}}\n", "a key of `registries` is no HOST or HOST:PORT"),
            ("tag-ttl: [1]\n", "line 1, column 10: the value of `tag-ttl` cannot be used"),
            ("cache-size: 1G\ncache-size: 2G\n", "line 2, column 1: the key `cache-size` stands there twice"),
        ] {
            assert_eq!(File::parse(text, Path::new("/")).unwrap_err().message, word, "{text}");
        }
    }

    #[test]
    fn no_content_of_a_file_with_mistakes_is_told() {
        for text in [
            "cache-size: hunter2\n",
            "Hunter2\n",
            "hunter2: [\n",
            "passphrase-command: {hunter2: hunter2}\n",
            "verify: hunter2\n",
            "platform: hunter2\n",
            "uid: hunter2\n",
            "registries: {'user:hunter2@reg.io': {}}\n",
            "registries: {reg.io: {insecure: hunter2}}\n",
            "registries: {reg.io: {hunter2: true}}\n",
            "passphrase-file: *hunter2\n",
            "passphrase-file: !hunter2 x\n",
            "passphrase-file: \"hunter2\n",
            "x: &hunter2 {<<: hunter2}\n",
        ] {
            let failure = File::parse(text, Path::new("/")).unwrap_err();
            assert!(!failure.message.to_lowercase().contains("hunter"), "{text}: {}", failure.message);
        }
    }

    #[test]
    fn a_registry_has_a_section_of_its_own() {
        let file = File::parse("registries:\n  reg.io:5000:\n    plain-http: true\n    ca-file: ~/ca.pem\n", Path::new("/")).unwrap();
        let mut flags = RegistryFlags::default();
        file.complete_registry(&mut flags, Registry::parse("reg.io:5000").ok().as_ref(), &environment()).unwrap();
        assert_eq!(flags.plain_http, Some(true));
        assert_eq!(flags.ca_file.as_deref(), Some(Path::new("/home/a/ca.pem")));
        let mut other = RegistryFlags::default();
        file.complete_registry(&mut other, Registry::parse("reg.io").ok().as_ref(), &environment()).unwrap();
        assert!(other.plain_http.is_none() && other.ca_file.is_none());
    }

    #[test]
    fn only_a_file_that_was_named_must_exist() {
        assert!(File::load(None, &environment()).is_ok());
        assert!(File::load(Some(Path::new("/no/such.yaml")), &environment()).unwrap_err().message.contains("/no/such.yaml"));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert!(File::parse("# nothing\n", Path::new("/")).is_ok());
        assert!(File::parse("", Path::new("/")).is_ok());
    }
}
