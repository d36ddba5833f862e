//! Artifacts: dialects, which map a manifest to a tree; the memory-mapped tree; registry answers cached for offline use.

mod ahead;
mod artifacts;
pub mod attached_index;
mod build;
mod compose;
mod describe;
mod dialect;
mod error;
mod identity;
mod kept;
mod layers;
mod loaded;
mod merge;
mod options;
mod outline;
mod published;
mod recognise;
mod registry_cache;
mod secrets;
mod tree;

pub use artifacts::Artifacts;
pub use describe::Description;
pub use dialect::Dialect;
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
