//! Errors of parsing a manifest.

use super::InvalidDigest;

/// Why bytes are not a valid manifest.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidManifest {
    /// Not JSON, or not in the shape of the specification.
    #[error("manifest is not valid: {0}")]
    Json(String),
    /// Has both `layers` and `manifests`, so readers would disagree about it.
    #[error("manifest claims to be both an image and an index")]
    Ambiguous,
    /// Neither an image manifest nor an index.
    #[error("manifest has the unknown media type `{}`", .0.escape_default())]
    UnknownType(String),
    /// A kind of manifest that is recognised but not supported.
    #[error("it is {0}, which is not supported")]
    Unsupported(&'static str),
    /// A descriptor has an invalid digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}
