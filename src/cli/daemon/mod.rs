//! The serving process of a mount, from its plan to its end.
//!
//! - `plan`: everything that flags, environment, file and prompts say about one mount
//! - `mount_point`: whether a directory can be mounted on
//! - `root`: contacts the source, configures the file system
//! - `contents`: remarks on what the source holds
//! - `serve`: brings the mount up, serves it, and undoes what fails
//! - `info`: the status of a mount, as commands and `.oci` show it
//! - `attached`: the mount of this process in the mount table
//! - `handler`: handles the requests of the control socket
//! - `shutdown`: signals, and publishing what is staged after the mount is gone
//! - `log`: the log file, or levels for journald

pub mod attached;
pub mod contents;
pub mod handler;
pub mod info;
pub mod log;
pub mod mount_point;
pub mod plan;
pub mod root;
pub mod serve;
pub mod shutdown;
