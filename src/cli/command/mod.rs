//! The command line. Each command has one file here, its `mod` line and its line in [`commands!`].
//!
//! The file holds a struct of the command's flags, whose documentation is the help text, and `run`, which gets the [`Invocation`]: the
//! configuration file, the environment and how registries are reached. Commands only translate; the work is done in the other folders:
//! `staged` for edits, `mounts` for active mounts, `source` for artifacts, `daemon` for serving, `terminal` for output.

mod attach;
mod backup;
mod blob;
mod cache;
mod completion;
mod cp;
mod diff;
mod discard;
mod discover;
mod doctor;
mod index;
mod inspect;
mod label;
mod list;
mod login;
mod logout;
mod ls;
mod man;
mod manifest;
mod mount;
mod new;
mod pack;
mod pull;
mod push;
mod recent;
mod refresh;
mod repo;
mod resolve;
mod rm;
mod serve;
mod shortcut;
mod status;
mod sync;
mod tag;
mod umount;
mod warm;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::cli::exit::Failure;
use crate::cli::settings::invocation::Invocation;

macro_rules! commands {
    ($($name:ident: $module:ident,)*) => {
        /// The commands.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($name(Box<$module::$name>),)*
        }

        impl Command {
            /// Runs the command.
            ///
            /// # Errors
            /// See the exit codes.
            pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
                match self {
                    $(Self::$name(command) => command.run(invocation),)*
                }
            }
        }
    };
}

// In the order of the help text.
commands! {
    Mount: mount,
    Umount: umount,
    Status: status,
    Sync: sync,
    Diff: diff,
    Discard: discard,
    New: new,
    Refresh: refresh,
    Warm: warm,
    Cache: cache,
    Inspect: inspect,
    Ls: ls,
    List: list,
    Repo: repo,
    Discover: discover,
    Push: push,
    Pull: pull,
    Cp: cp,
    Backup: backup,
    Restore: backup,
    Pack: pack,
    Unpack: pack,
    Tag: tag,
    Resolve: resolve,
    Rm: rm,
    Label: label,
    Attach: attach,
    Index: index,
    Manifest: manifest,
    Blob: blob,
    Login: login,
    Logout: logout,
    Serve: serve,
    Doctor: doctor,
    Shortcut: shortcut,
    Recent: recent,
    Completion: completion,
    Man: man,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  ocifs mount localhost:5000/team ~/oci      every repository below team
  ocifs mount ghcr.io/org/app:v1 ~/app       one artifact
  ocifs mount oci:./layout ~/layout          an OCI layout directory
  cp -r data ~/oci/app/v2 && ocifs sync ~/oci    a new tag
  ocifs umount ~/oci                         publishes what is still staged first

Exit codes: 0 ok, 1 other, 2 usage, 10 not found, 11 authentication, 12 key, 13 conflict,
14 unreachable, 15 mount point or FUSE, 16 changes not pushed, 130 interrupted";

/// Mount any OCI registry as a directory
#[derive(Debug, Parser)]
#[command(name = "ocifs", version, after_help = EXAMPLES, styles = STYLES, max_term_width = 110)]
#[command(infer_long_args = false)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,

    /// Global flags.
    #[command(flatten)]
    pub global: Global,
}

/// Flags common to all commands.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// More log output: -v for steps, -vv for every request
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,

    /// Read this configuration file instead of $XDG_CONFIG_HOME/ocifs/config.yaml
    #[arg(long, global = true, value_name = "FILE", env = "OCIFS_CONFIG", hide_env = true, help_heading = "Global options")]
    pub config: Option<PathBuf>,

    /// Read oci-sync's shortcuts and logins from this file instead of $XDG_CONFIG_HOME/oci-sync/oci-sync.yaml
    #[arg(long, global = true, value_name = "FILE", env = "OCIFS_OCI_SYNC_CONFIG", hide_env = true, help_heading = "Global options")]
    pub oci_sync_config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
