//! Builds the modules from settings: registry or layout, cache, content, artifacts. Sends no request.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::{self, Artifacts, ViewMode};
use crate::cache::{self, SpanCache};
use crate::cli::exit::Failure;
use crate::cli::settings::environment::{self, Environment};
use crate::cli::settings::flags::{ContentFlags, RegistryFlags, Storage, Verify, View, WriteFlags};
use crate::cli::settings::oci_sync::OciSync;
use crate::cli::terminal::escape;
use crate::content::{self, Budget, Contents, KeyRing, MEMORY_LIMIT, PassphraseSource, VerifyPolicy};
use crate::error::Error;
use crate::fs;
use crate::oci::{LayoutForm, Platform, Registry, Repository, Source};
use crate::registry::{
    ClientCertificate, CredentialStore, Credentials, HttpConfig, HttpRegistry, Layout, Offline, Pull, Push, Timing, Tls, WebFiles,
};
use crate::seal::Passphrase;
use crate::staging::Uppers;
use crate::view::Meaning;

/// Default lifetime of a tag's digest.
pub const TAG_TTL: Duration = Duration::from_secs(60);
/// Default limit for a transfer without progress.
pub const IO_TIMEOUT: Duration = Duration::from_secs(60);
/// Default cache budget, in bytes.
const CACHE_SIZE: u64 = 10 << 30;
/// Default space to leave on the disk, in bytes.
const CACHE_MIN_FREE: u64 = 1 << 30;

/// Default number of parallel uploads.
pub const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// The modules below the file system, ready to use.
pub struct Parts {
    /// The registry or layout, for reading.
    pub pull: Arc<dyn Pull>,
    /// The same registry or layout, for writing.
    pub push: Arc<dyn Push>,
    /// The cache.
    pub cache: SpanCache,
    /// Its artifacts.
    pub artifacts: Artifacts,
}

/// How a source's content is read.
pub struct Reading<'a> {
    /// The content flags.
    pub flags: &'a ContentFlags,
    /// Send no request to the registry.
    pub offline: bool,
    /// Whether the user named a digest.
    pub by_digest: bool,
    /// Whether an empty directory may become a layout.
    pub begins: bool,
    /// Passphrases, in order.
    pub passphrases: Vec<Passphrase>,
}

/// Builds everything below the file system for a source.
///
/// # Errors
/// The layout is invalid, certificate files cannot be used, or the cache directory cannot be created.
pub fn build(
    source: &Source,
    reading: Reading<'_>,
    registry: &RegistryFlags,
    storage: &Storage,
    environment: &Environment,
) -> Result<Parts, Failure> {
    over(self::registry(source, reading.begins, registry, environment)?, source, reading, registry, storage)
}

/// The same on top of an open registry.
///
/// # Errors
/// The cache directory cannot be created.
pub fn over(
    push: Arc<dyn Push>,
    source: &Source,
    reading: Reading<'_>,
    registry: &RegistryFlags,
    storage: &Storage,
) -> Result<Parts, Failure> {
    // A layout is read in place, even offline.
    let never_asked = reading.offline && !matches!(source, Source::Layout { .. });
    let pull: Arc<dyn Pull> = if never_asked { Arc::new(Offline::new(&*push)) } else { push.clone() };
    let cache = open_cache(storage)?;
    let mut content = content::Config::new(Arc::clone(&pull), cache.clone());
    content.keys = key_ring(reading.passphrases);
    content.verify = match reading.flags.verify.unwrap_or_default() {
        Verify::Auto => VerifyPolicy::Auto,
        Verify::Strict => VerifyPolicy::Strict,
    };
    content.budget = Budget::new(storage.memory_limit.unwrap_or(MEMORY_LIMIT));
    content.io_timeout = registry.transport.io_timeout.unwrap_or(IO_TIMEOUT);
    let options = artifact::Options {
        tag_ttl: reading.flags.tag_ttl.unwrap_or(TAG_TTL),
        platform: reading.flags.platform.clone().unwrap_or_else(Platform::host),
        view: match reading.flags.view.unwrap_or_default() {
            View::Merged => ViewMode::Merged,
            View::Layers => ViewMode::Layers,
            View::Blobs => ViewMode::Blobs,
        },
        offline: reading.offline,
        strict: reading.by_digest || reading.flags.verify == Some(Verify::Strict),
        repositories: repositories(source, &reading.flags.repositories)?,
    };
    let artifacts = Artifacts::new(Arc::clone(&pull), Contents::new(content), cache.clone(), options);
    Ok(Parts { pull, push, cache, artifacts })
}

/// The registry or layout of a source.
///
/// # Errors
/// As [`build`].
pub fn registry(source: &Source, begins: bool, flags: &RegistryFlags, environment: &Environment) -> Result<Arc<dyn Push>, Failure> {
    match source {
        Source::Layout { place, name } => {
            // A missing directory is more likely a mistake.
            let may_begin = begins && name.is_none() && place.path.is_dir();
            layout(match (place.form, may_begin) {
                (LayoutForm::Archive, _) => Layout::open_archive(&place.path),
                (LayoutForm::Directory, true) => Layout::open_or_begin(&place.path),
                (LayoutForm::Directory, false) => Layout::open(&place.path),
            })
        }
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => {
            Ok(Arc::new(HttpRegistry::new(http(registry.clone(), flags, environment)?)?))
        }
    }
}

/// The destination's registry, or its layout, which is created if the directory or archive is missing. Writes to an archive take effect
/// with [`Push::finish`].
///
/// # Errors
/// As [`registry`].
pub fn destination(to: &Source, flags: &RegistryFlags, environment: &Environment) -> Result<Arc<dyn Push>, Failure> {
    match to {
        Source::Layout { place, .. } => layout(match place.form {
            LayoutForm::Directory => Layout::open_or_begin(&place.path),
            LayoutForm::Archive => Layout::open_or_begin_archive(&place.path),
        }),
        other => registry(other, false, flags, environment),
    }
}

fn layout(opened: Result<Layout, Error>) -> Result<Arc<dyn Push>, Failure> {
    Ok(Arc::new(opened.map_err(|error| Failure::from(error).context("cannot open the layout"))?))
}

fn http(registry: Registry, flags: &RegistryFlags, environment: &Environment) -> Result<HttpConfig, Failure> {
    check_named_credentials(flags)?;
    Ok(http_with(registry, flags, environment, credentials(flags, environment)?))
}

/// How a registry is reached with these credentials.
pub fn http_with(registry: Registry, flags: &RegistryFlags, environment: &Environment, credentials: Credentials) -> HttpConfig {
    let connection = &flags.connection;
    let client = match (&connection.cert_file, &connection.key_file) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    // A certificate flag implies TLS, even on this machine.
    let means_tls = connection.insecure || connection.ca_file.is_some() || client.is_some();
    HttpConfig {
        plain_http: connection.plain_http.or(means_tls.then_some(false)),
        tls: Tls {
            insecure: connection.insecure,
            ca_file: connection.ca_file.clone(),
            client,
            directories: certificate_directories(environment),
        },
        credentials: Arc::new(credentials),
        trusted_realms: connection.trusted_realms.clone(),
        headers: connection.headers.clone(),
        addresses: connection.addresses.clone(),
        timing: timing(flags),
        ..HttpConfig::new(registry)
    }
}

/// How files on web servers are reached: with the trusted CAs, without credentials.
pub fn web_files(flags: &RegistryFlags, environment: &Environment) -> WebFiles {
    let tls = Tls { ca_file: flags.connection.ca_file.clone(), directories: certificate_directories(environment), ..Tls::default() };
    WebFiles::new(tls, timing(flags))
}

fn timing(flags: &RegistryFlags) -> Timing {
    Timing { progress: flags.transport.io_timeout.unwrap_or(IO_TIMEOUT), ..Timing::default() }
}

/// The file to store a login in: the one named, else that of REGISTRY_AUTH_FILE, else docker's.
///
/// # Errors
/// None of these is known.
pub fn credential_store(flags: &RegistryFlags, environment: &Environment) -> Result<CredentialStore, Failure> {
    let file = credential_files(flags, environment).into_iter().next();
    let file = file.ok_or_else(|| Failure::usage("HOME is not set in the environment; give --registry-config"))?;
    Ok(CredentialStore::new(file, helper_directories()))
}

/// Where credentials are looked up.
///
/// # Errors
/// The oci-sync file named by the user cannot be read.
pub fn credentials(flags: &RegistryFlags, environment: &Environment) -> Result<Credentials, Failure> {
    if let Some(credential) = flags.login.credential.clone() {
        return Ok(Credentials::only(credential));
    }
    let found = Credentials::new(credential_files(flags, environment), helper_directories());
    if flags.transport.registry_config.is_some() {
        return Ok(found);
    }
    let file = OciSync::load(environment)?;
    let logins = file.auths.into_iter().map(|(host, login)| (host, login.username, login.password));
    Ok(found.with_logins(&file.path, logins))
}

/// The directories where docker and podman keep per-registry certificates.
fn certificate_directories(environment: &Environment) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Some(home) = environment.config_home.clone().or_else(|| Some(environment.home.as_ref()?.join(".config"))) {
        directories.extend(["containers/certs.d", "docker/certs.d"].map(|name| home.join(name)));
    }
    directories.extend(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from));
    directories
}

/// Checks the credentials file named by the user. Files in default places may be missing.
///
/// # Errors
/// It cannot be read or is not JSON.
fn check_named_credentials(flags: &RegistryFlags) -> Result<(), Failure> {
    let Some(file) = &flags.transport.registry_config else { return Ok(()) };
    let unusable = |why: &dyn std::fmt::Display| {
        let shown = escape::path(file);
        Failure::usage(format!("cannot use the credentials file {shown}: {why}; check --registry-config"))
    };
    let text = std::fs::read(file).map_err(|error| unusable(&error))?;
    if text.trim_ascii().is_empty() {
        return Ok(());
    }
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|_| unusable(&"not JSON"))?;
    if value.is_object() { Ok(()) } else { Err(unusable(&"not a JSON object")) }
}

/// Credentials files by priority. A file named by the user is the only one.
fn credential_files(flags: &RegistryFlags, environment: &Environment) -> Vec<PathBuf> {
    if let Some(file) = &flags.transport.registry_config {
        return vec![file.clone()];
    }
    let absolute = |path: PathBuf| std::path::absolute(path).ok();
    let mut files: Vec<PathBuf> = Vec::new();
    files.extend(environment::variable("REGISTRY_AUTH_FILE").map(PathBuf::from).and_then(absolute));
    match environment::variable("DOCKER_CONFIG") {
        Some(directory) => files.extend(absolute(PathBuf::from(directory).join("config.json"))),
        None => files.extend(environment.home.as_ref().map(|home| home.join(".docker/config.json"))),
    }
    files.extend(environment.runtime_directory.as_ref().map(|directory| directory.join("containers/auth.json")));
    files.extend(environment.configuration_home().map(|directory| directory.join("containers/auth.json")));
    files
}

/// Directories of credential helpers. A service manager may start us without PATH.
fn helper_directories() -> Vec<PathBuf> {
    match environment::variable("PATH") {
        Some(path) => std::env::split_paths(&path).filter(|directory| directory.is_absolute()).collect(),
        None => ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
    }
}

/// Opens or creates the staging area. `quota` limits its bytes.
///
/// # Errors
/// The directory cannot be created or belongs to another user.
pub fn uppers(state_directory: &Path, quota: Option<u64>) -> Result<Arc<Uppers>, Failure> {
    let shown = escape::path(state_directory);
    let hint = |error| Failure::from(error).context(format_args!("cannot use the state directory {shown}"));
    Ok(Arc::new(Uppers::open(state_directory, quota).map_err(hint)?))
}

/// How edits are staged and published.
pub fn writing(flags: &WriteFlags, uppers: Arc<Uppers>, parts: &Parts) -> fs::Writing {
    let concurrency = flags.concurrency.unwrap_or(CONCURRENCY);
    fs::Writing { uppers, push: Arc::clone(&parts.push), concurrency, plaintext: flags.plaintext, attach_index: !flags.no_index }
}

/// How edits are interpreted under these flags. `encrypted`: there is a passphrase.
pub fn meaning(parts: &Parts, flags: &WriteFlags, encrypted: bool) -> Meaning {
    let options = parts.artifacts.options();
    Meaning {
        platform: options.platform.clone(),
        view: options.view,
        strict: options.strict,
        kind: flags.as_kind.unwrap_or_default().into(),
        allow_delete: flags.allow_delete,
        encrypted,
    }
}

/// Opens or creates the cache.
///
/// # Errors
/// The directory cannot be created.
pub fn open_cache(storage: &Storage) -> Result<SpanCache, Failure> {
    Ok(SpanCache::open(cache_config(storage)?)?)
}

/// The cache's directory and budget.
///
/// # Errors
/// No cache directory is known.
pub fn cache_config(storage: &Storage) -> Result<cache::Config, Failure> {
    Ok(cache::Config {
        directory: storage.cache_dir.clone().ok_or_else(|| Failure::usage("no cache directory is known; give --cache-dir"))?,
        size: storage.cache_size.unwrap_or(CACHE_SIZE),
        min_free: storage.cache_min_free.unwrap_or(CACHE_MIN_FREE),
    })
}

fn key_ring(passphrases: Vec<Passphrase>) -> KeyRing {
    let sources = passphrases.into_iter().map(|passphrase| {
        let source = move || -> Result<Option<Passphrase>, String> { Ok(Some(passphrase.clone())) };
        Arc::new(source) as Arc<dyn PassphraseSource>
    });
    KeyRing::new(sources.collect())
}

/// The `--repo` repositories, relative to the registry's root or to the mounted prefix.
fn repositories(source: &Source, names: &[String]) -> Result<Vec<Repository>, Failure> {
    let prefix = match source {
        Source::Registry { prefix, .. } => prefix.as_ref(),
        _ => None,
    };
    let full = |name: &String| {
        let whole = Repository::parse(name)?;
        match prefix {
            Some(prefix) if !whole.is_within(prefix.as_str()) => Repository::parse(&format!("{prefix}/{name}")),
            _ => Ok(whole),
        }
    };
    names.iter().map(full).collect::<Result<_, _>>().map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::flags::Connection;

    #[test]
    fn certificates_imply_tls_on_localhost_too() {
        let registry = Registry::parse("localhost:5000").unwrap();
        let environment = Environment::default();
        let plain = |connection: Connection| {
            let flags = RegistryFlags { connection, ..RegistryFlags::default() };
            http(registry.clone(), &flags, &environment).unwrap().plain_http
        };
        assert_eq!(plain(Connection::default()), None);
        assert_eq!(plain(Connection { ca_file: Some("/ca.pem".into()), ..Connection::default() }), Some(false));
        assert_eq!(plain(Connection { plain_http: Some(false), ..Connection::default() }), Some(false));
    }

    #[test]
    fn a_named_credentials_file_is_the_only_one() {
        let environment = Environment { home: Some("/h".into()), runtime_directory: Some("/r".into()), ..Environment::default() };
        let mut named = RegistryFlags::default();
        named.transport.registry_config = Some("/auth.json".into());
        assert_eq!(credential_files(&named, &environment), [PathBuf::from("/auth.json")]);
        let usual = credential_files(&RegistryFlags::default(), &environment);
        assert!(usual.ends_with(&["/r/containers/auth.json".into(), "/h/.config/containers/auth.json".into()]));
    }

    #[test]
    fn repositories_may_be_named_relative_to_the_prefix_or_in_full() {
        let source = Source::parse("reg.io/team").unwrap();
        let names = ["app".to_owned(), "team/web".to_owned()];
        let found: Vec<String> = repositories(&source, &names).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["team/app", "team/web"]);
        assert!(repositories(&source, &["UPPER".to_owned()]).is_err());
    }
}
