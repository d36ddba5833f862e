//! From SOURCE or REF to the opened modules below the file system.
//!
//! - `inputs`: files of this machine that a command packs
//! - `mounted`: a path inside a mount as a reference
//! - `pushing`: what commands that make artifacts share
//! - `reference`: parses SOURCE and REF, finds the artifact
//! - `root`: the root of a mount of a source
//! - `wiring`: builds registry, cache, content and artifacts

pub mod inputs;
pub mod mounted;
pub mod pushing;
pub mod reference;
pub mod root;
pub mod wiring;
