//! The access order of an artifact: the one that the mounts with this cache remember, or the one that a referrer publishes.

use bytes::Bytes;
use serde::Serialize;

use crate::artifact::Description;
use crate::cli::exit::{Code, Failure};
use crate::cli::source::resolved::Resolved;
use crate::error::{Error, ErrorKind};
use crate::layer::parse_access_order;

/// An access order, in the output. The keys are stable.
#[derive(Debug, Serialize)]
pub(super) struct Order {
    /// Where it was found: `cache`, `referrer` or `file`.
    pub from: &'static str,
    pub files: usize,
    /// Its size in bytes.
    pub size: u64,
}

impl Order {
    /// The summary of an encoded order.
    ///
    /// # Errors
    /// It is malformed.
    pub fn of(from: &'static str, bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self { from, files: parse_access_order(bytes)?.len(), size: bytes.len() as u64 })
    }
}

/// The order that mounts with this cache remember of an artifact.
///
/// # Errors
/// NotFound if there is none; the artifact is encrypted, so that names must not be published.
pub(super) async fn remembered(found: &Resolved, description: &Description, shown: &str) -> Result<Bytes, Failure> {
    if description.is_encrypted() {
        return Err(Failure::other(format!("{shown} is encrypted: an access order would reveal the names of its files")));
    }
    found.parts.artifacts.access_order(&description.shown.digest).await?.ok_or_else(|| {
        let message = format!(
            "no access order of {shown} is in this cache; it is stored when files were opened in a mount, at its end or after a minute"
        );
        Failure::new(Code::NotFound, message)
    })
}

/// The order that a mount would use: the remembered one, else that of a referrer. An unusable one is none, and that of an encrypted artifact is secret.
///
/// # Errors
/// The cache cannot be read; those of the registry.
pub(super) async fn usable(found: &Resolved, description: &Description) -> Result<Option<Order>, Error> {
    if description.is_encrypted() {
        return Ok(None);
    }
    let (artifacts, manifest) = (&found.parts.artifacts, &description.shown.digest);
    if let Some(order) = artifacts.access_order(manifest).await?
        && let Ok(order) = Order::of("cache", &order)
    {
        return Ok(Some(order));
    }
    let published = artifacts.published_access_order(&found.repository, manifest).await;
    if_usable(published)?.map(|order| Order::of("referrer", &order)).transpose()
}

/// The order found; none if no mount would use it.
fn if_usable<T>(found: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match found {
        Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Integrity | ErrorKind::NotFound) => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_order_is_none_and_an_outage_an_error() {
        for kind in [ErrorKind::Unsupported, ErrorKind::Integrity, ErrorKind::NotFound] {
            assert!(if_usable::<()>(Err(Error::new(kind, "unusable"))).unwrap().is_none(), "{kind:?}");
        }
        for kind in [ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::Denied] {
            assert_eq!(if_usable::<()>(Err(Error::new(kind, "away"))).unwrap_err().kind, kind);
        }
    }
}
