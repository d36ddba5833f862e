//! Artifacts: dialects, which map a manifest to a tree; the memory-mapped tree; registry answers cached for offline use.
//!
//! # Files
//!
//! - `artifacts` is the entry point: `registry_cache` answers for tags and manifests, `build` makes a `loaded` artifact, `kept` keeps it,
//!   `ahead` prefetches across its files for the readers in `tracks`, `access_order` in the order of earlier readers
//! - `fill` fetches parts of one into the cache before they are read, `cached` counts what is there; `referred_index` finds indexes that only referrers name, `table` tables of contents
//! - `outline` chooses the platform, `dialect` maps the manifest to parts, `compose` and `merge` make the `tree` of them
//! - `describe` explains an artifact without its layers; `options` are those of a mount; `error` maps errors of blobs
//! - For publishing: `published`, `layers`, `identity`, `recognise`, `secrets`, `attached_index`

mod access_order;
mod ahead;
mod artifacts;
pub mod attached_index;
mod build;
mod cached;
mod compose;
mod describe;
mod dialect;
mod error;
mod fill;
mod identity;
mod kept;
mod layers;
mod loaded;
mod merge;
mod options;
mod outline;
mod published;
mod recognise;
mod referred_index;
mod registry_cache;
mod secrets;
mod table;
mod tracks;
mod tree;

pub use access_order::ACCESS_ORDER_TYPE;
pub use artifacts::Artifacts;
pub use cached::CachedBytes;
pub use describe::Description;
pub use dialect::Dialect;
pub use fill::Parts;
pub use identity::{Identity, IdentityDefaults, IdentityEntry, TreeIdentity, is_own_name};
pub use layers::ArtifactLayer;
pub use loaded::Artifact;
pub use options::{Options, ViewMode};
pub use registry_cache::Listing;
pub use secrets::Secrets;
pub use tree::{Child, Content, Kind, Node, NodeId, Tree, UNDATED};

#[cfg(test)]
mod listing;
#[cfg(test)]
mod tests;
