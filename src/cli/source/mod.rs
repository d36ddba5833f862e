//! Opens a SOURCE or REF: from its text to the modules below the file system.
//!
//! - `access`: credentials, certificates and time limits of a registry
//! - `inputs`: local files that a command packs
//! - `mirrors`: the files of containerd and podman that redirect a registry
//! - `mounted`: paths inside a mount as references
//! - `opened`: the artifact or repository that a command names, opened
//! - `pushing`: shared by the commands that build artifacts
//! - `reference`: parses SOURCE and REF, finds the artifact
//! - `resolved`: an artifact that was looked up, with what reads it
//! - `root`: the root of a mount of a source
//! - `wiring`: builds registry, cache, content and artifacts

pub mod access;
pub mod inputs;
pub mod mirrors;
pub mod mounted;
pub mod opened;
pub mod pushing;
pub mod reference;
pub mod resolved;
pub mod root;
pub mod wiring;
