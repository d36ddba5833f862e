//! `ocifs repo`: plain repository and tag names, one per line, as `oras repo` prints them.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::listing::holding;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::QueryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, reference, wiring};
use crate::cli::terminal::{escape, output};
use crate::oci::{Repository, Source};
use crate::registry::{Layout, all_names};

/// List repository and tag names, one per line
#[derive(Args, Clone, Debug)]
pub struct Repo {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List the repositories of a registry, or those below a prefix
    #[command(visible_alias = "list")]
    Ls(Listed),
    /// List the tags of a repository; given a tag or digest, those with the same digest
    #[command(visible_alias = "show-tags")]
    Tags(Tags),
}

/// Flags of both actions.
#[derive(Args, Clone, Debug)]
struct Listed {
    /// registry or registry/prefix; for tags registry/repository, registry/repository:tag, oci:DIRECTORY or oci-archive:FILE
    #[arg(value_name = "REG|REPO")]
    place: String,

    /// Only names after this one
    #[arg(long, value_name = "NAME")]
    last: Option<String>,

    /// Format and registry.
    #[command(flatten)]
    query: QueryFlags,
}

/// Flags of `tags`.
#[derive(Args, Clone, Debug)]
struct Tags {
    /// Common flags.
    #[command(flatten)]
    listed: Listed,

    /// Leave out tags derived from a digest: signatures, attestations, referrers lists
    #[arg(long)]
    exclude_digest_tags: bool,
}

/// The output of `ls`.
#[derive(Debug, Serialize)]
struct Repositories {
    registry: String,
    repositories: Vec<String>,
}

/// The output of `tags`.
#[derive(Debug, Serialize)]
struct TagNames {
    tags: Vec<String>,
}

impl Repo {
    /// Runs the command.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Ls(flags) => repositories(flags, &invocation),
            Action::Tags(flags) => tags(flags, &invocation),
        }
    }
}

fn repositories(flags: Listed, invocation: &Invocation) -> Result<(), Failure> {
    let environment = &invocation.environment;
    let source = reference::parse(&flags.place, environment)?;
    let Source::Registry { registry, prefix } = &source else {
        return Err(Failure::usage(format!("{source} is not a registry; to list its tags, run `ocifs repo tags {source}`")));
    };
    let pull = wiring::readable(&source, &invocation.registry(Some(registry))?, environment)?;
    let names = until_interrupted(async { Ok(all_names(pull.as_ref(), None, || ()).await?.names) })?;
    let mut names: Vec<String> = names.into_iter().filter(|name| is_below(name, prefix.as_ref())).collect();
    names.sort_unstable();
    names.retain(|name| is_after(name, flags.last.as_deref()));
    let found = Repositories { registry: registry.to_string(), repositories: names };
    output::show(flags.query.format, &found, |found| lines(&found.repositories))
}

/// Whether a repository is the prefix or lies below it, by whole components.
fn is_below(name: &str, prefix: Option<&Repository>) -> bool {
    Repository::parse(name).is_ok_and(|name| prefix.is_none_or(|prefix| name.is_within(prefix.as_str())))
}

fn is_after(name: &str, last: Option<&str>) -> bool {
    last.is_none_or(|last| name > last)
}

fn lines(names: &[String]) -> String {
    names.iter().map(|name| escape::terminal(name)).collect::<Vec<_>>().join("\n")
}

fn tags(flags: Tags, invocation: &Invocation) -> Result<(), Failure> {
    let (source, pull) = opened::to_read(&flags.listed.place, invocation)?;
    let names = until_interrupted(async {
        let (repository, digest) = match &source {
            Source::Registry { prefix: None, registry } => {
                return Err(Failure::usage(format!("{registry} is a registry; name a repository, like {registry}/app")));
            }
            Source::Registry { prefix: Some(repository), .. } => (repository.clone(), None),
            Source::Layout { name: None, .. } => (Layout::repository()?, None),
            Source::Artifact { .. } | Source::Layout { .. } => {
                let (repository, version) = reference::named(&source, pull.as_ref()).await?;
                let digest = pull.resolve(&repository, &version).await?.digest;
                (repository, Some(digest))
            }
        };
        let mut tags = match holding::tags(pull.as_ref(), &repository).await {
            Ok(tags) => tags,
            Err(failure) => return Err(reference::no_repository(&source, pull.as_ref(), failure).await),
        };
        tags.retain(|tag| is_after(tag.as_str(), flags.listed.last.as_deref()) && !(flags.exclude_digest_tags && tag.is_bookkeeping()));
        match digest {
            Some(digest) => holding::holding(pull.as_ref(), &repository, tags, &digest).await,
            None => Ok(tags),
        }
    })?;
    let found = TagNames { tags: names.iter().map(ToString::to_string).collect() };
    output::show(flags.listed.query.format, &found, |found| lines(&found.tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_matched_by_whole_components() {
        let prefix = Repository::parse("team/app").unwrap();
        let found = |name: &str| is_below(name, Some(&prefix));
        assert!(found("team/app") && found("team/app/web"));
        assert!(!found("team/application") && !found("team") && !found("BAD"));
    }
}
