//! The flags that all actions of `ocifs index` take.

use clap::Args;

use crate::cli::settings::command_flags::ReadPlatform;
use crate::cli::settings::flags::{Output, Reaching};

/// Flags of all actions.
#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// The platform.
    #[command(flatten)]
    pub platform: ReadPlatform,

    /// Output.
    #[command(flatten)]
    pub output: Output,

    /// How the registry is reached.
    #[command(flatten)]
    pub reaching: Reaching,
}
