//! What a user should know of a registry or prefix when it is mounted: that it lists nothing, or holds nothing.

use crate::cli::source::reference;
use crate::cli::source::wiring::Parts;
use crate::oci::{Repository, Source, Tag};

/// Remarks on a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Why `ls` does not show all repositories.
    pub unlisted: Option<String>,
    /// It holds neither tags nor repositories; what else may be meant.
    pub empty: Option<String>,
}

/// Looks at what a source holds. Trouble is not reported here: `ls` shows it.
pub async fn of(source: &Source, Parts { artifacts, pull, .. }: &Parts) -> Contents {
    let Source::Registry { registry, prefix } = source else { return Contents::default() };
    if let Some(prefix) = prefix
        && artifacts.tags(prefix).await.is_ok_and(|list| !list.names.is_empty())
    {
        return Contents::default();
    }
    let Ok(listing) = artifacts.repositories().await else { return Contents::default() };
    let has_repositories = listing.below(prefix.as_ref()).next().is_some();
    let unlisted = (!listing.complete).then(|| {
        format!(
            "{registry} does not list its repositories: `ls` shows those used before and those named with --repo, any other opens by name"
        )
    });
    let empty = match (prefix, has_repositories) {
        (Some(prefix), false) => Some(nothing(registry.as_str(), prefix, reference::as_tag(prefix, pull.as_ref()).await, listing.complete)),
        (None, false) if listing.complete => Some(format!("{registry} holds no repositories yet")),
        _ => None,
    };
    Contents { unlisted, empty }
}

fn nothing(registry: &str, prefix: &Repository, meant: Option<(Repository, Tag)>, complete: bool) -> String {
    match (meant, complete) {
        (Some((repository, tag)), _) => format!("{registry}/{prefix} holds nothing; the artifact is called {registry}/{repository}:{tag}"),
        (None, true) => format!("{registry}/{prefix} holds no tags and no repositories yet"),
        (None, false) => format!("{registry}/{prefix} has no tags"),
    }
}
