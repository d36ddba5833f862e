//! Settings: flags, environment variables, the configuration file and mount options become plain structs.

pub mod environment;
pub mod file;
pub mod flags;
pub mod mount_options;
pub mod passphrases;
