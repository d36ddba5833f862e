//! The serving process of a mount, from plan to shutdown.
//!
//! - `plan`: all settings of one mount, from flags, environment, file and prompts
//! - `mount_point`: checks a directory to mount on
//! - `root`: contacts the source, configures the file system
//! - `contents`: notes on an unlisted or empty source
//! - `serve`: brings the mount up, serves it, and undoes a failed start
//! - `info`: the status of a mount, as commands and `.oci` show it
//! - `attached`: this process's mount in the mount table
//! - `handler`: handles requests on the control socket
//! - `shutdown`: signals, and publishing staged edits after the mount is gone
//! - `log`: the log file, or level prefixes for journald

pub mod attached;
pub mod contents;
pub mod handler;
pub mod info;
pub mod log;
pub mod mount_point;
pub mod plan;
pub mod root;
pub mod serve;
pub mod service_manager;
pub mod shutdown;
