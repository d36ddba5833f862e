//! Publishes an edited tag, or local files, as an artifact under a tag.
//!
//! `flow.rs` shows the order of a publish, and `local.rs` that of a push of local files: `source` is read, `plan` decides the layers, `pack` makes
//! them, `manifest` and `kinds` describe them, `push` sends everything and moves the tag last. `layer_indexes` adds to artifacts of others.
//!
//! The order is guaranteed: blobs, then the manifest by digest, then the tag is compared with its expected digest, moved, and confirmed; only then
//! are staged bytes released. A tag that moved is never overwritten unless requested, and a sibling never deleted. Independent of mounts: `fs`
//! and the command line pass in edited tags.

mod disk;
mod flow;
mod kinds;
mod layer_indexes;
mod local;
mod manifest;
mod options;
mod outcomes;
mod pack;
mod plan;
mod progress;
mod publisher;
mod push;
mod report;
mod secrecy;
mod source;
#[cfg(test)]
mod tests;

pub use crate::view::ArtifactKind;
pub use kinds::NewKind;
pub use layer_indexes::{OwnIndex, refer_access_order, refer_to};
pub use local::{Pushed, Pushing};
pub use manifest::metadata::{Config, ImageSpec, Metadata};
pub use options::{Options, Sizes};
pub use pack::packs::Packs;
pub use plan::identity::LayerIdentities;
pub use plan::ignore::{IGNORE_FILE, IGNORE_LIMIT, LeftOut};
pub use publisher::Publisher;
pub use report::{Event, Listener, Next, Outcome, Report};
pub use source::directory::Input;
