//! The credential of one command: the user by flag, the secret from standard input or the terminal, never from the arguments.

use std::collections::BTreeMap;
use std::io::{self, Read};

use clap::Args;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::passphrases;
use crate::cli::exit::Failure;
use crate::cli::terminal::prompt;
use crate::registry::{Credential, Secret};
use crate::sys::terminal;

/// Longest password or token, in bytes.
const LIMIT: u64 = 64 << 10;

/// The identity to use with a registry.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry")]
pub struct LoginFlags {
    /// User name; the password is read with --password-stdin or prompted for [default: the stored login]
    #[arg(short, long, value_name = "NAME", conflicts_with = "identity_token_stdin")]
    pub username: Option<String>,

    /// Read the password from standard input
    #[arg(long, conflicts_with = "identity_token_stdin")]
    pub password_stdin: bool,

    /// Read an identity token from standard input instead
    #[arg(long)]
    pub identity_token_stdin: bool,

    /// The credential from these flags, once read.
    #[arg(skip)]
    pub credential: Option<Credential>,
}

impl LoginFlags {
    /// Reads the secret if any flag is given. Keeps it for later calls, since standard input can be read only once.
    ///
    /// # Errors
    /// The user name or secret is invalid, or there is no terminal to prompt on.
    pub fn read(&mut self) -> Result<(), Failure> {
        if self.username.is_some() || self.password_stdin || self.identity_token_stdin {
            self.credential = Some(self.obtain()?);
        }
        Ok(())
    }

    /// The credential; prompts for everything if no flag is given.
    ///
    /// # Errors
    /// As [`LoginFlags::read`].
    pub fn obtain(&self) -> Result<Credential, Failure> {
        static KNOWN: Mutex<BTreeMap<(Option<String>, bool), Credential>> = Mutex::new(BTreeMap::new());
        let key = (self.username.clone(), self.identity_token_stdin);
        let mut known = KNOWN.lock();
        if let Some(credential) = known.get(&key) {
            return Ok(credential.clone());
        }
        passphrases::protect_memory();
        let credential = self.ask()?;
        known.insert(key, credential.clone());
        Ok(credential)
    }

    fn ask(&self) -> Result<Credential, Failure> {
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
            return Err(Failure::usage("a user name must not be empty or contain a colon"));
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

/// Reads standard input without its final newline.
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
        _ => Err(Failure::usage(format!("the {what} is empty, too long or not text"))),
    }
}
