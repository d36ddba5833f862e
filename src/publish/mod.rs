//! From an edited tag, or from files of this machine, to an artifact under a tag.
//!
//! `flow.rs` tells the order of a publish, and `local.rs` that of a push of local files: `source` is read, `plan` decides which layers
//! there will be, `pack` makes them, `manifest` and `kinds` name them, `push` sends everything and moves the tag last.
//!
//! The order is the promise: blobs, then the manifest by digest, then the tag compared with what it was expected to hold, then
//! the tag, then its confirmation; only then are staged bytes given up. A tag that moved is never overwritten unasked, and a sibling
//! never deleted. Knows no mount: `fs` and the command line hand it edited tags.

mod disk;
mod flow;
mod kinds;
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
pub use local::{Pushed, Pushing};
pub use manifest::metadata::{Config, ImageSpec, Metadata};
pub use options::{Options, Sizes};
pub use pack::packs::Packs;
pub use plan::ignore::{IGNORE_FILE, IGNORE_LIMIT, LeftOut};
pub use publisher::Publisher;
pub use report::{Event, Listener, Next, Outcome, Report};
pub use source::directory::Input;
