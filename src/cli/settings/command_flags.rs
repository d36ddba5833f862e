//! Groups of flags that several commands take but no configuration file sets: output, concurrency, platform.

use std::num::NonZeroUsize;

use clap::Args;

use super::choices::Format;
use super::flags::{ContentFlags, RegistryFlags};
use crate::oci::Platform;

/// Concurrency of a command. Commands that do not upload change the help text with `mut_arg`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Concurrency {
    /// Blobs uploaded at a time [default: 4]
    #[arg(long, value_name = "N", env = "OCIFS_CONCURRENCY", hide_env = true)]
    concurrency: Option<NonZeroUsize>,
}

impl Concurrency {
    /// The default.
    pub const DEFAULT: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    /// The number.
    pub fn get(self) -> NonZeroUsize {
        self.concurrency.unwrap_or(Self::DEFAULT)
    }
}

/// Output of a command: its result, as text unless `--quiet` or as data, and progress.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// How a command transfers blobs and shows its result.
#[derive(Args, Clone, Copy, Debug)]
pub struct Transferring {
    /// Concurrency.
    #[command(flatten)]
    pub concurrency: Concurrency,

    /// Output.
    #[command(flatten)]
    pub output: Output,
}

/// Flags of a command that asks a registry and prints the answer.
#[derive(Args, Clone, Debug)]
pub struct QueryFlags {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryFlags,
}

/// The platform that a command reads.
#[derive(Args, Clone, Debug)]
pub struct ReadPlatform {
    /// Platform of a multi-platform image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,
}

impl ReadPlatform {
    /// The content flags of a command that has no others.
    pub fn content(&self) -> ContentFlags {
        ContentFlags { platform: self.platform.clone(), ..ContentFlags::default() }
    }
}
