//! What the root of a mount is: settled by asking the source, before anything is mounted.

use std::sync::Arc;
use std::time::Duration;

use crate::artifact::Dialect;
use crate::cli::daemon::handler::Facts;
use crate::cli::daemon::plan::Plan;
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::flags::View;
use crate::cli::source::wiring::{self, Parts};
use crate::content::Sealing;
use crate::error::ErrorKind;
use crate::fs::{self, Root, Space};
use crate::oci::{LayoutName, Repository, Source, Version};
use crate::registry::{Layout, Pull};
use crate::sys::process;
use crate::view::{Authority, Defaults, Meaning};

/// Asks the source whether it is there, whether the credentials are right, and whether it holds what was named.
/// A prefix that holds nothing yet is fine. Offline nothing is asked.
///
/// # Errors
/// With the exit code that says which of these it is.
pub async fn contact(plan: &Plan, parts: &Parts) -> Result<Root, Failure> {
    let pull = parts.pull.as_ref();
    if !plan.flags.offline {
        let about = match &plan.source {
            Source::Registry { prefix, .. } => prefix.as_ref(),
            Source::Artifact { repository, .. } => Some(repository),
            Source::Layout { .. } => None,
        };
        pull.ping(about).await.map_err(|error| hint(error, &plan.source))?;
    }
    let root = match &plan.source {
        Source::Registry { prefix, .. } => return Ok(Root::Prefix(prefix.clone())),
        Source::Layout { name: None, .. } => return Ok(Root::Layout(Layout::repository()?)),
        Source::Artifact { repository, version, .. } => (repository.clone(), version.clone()),
        Source::Layout { name: Some(name), .. } => in_layout(pull, name).await?,
    };
    if !plan.flags.offline {
        named(pull, &root.0, &root.1, &plan.source).await?;
    }
    readable(plan, parts, &root.0, &root.1).await?;
    Ok(Root::Content(root.0, root.1))
}

/// The artifact that a name selects in a layout.
///
/// # Errors
/// The layout has no such name.
pub async fn in_layout(pull: &dyn Pull, name: &LayoutName) -> Result<(Repository, Version), Failure> {
    let repository = Layout::repository()?;
    let version = match (name, name.tag()) {
        (LayoutName::Digest(digest), _) => Version::Digest(*digest),
        (LayoutName::Name(_), Some(tag)) => Version::Tag(tag),
        (LayoutName::Name(name), None) => {
            let names = pull.odd_names(&repository).await?;
            let found = names.into_iter().find(|(known, _)| known == name);
            let missing = || {
                Failure::new(Code::NotFound, format!("the layout has no artifact named `{}`", crate::cli::terminal::escape::terminal(name)))
            };
            Version::Digest(found.ok_or_else(missing)?.1.digest)
        }
    };
    Ok((repository, version))
}

async fn named(pull: &dyn Pull, repository: &Repository, version: &Version, source: &Source) -> Result<(), Failure> {
    pull.resolve(repository, version).await.map(drop).map_err(|error| hint(error, source))
}

/// An artifact that is the whole mount and cannot be read at all fails here and not at the first `ls`. Only manifests
/// are looked at.
async fn readable(plan: &Plan, parts: &Parts, repository: &Repository, version: &Version) -> Result<(), Failure> {
    let digest = match version {
        Version::Digest(digest) => *digest,
        Version::Tag(tag) => parts.artifacts.tag(repository, tag).await?,
    };
    let description = parts.artifacts.describe(repository, &digest).await?;
    if plan.flags.content.view == Some(View::Blobs) {
        // Blobs are shown as they are stored, encrypted ones too.
        return Ok(());
    }
    let key = |message: &str| Err(Failure::new(Code::Key, message));
    if description.dialect == Dialect::Sealed {
        return key("the artifact is sealed by dev.ocifs.seal, which this version cannot open; --view blobs shows it as it is stored");
    }
    if plan.passphrases.is_empty() && description.sources.iter().any(|source| source.sealing != Sealing::None) {
        return key("the artifact is encrypted and no passphrase was given; use --passphrase-file or --ask-passphrase");
    }
    Ok(())
}

fn hint(error: crate::registry::Error, source: &Source) -> Failure {
    let unreachable = matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut);
    let failure = Failure::from(error);
    if unreachable && !matches!(source, Source::Layout { .. }) {
        return Failure::new(failure.code, format!("{}; --offline mounts what is cached", failure.message));
    }
    failure
}

/// What the root of a mount of this source is, and what references of it begin with, where that is known without asking anybody: not for
/// names of a layout that are no tags.
pub fn of_source(source: &Source) -> Option<(Root, Authority)> {
    let root = match source {
        Source::Registry { prefix, .. } => Root::Prefix(prefix.clone()),
        Source::Artifact { repository, version, .. } => Root::Content(repository.clone(), version.clone()),
        Source::Layout { name: None, .. } => Root::Layout(Layout::repository().ok()?),
        Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => {
            Root::Content(Layout::repository().ok()?, Version::Digest(*digest))
        }
        Source::Layout { name: Some(name), .. } => Root::Content(Layout::repository().ok()?, Version::Tag(name.tag()?)),
    };
    Some((root, authority(source)))
}

fn authority(source: &Source) -> Authority {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Authority::Registry(registry.to_string()),
        Source::Layout { directory, .. } => Authority::Layout(format!("oci:{}", directory.display())),
    }
}

/// What the file system of a mount is told.
pub fn config(plan: &Plan, root: Root, parts: &Parts, facts: &Arc<Facts>, writing: Option<fs::Writing>) -> fs::Config {
    let permissions = &plan.flags.permissions;
    let defaults = Defaults {
        force_uid: permissions.uid,
        force_gid: permissions.gid,
        file_mode: permissions.file_mode,
        dir_mode: permissions.dir_mode,
        ..defaults(facts.since)
    };
    let meaning = wiring::meaning(parts, &plan.flags.writing, !plan.passphrases.is_empty());
    let (facts_now, cache) = (Arc::clone(facts), parts.cache.clone());
    let for_space = parts.cache.clone();
    fs::Config {
        mount_json: facts.mount_json(),
        status_json: Arc::new(move || facts_now.status_json(&cache)),
        space: Arc::new(move || space(&for_space)),
        others: match (permissions.allow_other, permissions.expose_metadata) {
            (false, _) => fs::Others::None,
            (true, false) => fs::Others::Files,
            (true, true) => fs::Others::Everything,
        },
        ..bare(root, authority(&plan.source), parts, defaults, meaning, writing)
    }
}

/// What a file system is told that no kernel asks.
pub fn bare(
    root: Root,
    authority: Authority,
    parts: &Parts,
    defaults: Defaults,
    meaning: Meaning,
    writing: Option<fs::Writing>,
) -> fs::Config {
    fs::Config {
        root,
        authority,
        defaults,
        meaning,
        tag_ttl: parts.artifacts.options().tag_ttl,
        mount_json: Vec::new(),
        status_json: Arc::new(Vec::new),
        space: Arc::new(Space::default),
        others: fs::Others::None,
        writing,
    }
}

/// Attributes where an archive says nothing: the user's, since a moment.
pub fn defaults(since: Duration) -> Defaults {
    Defaults {
        uid: process::uid(),
        gid: process::gid(),
        time: (i64::try_from(since.as_secs()).unwrap_or_default(), since.subsec_nanos()),
        force_uid: None,
        force_gid: None,
        file_mode: None,
        dir_mode: None,
    }
}

/// `df` shows the cache's budget: that is what reading fills.
fn space(cache: &crate::cache::SpanCache) -> Space {
    let usage = cache.usage().unwrap_or_default();
    Space { total: usage.size, free: usage.size.saturating_sub(usage.spans) }
}
