//! Settings: flags, environment variables, the configuration file and mount options become plain structs.
//!
//! - `flags`: groups of flags that several commands share; each option is declared here once
//! - `mount`: the flags of `ocifs mount`
//! - `file`: the configuration file, whose values become defaults of the flags
//! - `mount_options`: `-o` lists and the arguments of mount(8), rewritten as flags
//! - `spellings`: commands as other tools spell them
//! - `shortcuts`: names for repositories, written out before anything is parsed
//! - `oci_sync`: shortcuts and logins of oci-sync
//! - `environment`: home and XDG directories, and what follows from them
//! - `passphrases`: where passphrases come from, and reading them
//! - `login`: a credential for one command
//! - `custom`: headers and addresses that the user adds
//! - `sides`: flags of one side of a command with two registries
//! - `invocation`: all of it for one call of the program

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
