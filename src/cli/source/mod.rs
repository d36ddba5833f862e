//! Opens a SOURCE or REF: from its text to the modules below the file system.
//!
//! - `inputs`: local files that a command packs
//! - `mounted`: paths inside a mount as references
//! - `pushing`: shared by the commands that build artifacts
//! - `reference`: parses SOURCE and REF, finds the artifact
//! - `root`: the root of a mount of a source
//! - `wiring`: builds registry, cache, content and artifacts

pub mod inputs;
pub mod mounted;
pub mod pushing;
pub mod reference;
pub mod root;
pub mod wiring;
