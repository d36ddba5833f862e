//! Notes for the user at mount time: the registry cannot be listed, or the source is empty.

use crate::cli::source::reference;
use crate::cli::source::wiring::Parts;
use crate::oci::{Repository, Source, Tag};

/// Notes on a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Why `ls` does not list all repositories.
    pub unlisted: Option<String>,
    /// The source has neither tags nor repositories; may suggest what was meant.
    pub empty: Option<String>,
}

/// Examines a source. Errors are not reported here: `ls` shows them.
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
        format!("{registry} does not list its repositories: `ls` shows those used before or named with --repo; others open by name")
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
        (Some((repository, tag)), _) => format!("{registry}/{prefix} is empty; did you mean {registry}/{repository}:{tag}?"),
        (None, true) => format!("{registry}/{prefix} holds no tags and no repositories yet"),
        (None, false) => format!("{registry}/{prefix} has no tags"),
    }
}
