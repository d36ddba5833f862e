//! `ocifs login`: checks a credential with the registry, then stores it where docker and podman look for it.

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::wiring;
use crate::cli::terminal::{escape, message, output};
use crate::oci::Registry;
use crate::registry::{Credentials, HttpRegistry, Kept};

/// Log in to a registry: check the credential, then store it as docker does
#[derive(Args, Clone)]
pub struct Login {
    /// The registry, like ghcr.io or localhost:5000
    #[arg(value_name = "REGISTRY")]
    registry: String,

    /// Rejected: other users could see it.
    #[arg(short, long, hide = true, value_name = "SECRET")]
    password: Option<String>,

    /// How the registry is reached.
    #[command(flatten)]
    connection: RegistryFlags,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Login").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Login {
    /// Runs the command.
    ///
    /// # Errors
    /// The registry rejects the credential, or it cannot be stored.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        if self.password.is_some() {
            return Err(Failure::usage("a password on the command line is visible to other users; use --password-stdin"));
        }
        let environment = &invocation.environment;
        let registry = registry(&self.registry)?;
        let flags = invocation.registry(Some(&registry))?;
        let store = wiring::credential_store(&flags, environment)?;
        let credential = flags.login.obtain()?;
        let config = wiring::http_with(registry.clone(), &flags, environment, Credentials::only(credential.clone()));
        let kept = until_interrupted(async {
            if !HttpRegistry::new(config)?.check_login().await? {
                message::warn(&format!("{registry} does not ask for credentials; these were stored unchecked"));
            }
            Ok(store.put(&registry, &credential).await?)
        })?;
        let place = match kept {
            Kept::File(path) => escape::path(&path),
            Kept::Helper(name) => format!("docker-credential-{}", escape::terminal(&name)),
        };
        output::line(&format!("logged in to {registry}; stored in {place}"))
    }
}

/// Parses the registry to log in to.
///
/// # Errors
/// The text is not just a registry.
pub fn registry(text: &str) -> Result<Registry, Failure> {
    let bare = text.trim_end_matches('/');
    Registry::parse(bare).map_err(|_| {
        let host = bare.split_once("://").map_or(bare, |(_, rest)| rest).split('/').next().unwrap_or_default();
        let shown = escape::terminal(text);
        Failure::usage(format!(
            "`{shown}` is not a registry; write it like {}",
            escape::terminal(if host.is_empty() { "ghcr.io" } else { host })
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_for_a_whole_registry() {
        assert_eq!(registry("GHCR.io/").unwrap().as_str(), "ghcr.io");
        for text in ["https://ghcr.io", "ghcr.io/org"] {
            assert!(registry(text).unwrap_err().message.ends_with("write it like ghcr.io"), "{text}");
        }
    }
}
