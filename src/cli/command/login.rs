//! `ocifs login`: a credential, checked by the registry before it is stored where docker and podman look for it.

use std::io::{self, Read};

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::RegistryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases;
use crate::cli::source::wiring;
use crate::cli::terminal::{escape, message, output, prompt};
use crate::oci::Registry;
use crate::registry::{Credential, Credentials, HttpRegistry, Kept, Secret};
use crate::sys::terminal;

/// Longest password or token.
const LIMIT: u64 = 64 << 10;

/// Log in to a registry: the credential is checked, then stored as docker stores it
#[derive(Args, Clone)]
pub struct Login {
    /// The registry, like ghcr.io or localhost:5000
    #[arg(value_name = "REGISTRY")]
    registry: String,

    /// User name
    #[arg(short, long, value_name = "NAME", conflicts_with = "identity_token_stdin")]
    username: Option<String>,

    /// Read the password from standard input
    #[arg(long, conflicts_with = "identity_token_stdin")]
    password_stdin: bool,

    /// Read an identity token from standard input; it takes the place of name and password
    #[arg(long)]
    identity_token_stdin: bool,

    /// Refused: others would see it.
    #[arg(short, long, hide = true, value_name = "SECRET")]
    password: Option<String>,

    /// Reaching it.
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
    /// The registry refuses the credential, or it cannot be stored.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        if self.password.is_some() {
            return Err(Failure::usage("a password among the arguments is visible to others on this machine; use --password-stdin"));
        }
        passphrases::protect_memory();
        let environment = &invocation.environment;
        let registry = registry(&self.registry)?;
        let flags = invocation.registry(Some(&registry))?;
        let store = wiring::credential_store(&flags, environment)?;
        let credential = self.credential()?;
        let config = wiring::http_with(registry.clone(), &flags, environment, Credentials::only(credential.clone()));
        let kept = until_interrupted(async {
            if !HttpRegistry::new(config)?.check_login().await? {
                message::warn(&format!("{registry} asks for no credentials, so these were not checked"));
            }
            Ok(store.put(&registry, &credential).await?)
        })?;
        let place = match kept {
            Kept::File(path) => escape::path(&path),
            Kept::Helper(name) => format!("docker-credential-{}", escape::terminal(&name)),
        };
        output::line(&format!("logged in to {registry}; stored in {place}"))
    }

    fn credential(&self) -> Result<Credential, Failure> {
        if self.identity_token_stdin {
            return Ok(Credential::IdentityToken(from_stdin("identity token")?));
        }
        let wanted = || Failure::usage("without a terminal, give --username and --password-stdin");
        let user = match &self.username {
            Some(user) => user.clone(),
            None if self.password_stdin || !prompt::can_ask() => return Err(wanted()),
            None => prompt::ask("Username")?,
        };
        if user.is_empty() || user.contains(':') {
            return Err(Failure::usage("a user name is not empty and has no colon"));
        }
        let password = match self.password_stdin {
            true => from_stdin("password")?,
            false if !prompt::can_ask() => return Err(wanted()),
            false => {
                let typed = terminal::ask_secret("Password: ").map(Zeroizing::new);
                secret(&typed.map_err(|error| Failure::other(format!("cannot ask for the password: {error}")))?, "password")?
            }
        };
        Ok(Credential::Password { user, password })
    }
}

/// The registry that a login is for.
///
/// # Errors
/// Anything else than a registry alone.
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

/// Standard input without the end of its line.
fn from_stdin(what: &str) -> Result<Secret, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 1));
    let read = io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::other(format!("cannot read the {what} from standard input: {error}")))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    secret(line.strip_suffix(b"\r").unwrap_or(line), what)
}

fn secret(bytes: &[u8], what: &str) -> Result<Secret, Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.len() as u64 <= LIMIT => Ok(Secret::new(text)),
        _ => Err(Failure::usage(format!("the {what} is empty, too long or no text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_for_a_registry_alone() {
        assert_eq!(registry("GHCR.io/").unwrap().as_str(), "ghcr.io");
        for text in ["https://ghcr.io", "ghcr.io/org"] {
            assert!(registry(text).unwrap_err().message.ends_with("write it like ghcr.io"), "{text}");
        }
    }
}
