//! Why bytes cannot be read as a manifest.

use super::InvalidDigest;

/// Why bytes are no manifest.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidManifest {
    /// Not JSON, or not the shape of the specification.
    #[error("manifest is not valid: {0}")]
    Json(String),
    /// It has `layers` and `manifests` both, so readers would disagree about it.
    #[error("manifest claims to be an image and an index at once")]
    Ambiguous,
    /// Neither an image manifest nor an index.
    #[error("manifest has the unknown media type `{}`", .0.escape_default())]
    UnknownType(String),
    /// A kind of manifest that is known by name and not read.
    #[error("it is {0}, which is not supported")]
    Unsupported(&'static str),
    /// A descriptor holds a digest that is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}
