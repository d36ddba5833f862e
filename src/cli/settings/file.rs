//! The configuration file: YAML whose keys are flag names.
//!
//! Its values become defaults of the flags, so flags and environment variables override it. The valid keys follow from the groups in
//! `flags.rs`. An unknown key is an error with its position: a typo never silently falls back to a default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use clap::builder::{Resettable, ValueParser};
use clap::{Arg, Args, Command, Id};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use super::environment::Environment;
use super::flags::{CONNECTION, SETTINGS};
use super::passphrases::Origin;
use crate::cli::exit::Failure;
use crate::cli::terminal::escape;
use crate::oci::Registry;

/// Keys beyond those of [`SETTINGS`]. Their values are added after those of the command line instead of being overridden.
const PASSPHRASES: [&str; 2] = ["passphrase-file", "passphrase-command"];

/// The command with a section of its own.
const SERVE: &str = "serve";

/// Values by the long name of their flag.
type Settings = BTreeMap<String, Vec<OsString>>;

/// The content of a configuration file.
#[derive(Clone, Debug, Default)]
pub struct File {
    general: Settings,
    /// By `host` or `host:port`.
    registries: BTreeMap<String, Settings>,
    /// Flags of `ocifs serve`.
    serve: Settings,
}

impl File {
    /// Reads the file named by the user, else the one in the default place if it exists. `command` has all flags.
    ///
    /// # Errors
    /// A named file is missing, or the file has a mistake, reported with its position.
    pub fn load(named: Option<&Path>, environment: &Environment, command: &Command) -> Result<Self, Failure> {
        let Some(path) = named.map(Path::to_owned).or_else(|| environment.configuration_file()) else {
            return Ok(Self::default());
        };
        let path = environment.absolute(&path, None)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(Failure::usage(format!("cannot read the configuration file {}: {error}", escape::path(&path))));
            }
        };
        Self::parse(&text, path.parent().unwrap_or(Path::new("/")), environment, command)
            .map_err(|failure| failure.context(format_args!("the configuration file {}", escape::path(&path))))
    }

    /// Relative paths in the file start from its directory.
    fn parse(text: &str, folder: &Path, environment: &Environment, command: &Command) -> Result<Self, Failure> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let (general, connection) = (keys(command, &SETTINGS, &PASSPHRASES), keys(command, &[CONNECTION], &[]));
        let serve: Vec<Arg> = command.find_subcommand(SERVE).into_iter().flat_map(Command::get_arguments).cloned().collect();
        let mapping = Mapping { keys: &general, sections: Some(Sections { registries: &connection, serve: &serve }) };
        let mut file = serde_saphyr::with_deserializer_from_str(text, |deserializer| mapping.deserialize(deserializer))
            .map_err(|error| Failure::usage(mistake(error.without_snippet(), text)))?;
        if file.registries.keys().any(|host| Registry::parse(host).is_err()) {
            return Err(Failure::usage("a key of `registries` is neither HOST nor HOST:PORT"));
        }
        for (name, values) in file.registries.values_mut().chain([&mut file.general, &mut file.serve]).flatten() {
            if general.iter().chain(&connection).chain(&serve).any(|key| key.get_long() == Some(name) && is(key, &ValueParser::path_buf()))
            {
                for value in values {
                    *value = environment.absolute(Path::new(value), Some(folder))?.into_os_string();
                }
            }
        }
        Ok(file)
    }

    /// The command with the file's global values as defaults.
    pub fn as_defaults(&self, command: Command) -> Command {
        let command = with_defaults(command, &SETTINGS, &self.general);
        if command.find_subcommand(SERVE).is_none() {
            return command;
        }
        command.mut_subcommand(SERVE, |serve| {
            serve.mut_args(|arg| match arg.get_long().and_then(|long| self.serve.get(long)) {
                Some(values) => arg.default_values(values),
                None => arg,
            })
        })
    }

    /// The command with a registry's section as defaults.
    pub fn as_defaults_for(&self, registry: &Registry, command: Command) -> Command {
        match self.registries.get(registry.as_str()) {
            Some(section) => with_defaults(command, &[CONNECTION], section),
            None => command,
        }
    }

    /// A group of flags as set by the file alone.
    ///
    /// # Errors
    /// Never for a group of [`SETTINGS`].
    pub fn group<T: Args>(&self, registry: Option<&Registry>) -> Result<T, Failure> {
        let command = self.as_defaults(T::augment_args(Command::new("file").no_binary_name(true)));
        let command = registry.map_or(command.clone(), |registry| self.as_defaults_for(registry, command));
        let matches = command.mut_args(|arg| arg.env(Resettable::Reset)).try_get_matches_from::<_, &str>([]);
        matches.and_then(|matches| T::from_arg_matches(&matches)).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Sources of passphrases, tried after those on the command line.
    pub fn passphrases(&self) -> Vec<Origin> {
        let values = |name: &str| self.general.get(name).cloned().unwrap_or_default();
        let files = values("passphrase-file").into_iter().map(|path| Origin::File(path.into()));
        let commands = values("passphrase-command").into_iter().filter_map(|command| command.into_string().ok());
        files.chain(commands.map(Origin::Command)).collect()
    }
}

/// Ids of the flags in the given groups of a command.
fn members(command: &Command, groups: &[&str]) -> Vec<Id> {
    let groups = command.get_groups().filter(|group| groups.contains(&group.get_id().as_str()));
    groups.flat_map(|group| group.get_args().cloned()).collect()
}

/// The flags in the given groups or with the given names, in a command and its subcommands.
fn keys(command: &Command, groups: &[&str], names: &[&str]) -> Vec<Arg> {
    let members = members(command, groups);
    let is_key = |arg: &&Arg| members.contains(arg.get_id()) || arg.get_long().is_some_and(|long| names.contains(&long));
    let own = command.get_arguments().filter(is_key).cloned();
    own.chain(command.get_subcommands().flat_map(|inner| keys(inner, groups, names))).collect()
}

fn with_defaults(command: Command, groups: &[&str], settings: &Settings) -> Command {
    let members = members(&command, groups);
    let command = command.mut_args(|arg| match arg.get_long().and_then(|long| settings.get(long)) {
        Some(values) if members.contains(arg.get_id()) => arg.default_values(values),
        _ => arg,
    });
    command.mut_subcommands(|inner| with_defaults(inner, groups, settings))
}

/// Whether a flag has this value parser.
fn is(flag: &Arg, parser: &ValueParser) -> bool {
    flag.get_value_parser().type_id() == parser.type_id()
}

/// A mapping from flag names to values; at the top level also sections.
#[derive(Clone, Copy)]
struct Mapping<'a> {
    keys: &'a [Arg],
    sections: Option<Sections<'a>>,
}

/// The keys of the sections.
#[derive(Clone, Copy)]
struct Sections<'a> {
    registries: &'a [Arg],
    serve: &'a [Arg],
}

impl<'de> DeserializeSeed<'de> for Mapping<'_> {
    type Value = File;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<File, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Mapping<'_> {
    type Value = File;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let mut file = File::default();
        while let Some(name) = map.next_key_seed(Key(self))? {
            match self.keys.iter().find(|key| key.get_long() == Some(&name)) {
                Some(key) => {
                    let values = map.next_value_seed(Value(key))?;
                    file.general.extend((!values.is_empty()).then_some((name, values)));
                }
                None => match self.sections {
                    Some(sections) if name == SERVE => {
                        file.serve = map.next_value_seed(Mapping { keys: sections.serve, sections: None })?.general;
                    }
                    sections => {
                        let keys = sections.map(|sections| sections.registries).unwrap_or_default();
                        file.registries = map.next_value_seed(OfRegistries(keys))?;
                    }
                },
            }
        }
        Ok(file)
    }
}

/// The name of a setting.
struct Key<'a>(Mapping<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let name = String::deserialize(deserializer)?;
        let Mapping { keys, sections } = self.0;
        let is_section = sections.is_some() && (name == "registries" || name == SERVE);
        let is_known = is_section || keys.iter().any(|key| key.get_long() == Some(&name));
        if is_known { Ok(name) } else { Err(D::Error::unknown_field(&name, &[])) }
    }
}

/// Settings by registry.
struct OfRegistries<'a>(&'a [Arg]);

impl<'de> DeserializeSeed<'de> for OfRegistries<'_> {
    type Value = BTreeMap<String, Settings>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OfRegistries<'_> {
    type Value = BTreeMap<String, Settings>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping of registries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut sections = BTreeMap::new();
        while let Some(host) = map.next_key()? {
            sections.insert(host, map.next_value_seed(Mapping { keys: self.0, sections: None })?.general);
        }
        Ok(sections)
    }
}

/// The value of a setting, parsed by its flag's parser: `0644` and `10` mean the same as on the command line.
struct Value<'a>(&'a Arg);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Vec<OsString>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<OsString>, D::Error> {
        let values: Vec<String> = if is(self.0, &ValueParser::bool()) {
            Option::<bool>::deserialize(deserializer)?.iter().map(ToString::to_string).collect()
        } else if matches!(self.0.get_action(), clap::ArgAction::Append) {
            Vec::deserialize(deserializer)?
        } else {
            Option::deserialize(deserializer)?.into_iter().collect()
        };
        // Paths are made absolute later; any text can be a path.
        let accepted = is(self.0, &ValueParser::path_buf()) || values.is_empty() || {
            let parser = Arg::new("value").num_args(1..).value_parser(self.0.get_value_parser().clone());
            let command = Command::new("check").no_binary_name(true).arg(parser);
            command.try_get_matches_from(["--"].into_iter().chain(values.iter().map(String::as_str))).is_ok()
        };
        if accepted { Ok(values.into_iter().map(OsString::from).collect()) } else { Err(D::Error::custom("unusable")) }
    }
}

/// Describes a mistake by position and key. The value stays out of the message: it may be a secret.
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
        (Error::DuplicateMappingKey { .. }, Some(key)) => format!("{place}the key `{key}` appears twice"),
        (_, Some(key)) => format!("{place}the value of `{key}` cannot be used"),
        (_, None) => format!("{place}not valid YAML for this file"),
    }
}

/// The text, if it can be a setting's name.
fn plain_key(text: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-' || byte == b'_';
    (!text.is_empty() && text.len() <= 32 && text.bytes().all(plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::command::Cli;
    use crate::cli::settings::flags::{ContentFlags, Permissions, RegistryFlags, Storage};

    fn environment() -> Environment {
        Environment { home: Some("/home/a".into()), ..Environment::default() }
    }

    fn parse(text: &str) -> Result<File, Failure> {
        File::parse(text, Path::new("/etc/x"), &environment(), &Cli::command())
    }

    /// A group of flags of `mount`, with the file as defaults.
    fn group<T: Args>(file: &File, arguments: &[&str]) -> T {
        let arguments = [&["ocifs", "mount"], arguments, &["reg.io", "/mnt"]].concat();
        let matches = file.as_defaults(Cli::command()).get_matches_from(arguments);
        T::from_arg_matches(matches.subcommand_matches("mount").unwrap()).unwrap()
    }

    #[test]
    fn flags_override_the_file_which_overrides_defaults() {
        let file = parse("cache-size: 2GiB\nmemory-limit: 64MiB\ncache-dir: sub\ntag-ttl: 5m\nfile-mode: 0600\nnoexec: true\n").unwrap();
        let storage: Storage = group(&file, &["--cache-size=16M"]);
        assert_eq!((storage.cache_size, storage.memory_limit), (Some(16 << 20), Some(64 << 20)));
        assert_eq!((storage.cache_dir.as_deref(), storage.state_dir), (Some(Path::new("/etc/x/sub")), None));
        assert_eq!(group::<ContentFlags>(&file, &[]).tag_ttl, Some(Duration::from_secs(300)));
        let permissions: Permissions = group(&file, &[]);
        assert_eq!((permissions.file_mode, permissions.noexec, permissions.allow_other), (Some(0o600), true, false));
    }

    #[test]
    fn the_configuration_keys_are_stable() {
        let names = |groups: &[&str], names: &[&str]| {
            let found = keys(&Cli::command(), groups, names);
            let sorted: BTreeSet<&str> = found.iter().filter_map(Arg::get_long).collect();
            sorted.into_iter().collect::<Vec<_>>().join(" ")
        };
        let general = "allow-delete allow-other as-kind cache-dir cache-min-free cache-size concurrency dir-mode exit-timeout \
            expose-metadata file-mode gid io-timeout log-file log-format memory-limit no-access-order no-index no-mirrors noexec offline passphrase-command passphrase-file plaintext \
            platform profile read-only registry-config repo staging-size state-dir tag-ttl trust-index uid verify view";
        assert_eq!(names(&SETTINGS, &PASSPHRASES), general);
        assert_eq!(names(&[CONNECTION], &[]), "ca-file cert-file header insecure key-file plain-http resolve trusted-realm");
    }

    #[test]
    fn safety_switches_in_the_file_apply_to_mounts_only() {
        let file = parse("plaintext: true\nallow-delete: true\n").unwrap();
        let matches = file.as_defaults(Cli::command()).get_matches_from(["ocifs", "sync"]);
        let sync = matches.subcommand_matches("sync").unwrap();
        assert!(!sync.get_flag("plaintext") && !sync.get_flag("allow_delete"));
    }

    #[test]
    fn mistakes_are_reported_with_their_position() {
        for (text, word) in [
            ("offline: true\ncache_size: 1G\n", "line 2, column 1: unknown key `cache_size`"),
            ("cache-size: lots\n", "line 1, column 13: the value of `cache-size` cannot be used"),
            ("registries: {UPPER_: {}}\n", "a key of `registries` is neither HOST nor HOST:PORT"),
            ("tag-ttl: [1]\n", "line 1, column 10: the value of `tag-ttl` cannot be used"),
            ("cache-size: 1G\ncache-size: 2G\n", "line 2, column 1: the key `cache-size` appears twice"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, word, "{text}");
        }
    }

    #[test]
    fn errors_never_quote_the_file_s_content() {
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
            let failure = parse(text).unwrap_err();
            assert!(!failure.message.to_lowercase().contains("hunter"), "{text}: {}", failure.message);
        }
    }

    #[test]
    fn a_registry_has_a_section_of_its_own() {
        let file = parse("registries:\n  reg.io:5000:\n    plain-http: true\n    ca-file: ~/ca.pem\nio-timeout: 5s\n").unwrap();
        let flags = |host: &str| file.group::<RegistryFlags>(Registry::parse(host).ok().as_ref()).unwrap();
        let own = flags("reg.io:5000");
        assert_eq!((own.connection.plain_http, own.transport.io_timeout), (Some(true), Some(Duration::from_secs(5))));
        assert_eq!(own.connection.ca_file.as_deref(), Some(Path::new("/home/a/ca.pem")));
        let other = flags("reg.io");
        assert!(other.connection.plain_http.is_none() && other.connection.ca_file.is_none() && other.transport.io_timeout.is_some());
    }

    #[test]
    fn the_server_has_a_section_of_its_own() {
        let text = "cache-size: 1GiB\nserve:\n  upstream: [docker=docker.io, ghcr=ghcr.io]\n  store: data\n  read-only: true\n  listen: \
            127.0.0.1:6000\n  cache-size: 2GiB\n";
        let file = parse(text).unwrap();
        let matches = file.as_defaults(Cli::command()).get_matches_from(["ocifs", "serve", "--listen", "127.0.0.1:7000"]);
        let serve = matches.subcommand_matches("serve").unwrap();
        assert_eq!(serve.get_one::<PathBuf>("store").map(PathBuf::as_path), Some(Path::new("/etc/x/data")));
        assert_eq!((serve.get_flag("read_only"), serve.get_one::<u64>("cache_size")), (true, Some(&(2 << 30))));
        assert_eq!(serve.get_one::<std::net::SocketAddr>("listen").unwrap().port(), 7000);
        assert_eq!(serve.get_many::<(String, Registry)>("upstreams").unwrap().count(), 2);
        let mount = file.as_defaults(Cli::command()).get_matches_from(["ocifs", "mount", "reg.io", "/mnt"]);
        let mount = mount.subcommand_matches("mount").unwrap();
        assert_eq!((mount.get_flag("read_only"), mount.get_one::<u64>("cache_size")), (false, Some(&(1 << 30))));
        for (text, word) in [
            ("serve:\n  upstrem: []\n", "line 2, column 3: unknown key `upstrem`"),
            ("serve:\n  upstream: [docker]\n", "line 2, column 13: the value of `upstream` cannot be used"),
            ("serve:\n  serve: {}\n", "line 2, column 3: unknown key `serve`"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, word, "{text}");
        }
    }

    #[test]
    fn only_an_explicitly_named_file_must_exist() {
        let load = |named| File::load(named, &environment(), &Cli::command());
        assert!(load(None).is_ok());
        assert!(load(Some(Path::new("/no/such.yaml"))).unwrap_err().message.contains("/no/such.yaml"));
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert!(parse("# nothing\n").is_ok() && parse("").is_ok());
    }
}
