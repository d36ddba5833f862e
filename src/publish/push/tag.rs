//! The tag upstream: read, compared, moved, confirmed, deleted.
//!
//! Registries have no compare-and-swap. The tag is compared right before it is put and read right after; in between, another writer can lose,
//! and the second writer notices.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, Repository, Tag, Version};
use crate::registry::{Push, TagDeletion};

/// How often a lost put of the tag is repeated.
const PUTS: u32 = 3;

/// One tag of a registry.
pub(in crate::publish) struct RemoteTag<'a> {
    pub push: &'a dyn Push,
    pub repository: &'a Repository,
    pub tag: &'a Tag,
    /// The user's options if the tag holds something else.
    pub ways_out: &'static str,
}

/// The state a tag must be in before it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Expected {
    /// Exactly this digest, or nothing.
    Exactly(Option<Digest>),
    /// Anything.
    Anything,
}

impl RemoteTag<'_> {
    /// The tag's current digest; `None` if it does not exist.
    pub async fn now(&self) -> Result<Option<Digest>, Error> {
        match self.push.resolve(self.repository, &Version::Tag(self.tag.clone())).await {
            Ok(resolved) => Ok(Some(resolved.digest)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the tag and confirms it. `begun` is called right before.
    ///
    /// # Errors
    /// Conflict if the tag holds something else before or after.
    pub async fn put(&self, manifest: &Arc<Manifest>, expected: Expected, begun: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let now = self.now().await?;
        if now == Some(manifest.digest) {
            // Already put, by a publish whose answer was lost.
            return begun();
        }
        if let Expected::Exactly(expected) = expected
            && now != expected
        {
            return Err(self.moved(expected, now));
        }
        begun()?;
        let mut again = PUTS;
        loop {
            again -= 1;
            let put = self.push.push_manifest(self.repository, &Version::Tag(self.tag.clone()), manifest).await;
            match (put, self.now().await) {
                (_, Ok(Some(now))) if now == manifest.digest => return Ok(()),
                (Ok(()), Ok(now)) => return Err(self.moved(Some(manifest.digest), now)),
                // It still holds the old digest: the request was lost, and repeating it is as safe as before.
                (Err(error), Ok(after))
                    if after == now && again > 0 && matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut) =>
                {
                    tracing::debug!(%error, "putting the tag again");
                }
                (Err(error), _) => return Err(error),
                (Ok(()), Err(error)) => return Err(error.context("the tag was moved, but the registry did not confirm it: sync again")),
            }
        }
    }

    /// Deletes the tag alone.
    pub async fn delete(&self, digest: &Digest) -> Result<TagDeletion, Error> {
        match self.push.delete_tag(self.repository, self.tag, digest).await {
            Ok(deletion) => Ok(deletion),
            // The answer may have been lost.
            Err(error) => match self.now().await {
                Ok(None) => Ok(TagDeletion::Direct),
                _ => Err(error),
            },
        }
    }

    /// The error for a tag that holds something else.
    pub fn moved(&self, expected: Option<Digest>, now: Option<Digest>) -> Error {
        let show = |digest: Option<Digest>| digest.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
        let message = match (expected, now) {
            (None, Some(now)) => format!("the tag already exists and holds {now}"),
            _ => format!("the tag moved: expected {}, found {}", show(expected), show(now)),
        };
        Error::new(ErrorKind::Conflict, format!("{message}. Nothing was overwritten{}", self.ways_out))
    }
}
