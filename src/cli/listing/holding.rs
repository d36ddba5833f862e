//! Finds the tags that point to a digest. Each tag is resolved, since registries offer no reverse lookup.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::cli::exit::{Code, Failure};
use crate::oci::{Digest, Repository, Tag, Version};
use crate::registry::{Pull, all_names};

/// Tags resolved at once.
const AT_ONCE: usize = 8;

/// The tags of a repository, sorted; names that break the grammar are left out.
///
/// # Errors
/// The list cannot be read.
pub async fn tags(pull: &dyn Pull, repository: &Repository) -> Result<Vec<Tag>, Failure> {
    let names = all_names(pull, Some(repository), || ()).await?.names;
    let mut tags: Vec<Tag> = names.iter().filter_map(|name| Tag::parse(name).ok()).collect();
    tags.sort_unstable();
    Ok(tags)
}

/// The given tags that now point to a digest.
///
/// # Errors
/// One of them cannot be resolved.
pub async fn holding(pull: &dyn Pull, repository: &Repository, tags: Vec<Tag>, digest: &Digest) -> Result<Vec<Tag>, Failure> {
    let resolving = tags.into_iter().map(|tag| async move {
        match pull.resolve(repository, &Version::Tag(tag.clone())).await {
            Ok(resolved) => Ok((resolved.digest == *digest).then_some(tag)),
            // Deleted since it was listed.
            Err(error) if Code::from(error.kind) == Code::NotFound => Ok(None),
            Err(error) => Err(Failure::from(error)),
        }
    });
    stream::iter(resolving).buffered(AT_ONCE).try_filter_map(|found| async move { Ok(found) }).try_collect().await
}
