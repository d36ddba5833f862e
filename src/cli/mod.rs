//! The program: flags, configuration, environment, wiring of the modules, commands, exit codes.
//!
//! The only module that reads the environment or the home directory and that writes to a terminal.

mod busy;
mod config;
mod environment;
mod escape;
mod exit;
mod flags;
mod logging;
mod mount_options;
mod mount_point;
mod mounts;
mod output;
mod passphrases;
mod status;
mod umount;
mod units;
