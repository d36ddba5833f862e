//! `ocifs logout`: removes the stored credential of a registry.

use clap::Args;

use super::login::registry;
use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::wiring;
use crate::cli::terminal::output;

/// Remove the stored credential of a registry
#[derive(Args, Clone, Debug)]
pub struct Logout {
    /// The registry, like ghcr.io or localhost:5000
    #[arg(value_name = "REGISTRY")]
    registry: String,

    /// Which credential file.
    #[command(flatten)]
    connection: RegistryFlags,
}

impl Logout {
    /// Runs the command.
    ///
    /// # Errors
    /// The file cannot be written, or its credential helper fails.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let registry = registry(&self.registry)?;
        let flags = invocation.registry(Some(&registry))?;
        let store = wiring::credential_store(&flags, &invocation.environment)?;
        match until_interrupted(async { Ok(store.remove(&registry).await?) })? {
            true => output::line(&format!("logged out of {registry}")),
            false => output::line(&format!("not logged in to {registry}")),
        }
    }
}
