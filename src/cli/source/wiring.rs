//! Builds the modules from settings: registry or layout, cache, content, artifacts. Sends no request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::{self, Artifacts, ViewMode};
use crate::cache::{self, SpanCache};
use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{Concurrency, ContentFlags, RegistryFlags, Storage, TrustIndex, Verify, View, WriteFlags};
use crate::cli::source::{access, mirrors};
use crate::cli::terminal::escape;
use crate::content::{self, Budget, Contents, KeyRing, MEMORY_LIMIT, PassphraseSource, VerifyPolicy};
use crate::error::Error;
use crate::fs;
use crate::oci::{LayoutForm, Platform, Registry, Repository, Source};
use crate::registry::{HttpRegistry, Layout, Offline, Pull, Push, Rules};
use crate::seal::Passphrase;
use crate::staging::Uppers;
use crate::view::Meaning;

pub use super::access::{IO_TIMEOUT, credential_store, credentials, http_with, web_files};

/// Default lifetime of a tag's digest.
pub const TAG_TTL: Duration = Duration::from_secs(60);
/// Default cache budget, in bytes.
const CACHE_SIZE: u64 = 10 << 30;
/// Default space to leave on the disk, in bytes.
const CACHE_MIN_FREE: u64 = 1 << 30;

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
    /// Remember in which order files are opened, and fetch them ahead in this order.
    pub access_order: bool,
    /// Whether the user named a digest.
    pub by_digest: bool,
    /// Whether an empty directory may become a layout.
    pub begins: bool,
    /// Passphrases, in order.
    pub passphrases: Vec<Passphrase>,
    /// How the cache is used.
    pub caching: Caching,
}

/// How the cache is used.
pub enum Caching {
    /// Stores the content that is read.
    Filled,
    /// Uses the content that is there, and stores none. Whole blobs may wait, unnamed, on the file system of `spool` until they were decoded.
    Unfilled {
        /// An existing directory.
        spool: Option<PathBuf>,
    },
}

impl<'a> Reading<'a> {
    /// Content of tags, read through the cache without passphrases.
    pub fn of(flags: &'a ContentFlags) -> Self {
        let caching = Caching::Filled;
        Self { flags, offline: false, access_order: false, by_digest: false, begins: false, passphrases: Vec::new(), caching }
    }
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
    let (push, rules) = opened(source, reading.begins, registry, environment)?;
    let pull = mirrors::over(push.clone(), source, rules, registry, environment)?;
    assemble(pull, push, source, reading, registry, storage)
}

/// The same on top of an open registry, which is also read itself: no mirror is asked.
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
    assemble(push.clone(), push, source, reading, registry, storage)
}

fn assemble(
    pull: Arc<dyn Pull>,
    push: Arc<dyn Push>,
    source: &Source,
    reading: Reading<'_>,
    registry: &RegistryFlags,
    storage: &Storage,
) -> Result<Parts, Failure> {
    // A layout is read in place, even offline.
    let never_asked = reading.offline && !matches!(source, Source::Layout { .. });
    let pull: Arc<dyn Pull> = if never_asked { Arc::new(Offline::new(&*push)) } else { pull };
    let cache = open_cache(storage)?;
    let (cache, spool) = match reading.caching {
        Caching::Filled => (cache, None),
        Caching::Unfilled { spool } => (cache.unfilled(spool.clone()), spool),
    };
    let mut content = content::Config::new(Arc::clone(&pull), cache.clone());
    content.spool = spool;
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
        trust_referrers: reading.flags.trust_index == Some(TrustIndex::Referrer),
        access_order: reading.access_order,
        repositories: repositories(source, &reading.flags.repositories)?,
    };
    let artifacts = Artifacts::new(Arc::clone(&pull), Contents::new(content), cache.clone(), options);
    Ok(Parts { pull, push, cache, artifacts })
}

/// The registry or layout of a source, to read from: through its mirrors.
///
/// # Errors
/// As [`build`].
pub fn readable(source: &Source, flags: &RegistryFlags, environment: &Environment) -> Result<Arc<dyn Pull>, Failure> {
    let (push, rules) = opened(source, false, flags, environment)?;
    mirrors::over(push, source, rules, flags, environment)
}

/// The registry or layout of a source itself, to write to and to decide about writes.
///
/// # Errors
/// As [`build`].
pub fn registry(source: &Source, begins: bool, flags: &RegistryFlags, environment: &Environment) -> Result<Arc<dyn Push>, Failure> {
    Ok(opened(source, begins, flags, environment)?.0)
}

/// The registry or layout of a source, and the rules of the mirror files for it, which are read once.
fn opened(source: &Source, begins: bool, flags: &RegistryFlags, environment: &Environment) -> Result<(Arc<dyn Push>, Arc<Rules>), Failure> {
    match source {
        Source::Layout { place, name } => {
            // A missing directory is more likely a mistake.
            let may_begin = begins && name.is_none() && place.path.is_dir();
            let layout = layout(match (place.form, may_begin) {
                (LayoutForm::Archive, _) => Layout::open_archive(&place.path),
                (LayoutForm::Directory, true) => Layout::open_or_begin(&place.path),
                (LayoutForm::Directory, false) => Layout::open(&place.path),
            });
            Ok((layout?, Arc::default()))
        }
        Source::Registry { registry, prefix: repository } => remote(registry, repository.as_ref(), flags, environment),
        Source::Artifact { registry, repository, .. } => remote(registry, Some(repository), flags, environment),
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

fn remote(
    registry: &Registry,
    repository: Option<&Repository>,
    flags: &RegistryFlags,
    environment: &Environment,
) -> Result<(Arc<dyn Push>, Arc<Rules>), Failure> {
    access::check_named_credentials(flags)?;
    let rules = mirrors::rules(registry, flags, environment)?;
    rules.check(repository)?;
    let config = http_with(registry.clone(), flags, environment, credentials(flags, environment)?);
    let registry = HttpRegistry::new(mirrors::with_rules(config, Arc::clone(&rules), repository))?;
    Ok((Arc::new(registry), rules))
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
    let concurrency = flags.concurrency.unwrap_or(Concurrency::DEFAULT);
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

    #[test]
    fn repositories_may_be_named_relative_to_the_prefix_or_in_full() {
        let source = Source::parse("reg.io/team").unwrap();
        let names = ["app".to_owned(), "team/web".to_owned()];
        let found: Vec<String> = repositories(&source, &names).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["team/app", "team/web"]);
        assert!(repositories(&source, &["UPPER".to_owned()]).is_err());
    }
}
