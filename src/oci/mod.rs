//! The vocabulary of the OCI specifications: digests, references, descriptors, manifests, platforms, media types.
//!
//! Parses and validates these values; a value of one of these types is always well-formed. Plain data only: nothing here reads a file, uses a
//! network or interprets an artifact.

mod descriptor;
mod digest;
pub mod document;
mod invalid_manifest;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod source;
pub mod time;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use invalid_manifest::InvalidManifest;
pub use manifest::{ImageManifest, Index, Manifest, ManifestBody};
pub use platform::Platform;
pub use reference::{InvalidReference, Registry, Repository, Tag, Version};
pub use source::{LayoutForm, LayoutName, LayoutPlace, Source};
