//! Settings: flags, environment variables, the configuration file and mount options become plain structs.
//!
//! - `flags`: groups of shared flags; each option is declared here once
//! - `command_flags`: those that no file sets: output, concurrency, platform
//! - `choices`: the values of flags that choose among a few names
//! - `mount`: the flags of `ocifs mount`
//! - `file`: the configuration file, whose values become defaults of the flags
//! - `mount_options`: `-o` lists and the arguments of mount(8), rewritten as flags
//! - `spellings`: other tools' names for commands
//! - `shortcuts`: names for repositories, expanded before parsing
//! - `oci_sync`: oci-sync's shortcuts and logins
//! - `environment`: home and XDG directories, and the defaults derived from them
//! - `passphrases`: sources of passphrases, and reading them
//! - `login`: the credential of one command
//! - `custom`: extra headers and address overrides
//! - `sides`: flags for one side of a command with two registries
//! - `invocation`: all of it for one invocation of the program

pub mod choices;
pub mod command_flags;
pub mod custom;
pub mod environment;
pub mod file;
pub mod flags;
pub mod invocation;
pub mod login;
pub mod mount;
pub mod mount_options;
pub mod oci_sync;
pub mod passphrases;
pub mod shortcuts;
pub mod sides;
pub mod spellings;
