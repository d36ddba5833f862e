//! The flags that all actions of `ocifs index` take.

use clap::Args;

use crate::cli::settings::flags::{Output, Reaching};
use crate::oci::Platform;

/// Flags of all actions.
#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// Platform of a multi-platform image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,

    /// Output.
    #[command(flatten)]
    pub output: Output,

    /// How the registry is reached.
    #[command(flatten)]
    pub reaching: Reaching,
}
