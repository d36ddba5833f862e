//! REF of commands that mean one artifact: the same forms as SOURCE of `mount`, with `latest` where no tag is given.

use tokio::runtime::Runtime;

use crate::cli::daemon::root;
use crate::cli::exit::Failure;
use crate::oci::{Digest, LayoutName, Registry, Repository, Source, Tag, Version};
use crate::registry::{Layout, Pull};

/// Repository and version of an artifact.
///
/// # Errors
/// The text names a registry and not an artifact, or a layout without a name that holds several.
pub async fn of(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    match source {
        Source::Artifact { repository, version, .. } => Ok((repository.clone(), version.clone())),
        Source::Registry { prefix: Some(repository), .. } => Ok((repository.clone(), Version::Tag(Tag::parse("latest")?))),
        Source::Registry { registry, prefix: None } => {
            Err(Failure::usage(format!("{registry} is a registry; name an artifact of it, like {registry}/app:v1")))
        }
        Source::Layout { name: Some(name), .. } => root::in_layout(pull, name).await,
        Source::Layout { name: None, .. } => only_one(source, pull).await,
    }
}

async fn only_one(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    let repository = Layout::repository()?;
    let names = pull.tags(&repository, None).await?.names;
    match names.as_slice() {
        [tag] => Ok((repository, Version::Tag(Tag::parse(tag)?))),
        [] => Err(Failure::usage(format!("{source} holds no tag"))),
        [first, ..] => Err(Failure::usage(format!("{source} holds {} tags; name one of them, like {source}:{first}", names.len()))),
    }
}

/// The digest, where the text has one.
pub fn digest(source: &Source) -> Option<Digest> {
    match source {
        Source::Artifact { version: Version::Digest(digest), .. } | Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => {
            Some(*digest)
        }
        _ => None,
    }
}

/// The registry, where the text has one.
pub fn registry(source: &Source) -> Option<&Registry> {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Some(registry),
        Source::Layout { .. } => None,
    }
}

/// A runtime for a command that ends soon.
///
/// # Errors
/// The system has no room for it.
pub fn runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().map_err(|error| Failure::other(format!("cannot start threads: {error}")))
}
