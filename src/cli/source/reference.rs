//! REF of commands on one artifact: the forms of SOURCE of `mount`, with `latest` as the default tag.

use super::root;
use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::oci::{Digest, LayoutName, Registry, Repository, Source, Tag, Version};
use crate::registry::{Layout, Pull};

/// Repository and version of an artifact.
///
/// # Errors
/// A registry, or a layout of several tags without a name.
pub async fn of(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    match source {
        Source::Artifact { repository, version, .. } => Ok((repository.clone(), version.clone())),
        Source::Registry { prefix: Some(repository), .. } => Ok((repository.clone(), Version::Tag(Tag::parse("latest")?))),
        Source::Registry { registry, prefix: None } => {
            Err(Failure::usage(format!("{registry} is a registry; name an artifact in it, like {registry}/app:v1")))
        }
        Source::Layout { name: Some(name), .. } => root::in_layout(pull, name).await,
        Source::Layout { name: None, .. } => only_one(source, pull).await,
    }
}

/// The same for a command that changes or copies: no tag is guessed, except the only one of a layout.
///
/// # Errors
/// As [`of`], and a repository without a tag or digest.
pub async fn named(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    if let Source::Registry { registry, prefix: Some(repository) } = source {
        return Err(Failure::usage(format!("{registry}/{repository} has no tag; write {registry}/{repository}:TAG")));
    }
    of(source, pull).await
}

/// The tag or digest that a source names. A name of a layout that is no tag counts as none.
pub fn version(source: &Source) -> Option<Version> {
    match source {
        Source::Artifact { version, .. } => Some(version.clone()),
        Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => Some(Version::Digest(*digest)),
        Source::Layout { name: Some(name), .. } => name.tag().map(Version::Tag),
        Source::Layout { name: None, .. } | Source::Registry { .. } => None,
    }
}

/// The reference of another version in the repository or layout of a source.
pub fn with_version(source: &Source, version: &Version) -> String {
    match source {
        Source::Artifact { registry, repository, .. } | Source::Registry { registry, prefix: Some(repository) } => {
            format!("{registry}/{repository}{version}")
        }
        Source::Registry { registry, prefix: None } => format!("{registry}{version}"),
        Source::Layout { directory, .. } => format!("oci:{}{version}", directory.display()),
    }
}

async fn only_one(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    let repository = Layout::repository()?;
    let names = pull.tags(&repository, None).await?.names;
    match names.as_slice() {
        [tag] => Ok((repository, Version::Tag(Tag::parse(tag)?))),
        [] => Err(Failure::usage(format!("{source} has no tags"))),
        [first, ..] => Err(Failure::usage(format!("{source} has {} tags; name one, like {source}:{first}", names.len()))),
    }
}

/// The digest, if the reference has one.
pub fn digest(source: &Source) -> Option<Digest> {
    match source {
        Source::Artifact { version: Version::Digest(digest), .. } | Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => {
            Some(*digest)
        }
        _ => None,
    }
}

/// The registry, if the reference has one.
pub fn registry(source: &Source) -> Option<&Registry> {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Some(registry),
        Source::Layout { .. } => None,
    }
}

/// Parses SOURCE or REF. The directory of a layout becomes absolute, since the daemon works in `/`.
///
/// # Errors
/// Invalid text.
pub fn parse(text: &str, environment: &Environment) -> Result<Source, Failure> {
    Ok(match Source::parse(text)? {
        Source::Layout { directory, name } => Source::Layout { directory: environment.absolute(&directory, None)?, name },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_layout_becomes_absolute() {
        let source = parse("oci:some/layout:v1", &Environment::default()).unwrap();
        assert!(source.to_string().starts_with("oci:/") && source.to_string().ends_with("some/layout:v1"));
    }
}
