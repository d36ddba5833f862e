//! Contacts the source of a mount before mounting, and configures its file system.

use std::sync::Arc;

use crate::artifact::Dialect;
use crate::cli::daemon::info::MountInfo;
use crate::cli::daemon::plan::Plan;
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::flags::View;
use crate::cli::source::root;
use crate::cli::source::wiring::{self, Parts};
use crate::error::{Error, ErrorKind};
use crate::fs::{self, Root, Space};
use crate::oci::{Repository, Source, Version};
use crate::registry::{Layout, Pull};
use crate::view::Defaults;

/// Checks that the source is reachable with these credentials and that the named artifact exists. An empty prefix is fine. Sends no
/// request if offline.
///
/// # Errors
/// Each failure has its own exit code.
pub async fn contact(plan: &Plan, parts: &Parts) -> Result<Root, Failure> {
    let pull = parts.pull.as_ref();
    if !plan.flags.access.offline {
        let about = match &plan.source {
            Source::Registry { prefix, .. } => prefix.as_ref(),
            Source::Artifact { repository, .. } => Some(repository),
            Source::Layout { .. } => None,
        };
        pull.ping(about).await.map_err(|error| hint(error, &plan.source))?;
    }
    let (repository, version) = match &plan.source {
        Source::Registry { prefix, .. } => return Ok(Root::Prefix(prefix.clone())),
        Source::Layout { name: None, .. } => return Ok(Root::Layout(Layout::repository()?)),
        Source::Artifact { repository, version, .. } => (repository.clone(), version.clone()),
        Source::Layout { name: Some(name), .. } => root::in_layout(pull, name).await?,
    };
    if !plan.flags.access.offline {
        named(pull, &repository, &version, &plan.source).await?;
    }
    readable(plan, parts, &repository, &version).await?;
    Ok(Root::Content(repository, version))
}

async fn named(pull: &dyn Pull, repository: &Repository, version: &Version, source: &Source) -> Result<(), Failure> {
    pull.resolve(repository, version).await.map(drop).map_err(|error| hint(error, source))
}

/// Fails early if the whole mount is one artifact that cannot be read. Reads only manifests.
async fn readable(plan: &Plan, parts: &Parts, repository: &Repository, version: &Version) -> Result<(), Failure> {
    let digest = parts.artifacts.digest(repository, version).await?;
    let description = parts.artifacts.describe(repository, &digest).await?;
    if plan.flags.content.view == Some(View::Blobs) {
        // Raw blobs need no key.
        return Ok(());
    }
    let key = |message: &str| Err(Failure::new(Code::Key, message));
    if description.dialect == Dialect::Sealed {
        return key("the artifact is sealed by dev.ocifs.seal, which this version cannot open; --view blobs shows the stored blobs");
    }
    if plan.passphrases.is_empty() && description.is_encrypted() {
        return key("the artifact is encrypted and no passphrase was given; use --passphrase-file or --ask-passphrase");
    }
    Ok(())
}

fn hint(error: Error, source: &Source) -> Failure {
    let unreachable = matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut);
    let failure = Failure::from(error);
    if unreachable && !matches!(source, Source::Layout { .. }) {
        return Failure::new(failure.code, format!("{}; --offline mounts cached content", failure.message));
    }
    failure
}

/// The configuration of a mount's file system.
pub fn config(plan: &Plan, at: Root, parts: &Parts, info: &Arc<MountInfo>, writing: Option<fs::Writing>) -> fs::Config {
    let permissions = &plan.flags.permissions;
    let defaults = Defaults {
        force_uid: permissions.uid,
        force_gid: permissions.gid,
        file_mode: permissions.file_mode,
        dir_mode: permissions.dir_mode,
        ..root::defaults(info.since)
    };
    let meaning = wiring::meaning(parts, &plan.flags.writing, !plan.passphrases.is_empty());
    let (shown, cache) = (Arc::clone(info), parts.cache.clone());
    let for_space = parts.cache.clone();
    fs::Config {
        mount_json: info.mount_json(),
        status_json: Arc::new(move || shown.status_json(&cache)),
        space: Arc::new(move || space(&for_space)),
        others: match (permissions.allow_other, permissions.expose_metadata) {
            (false, _) => fs::Others::None,
            (true, false) => fs::Others::Files,
            (true, true) => fs::Others::Everything,
        },
        skips_opens: plan.skips_opens(),
        ..root::bare(at, root::authority(&plan.source), parts, defaults, meaning, writing)
    }
}

/// `df` shows the cache budget, which reads fill.
fn space(cache: &crate::cache::SpanCache) -> Space {
    Space { total: cache.size(), free: cache.size().saturating_sub(cache.used()) }
}
