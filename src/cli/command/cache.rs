//! `ocifs cache`: figures, pins, clearing and checking of the local cache.

use crate::artifact::{Artifact, ViewMode};
use crate::cache::SpanCache;
use crate::cli::command::mount;
use crate::cli::command::status;
use crate::cli::daemon::handler::cache_status;
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::{CacheClear, CacheCommand, CacheInfo, ContentFlags, Format, Pin, Storage};
use crate::cli::settings::passphrases;
use crate::cli::source::reference;
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::cli::terminal::escape;
use crate::cli::terminal::output;
use crate::cli::terminal::units;
use crate::content::stream_keys;
use crate::oci::{Digest, Repository, Source, Version};

/// Bytes read at a time while an artifact is fetched for a pin.
const STEP: u64 = 8 << 20;

/// Runs the command.
///
/// # Errors
/// The cache cannot be used, or what is to be pinned cannot be fetched.
pub fn run(command: CacheCommand, matches: &clap::ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    match command {
        CacheCommand::Info(flags) => info(flags, file, environment),
        CacheCommand::Verify(flags) => verify(flags, file, environment),
        CacheCommand::Clear(flags) => clear(flags, file, environment),
        CacheCommand::Pin(flags) => pin(*flags, matches, file, environment),
        CacheCommand::Unpin(flags) => unpin(*flags, file, environment),
    }
}

fn open(mut storage: Storage, file: &File, environment: &Environment) -> Result<(Storage, SpanCache), Failure> {
    file.complete_storage(&mut storage, environment)?;
    let cache = wiring::open_cache(&storage)?;
    Ok((storage, cache))
}

fn info(flags: CacheInfo, file: &File, environment: &Environment) -> Result<(), Failure> {
    let (storage, cache) = open(flags.storage, file, environment)?;
    let figures = cache_status(&storage.cache_dir.unwrap_or_default(), &cache)?;
    match flags.format {
        Format::Json => output::json(&figures),
        Format::Text => output::line(&output::pairs(&status::cache_pairs(&figures))),
    }
}

fn verify(flags: CacheInfo, file: &File, environment: &Environment) -> Result<(), Failure> {
    let (_, cache) = open(flags.storage, file, environment)?;
    let (checked, broken) = cache.verify()?;
    match flags.format {
        Format::Json => output::json(&serde_json::json!({ "checked": checked, "broken": broken }))?,
        Format::Text => output::line(&format!("{checked} pieces checked, {broken} broken"))?,
    }
    if broken > 0 {
        return Err(Failure::other(format!("{broken} broken pieces were dropped; they are fetched again when they are read")));
    }
    Ok(())
}

fn clear(flags: CacheClear, file: &File, environment: &Environment) -> Result<(), Failure> {
    let (_, cache) = open(flags.storage, file, environment)?;
    let before = cache.usage()?;
    cache.clear(flags.pinned)?;
    let after = cache.usage()?;
    let freed = (before.spans + before.indexes).saturating_sub(after.spans + after.indexes);
    output::line(&format!("freed {}", units::show_size(freed)))
}

/// An artifact as a command names it, found and opened.
struct Wanted {
    parts: Parts,
    repository: Repository,
    digest: Digest,
}

async fn find(
    flags: &Pin,
    source: &Source,
    passphrases: Vec<crate::seal::Passphrase>,
    environment: &Environment,
) -> Result<Wanted, Failure> {
    let content = ContentFlags { platform: flags.platform.clone(), ..ContentFlags::default() };
    let reading = Reading { flags: &content, offline: false, by_digest: true, begins: false, passphrases };
    let parts = wiring::build(source, reading, &flags.reaching.registry, &flags.reaching.storage, environment)?;
    parts.cache.record_documents();
    let (repository, version) = reference::of(source, parts.pull.as_ref()).await?;
    // A tag is remembered, so that it is found while the registry is away.
    let digest = match &version {
        Version::Tag(tag) => parts.artifacts.tag(&repository, tag).await?,
        Version::Digest(_) => parts.pull.resolve(&repository, &version).await?.digest,
    };
    Ok(Wanted { parts, repository, digest })
}

fn complete(flags: &mut Pin, file: &File, environment: &Environment) -> Result<Source, Failure> {
    let source = mount::source(&flags.reference, environment)?;
    file.complete_storage(&mut flags.reaching.storage, environment)?;
    file.complete_registry(&mut flags.reaching.registry, reference::registry(&source), environment)?;
    Ok(source)
}

fn pin(mut flags: Pin, matches: &clap::ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    let source = complete(&mut flags, file, environment)?;
    let passphrases = passphrases::read_all(&passphrases::origins(&flags.reaching.keys, matches, file, environment)?)?;
    let runtime = reference::runtime()?;
    let result = runtime.block_on(async {
        let wanted = find(&flags, &source, passphrases, environment).await?;
        let artifact = wanted.parts.artifacts.artifact(&wanted.repository, &wanted.digest, ViewMode::Merged, true).await?;
        let keys: Vec<Digest> = artifact.sources().iter().flat_map(stream_keys).collect();
        // Pinned first, so that nothing of it is evicted while the rest is fetched.
        wanted.parts.cache.pin(&wanted.digest.to_string(), &keys)?;
        let bytes = fetch(&wanted, &artifact).await?;
        wanted.parts.artifacts.flush().await;
        // Once more, now with all documents that lead to it.
        wanted.parts.cache.pin(&wanted.digest.to_string(), &keys)?;
        output::line(&format!("pinned {} ({}), {}", escape::terminal(&source.to_string()), wanted.digest, units::show_size(bytes)))
    });
    runtime.shutdown_background();
    result
}

/// Reads every stream of an artifact once, which puts it into the cache.
async fn fetch(wanted: &Wanted, artifact: &Artifact) -> Result<u64, Failure> {
    let mut total = 0;
    for number in 0..artifact.sources().len() {
        let blob = u32::try_from(number).map_err(|_| Failure::other("the artifact has too many layers"))?;
        let stream = wanted.parts.artifacts.stream(&wanted.repository, artifact, blob, true).await?;
        let length = stream.length();
        let mut offset = 0;
        while offset < length {
            let end = length.min(offset + STEP);
            stream.read(offset..end).await?;
            offset = end;
        }
        total += length;
    }
    Ok(total)
}

fn unpin(mut flags: Pin, file: &File, environment: &Environment) -> Result<(), Failure> {
    let source = complete(&mut flags, file, environment)?;
    let runtime = reference::runtime()?;
    let result = runtime.block_on(async {
        // A digest that was pinned can be let go without asking anybody.
        let (cache, digest) = match reference::digest(&source) {
            Some(digest) => (wiring::open_cache(&flags.reaching.storage)?, digest),
            None => {
                let wanted = find(&flags, &source, Vec::new(), environment).await?;
                (wanted.parts.cache, wanted.digest)
            }
        };
        if cache.unpin(&digest.to_string())? {
            output::line(&format!("unpinned {} ({digest})", escape::terminal(&source.to_string())))
        } else {
            Err(Failure::new(Code::NotFound, format!("{source} ({digest}) is not pinned")))
        }
    });
    runtime.shutdown_background();
    result
}
