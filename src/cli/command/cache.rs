//! `ocifs cache`: shows, pins, clears and verifies the local cache.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::{Args, Subcommand};

use crate::cache::SpanCache;
use crate::cli::daemon::info::cache_status;
use crate::cli::exit::{Code, Failure};
use crate::cli::mounts;
use crate::cli::runtime::{block_on, resumable};
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{Format, Reaching, ReadPlatform, Storage};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases;
use crate::cli::source::reference;
use crate::cli::source::resolved::Resolved;
use crate::cli::source::wiring::{self, Reading};
use crate::cli::terminal::bar::Bar;
use crate::cli::terminal::{escape, message, output, units};
use crate::content::stream_keys;
use crate::control::{PATIENCE, Request};
use crate::oci::{Digest, Source};
use crate::seal::Passphrase;

/// Show and manage the local cache
#[derive(Args, Clone, Debug)]
pub struct Cache {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// Flags of `info` and `verify`.
#[derive(Args, Clone, Debug)]
struct Info {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The cache.
    #[command(flatten)]
    storage: Storage,
}

/// Flags of `clear`.
#[derive(Args, Clone, Debug)]
struct Clear {
    /// Remove pinned artifacts too
    #[arg(long)]
    pinned: bool,

    /// The cache.
    #[command(flatten)]
    storage: Storage,
}

/// Flags of `pin` and `unpin`.
#[derive(Args, Clone, Debug)]
struct Pin {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// The platform.
    #[command(flatten)]
    platform: ReadPlatform,

    /// How the registry is reached.
    #[command(flatten)]
    reaching: Reaching,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Show cache usage
    Info(Info),
    /// Fetch a whole artifact and keep it until it is unpinned
    Pin(Box<Pin>),
    /// Unpin an artifact
    Unpin(Box<Pin>),
    /// Remove everything that is not pinned
    Clear(Clear),
    /// Verify cached content; broken parts are dropped and fetched again when needed
    Verify(Info),
}

impl Cache {
    /// Runs the command.
    ///
    /// # Errors
    /// The cache cannot be used, or the artifact to pin cannot be fetched.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Info(flags) => info(flags, &invocation.environment),
            Action::Verify(flags) => verify(flags, &invocation.environment),
            Action::Clear(flags) => clear(flags, &invocation.environment),
            Action::Pin(flags) => pin(*flags, &invocation),
            Action::Unpin(flags) => unpin(*flags, &invocation),
        }
    }
}

fn open(storage: Storage, environment: &Environment) -> Result<SpanCache, Failure> {
    wiring::open_cache(&storage.with_directories(environment)?)
}

fn info(flags: Info, environment: &Environment) -> Result<(), Failure> {
    let storage = flags.storage.with_directories(environment)?;
    let figures = cache_status(storage.cache_dir.as_deref().unwrap_or(Path::new("")), &wiring::open_cache(&storage)?)?;
    output::show(flags.format, &figures, |figures| output::pairs(&output::cache_pairs(figures)))
}

fn verify(flags: Info, environment: &Environment) -> Result<(), Failure> {
    let (checked, broken) = open(flags.storage, environment)?.verify()?;
    let figures = serde_json::json!({ "checked": checked, "broken": broken });
    output::show(flags.format, &figures, |_| format!("{checked} pieces checked, {broken} broken"))?;
    if broken > 0 {
        return Err(Failure::other(format!("{broken} broken pieces dropped; they will be fetched again when read")));
    }
    Ok(())
}

fn clear(flags: Clear, environment: &Environment) -> Result<(), Failure> {
    let storage = flags.storage.with_directories(environment)?;
    let cache = wiring::open_cache(&storage)?;
    let before = cache.usage()?;
    cache.clear(flags.pinned)?;
    let after = cache.usage()?;
    // The kernel frees blocks only when no process has them open or mapped.
    for daemon in mounts::running(storage.state_dir.as_deref(), environment) {
        if let (Err(error), Some(record)) = (daemon.ask(&Request::LetGo, PATIENCE), daemon.record()) {
            let mount_point = escape::path(&record.mount_point);
            message::warn(&format!(
                "files that the daemon of {mount_point} (pid {}) has open are freed when it exits: {error}",
                record.pid
            ));
        }
    }
    let freed = (before.spans + before.indexes).saturating_sub(after.spans + after.indexes);
    output::line(&format!("freed {}", units::show_size(freed)))
}

fn complete(flags: &mut Pin, invocation: &Invocation) -> Result<Source, Failure> {
    let source = reference::parse(&flags.reference, &invocation.environment)?;
    flags.reaching.storage = std::mem::take(&mut flags.reaching.storage).with_directories(&invocation.environment)?;
    flags.reaching.registry = invocation.registry(reference::registry(&source))?;
    Ok(source)
}

fn pin(mut flags: Pin, invocation: &Invocation) -> Result<(), Failure> {
    let source = complete(&mut flags, invocation)?;
    let passphrases = passphrases::read_all(&invocation.origins(&flags.reaching.keys))?;
    resumable(
        async {
            let pinned = find(&flags, &source, passphrases, &invocation.environment).await?;
            let artifact = pinned.artifact(true).await?;
            let (cache, artifacts) = (&pinned.parts.cache, &pinned.parts.artifacts);
            let keys: Vec<Digest> = artifact.sources().iter().flat_map(stream_keys).collect();
            // Pin first, so that nothing is evicted while the rest is fetched.
            cache.pin(&pinned.digest.to_string(), &keys)?;
            let whole = artifacts.whole(&pinned.repository, &artifact, true).await?;
            let done = Arc::new(AtomicU64::new(0));
            let bar = Bar::of_bytes(false, "fetching", &done, whole.length());
            artifacts.fill(&pinned.repository, &artifact, &whole, true, &done).await?;
            drop(bar);
            artifacts.flush().await;
            // Pin again, now including the manifests and indexes that lead to it.
            cache.pin(&pinned.digest.to_string(), &keys)?;
            let size = units::show_size(whole.length());
            output::line(&format!("pinned {} ({}), {size}", escape::terminal(&source.to_string()), pinned.digest))
        },
        "what is fetched is pinned, and the next pin continues",
    )
}

async fn find(flags: &Pin, source: &Source, passphrases: Vec<Passphrase>, environment: &Environment) -> Result<Resolved, Failure> {
    let content = flags.platform.content();
    let reading = Reading { by_digest: true, passphrases, ..Reading::of(&content) };
    let parts = wiring::build(source, reading, &flags.reaching.registry, &flags.reaching.storage, environment)?;
    // A pin keeps the manifests and indexes that lead to the artifact.
    parts.cache.record_documents();
    Resolved::find(source, parts).await
}

fn unpin(mut flags: Pin, invocation: &Invocation) -> Result<(), Failure> {
    let source = complete(&mut flags, invocation)?;
    block_on(async {
        // A digest needs no lookup.
        let (cache, digest) = match reference::digest(&source) {
            Some(digest) => (wiring::open_cache(&flags.reaching.storage)?, digest),
            None => {
                let wanted = find(&flags, &source, Vec::new(), &invocation.environment).await?;
                (wanted.parts.cache, wanted.digest)
            }
        };
        if cache.unpin(&digest.to_string())? {
            output::line(&format!("unpinned {} ({digest})", escape::terminal(&source.to_string())))
        } else {
            Err(Failure::new(Code::NotFound, format!("{source} ({digest}) is not pinned")))
        }
    })
}
