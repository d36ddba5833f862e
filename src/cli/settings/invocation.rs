//! One invocation of the program: its command line, the configuration file and the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};

use super::environment::{self, Environment};
use super::file::File;
use super::flags::RegistryFlags;
use super::passphrases::{self, Origin};
use super::sides::{self, Side};
use crate::cli::exit::Failure;
use crate::oci::Registry;
use crate::sys::inherited::Inherited;

/// The context of a command besides its own flags.
pub struct Invocation {
    /// The clap definition of the whole command line, with the file's global values as defaults.
    pub command: Command,
    /// The arguments as typed, with mount options rewritten as flags.
    pub arguments: Vec<OsString>,
    /// The parsed flags.
    pub matches: ArgMatches,
    /// The configuration file.
    pub file: File,
    /// The same definition without the file's values, and the file if the user named one: what it takes to read the file again.
    pub source: (Command, Option<PathBuf>),
    /// The environment.
    pub environment: Environment,
    /// Number of `-v` flags.
    pub verbose: u8,
    /// Descriptors inherited at startup.
    pub inherited: Inherited,
}

impl Invocation {
    /// How a registry is reached: flags first, then its section of the file, then the file's global values.
    ///
    /// # Errors
    /// Settings conflict.
    pub fn registry(&self, registry: Option<&Registry>) -> Result<RegistryFlags, Failure> {
        self.registry_by(&self.arguments, registry)
    }

    /// The same for one side of a command that reaches two registries: the side's flags override the common ones.
    ///
    /// # Errors
    /// As [`Invocation::registry`].
    pub fn registry_of_side(&self, side: Side, registry: Option<&Registry>) -> Result<RegistryFlags, Failure> {
        let given = sides::given(side, innermost(&self.matches)).into_iter().map(OsString::from);
        self.registry_by(&self.arguments.iter().cloned().chain(given).collect::<Vec<_>>(), registry)
    }

    /// Checks that a credential or header without a side is not sent to two registries.
    ///
    /// # Errors
    /// The sides are different registries and such a flag is given.
    pub fn check_one_login(&self, from: Option<&Registry>, to: Option<&Registry>) -> Result<(), Failure> {
        let (Some(from), Some(to)) = (from, to) else { return Ok(()) };
        let shared = ["username", "password_stdin", "identity_token_stdin", "headers"].into_iter().find(|id| self.is_given(id));
        match shared.filter(|_| from != to) {
            None => Ok(()),
            Some(id) => {
                let flag = if id == "headers" { "header".to_owned() } else { id.replace('_', "-") };
                Err(Failure::usage(format!("--{flag} would go to both {from} and {to}; use --from-{flag} or --to-{flag}")))
            }
        }
    }

    /// The same invocation with the configuration file as it is now.
    ///
    /// # Errors
    /// The file has a mistake.
    pub fn read_again(&self) -> Result<Self, Failure> {
        let (command, named) = self.source.clone();
        let file = File::load(named.as_deref(), &self.environment, &command)?;
        let command = file.as_defaults(command);
        let matches = command.clone().try_get_matches_from(&self.arguments).map_err(|error| Failure::usage(error.to_string()))?;
        let (arguments, environment, inherited) = (self.arguments.clone(), self.environment.clone(), Inherited::default());
        Ok(Self { command, arguments, matches, file, source: self.source.clone(), environment, verbose: self.verbose, inherited })
    }

    fn registry_by(&self, arguments: &[OsString], registry: Option<&Registry>) -> Result<RegistryFlags, Failure> {
        let command = self.command.clone();
        let command = registry.map_or(command.clone(), |registry| self.file.as_defaults_for(registry, command));
        let flags = command.try_get_matches_from(arguments).and_then(|matches| RegistryFlags::from_arg_matches(innermost(&matches)));
        consistent(flags.map_err(|error| Failure::usage(error.to_string()))?)
    }

    /// The same for a command without such flags.
    ///
    /// # Errors
    /// As [`Invocation::registry`].
    pub fn registry_of_file(&self, registry: Option<&Registry>) -> Result<RegistryFlags, Failure> {
        consistent(self.file.group(registry)?)
    }

    /// Sources of passphrases: the command line, the environment, the configuration file. Hides passphrases typed on the command line.
    pub fn origins(&self, flags: &passphrases::Flags) -> Vec<Origin> {
        passphrases::hide_secrets(flags);
        passphrases::protect_memory();
        let mut origins = self.typed_origins(flags);
        let variable = environment::variable("OCIFS_PASSPHRASE").and_then(|secret| secret.into_string().ok());
        origins.extend(variable.map(|secret| Origin::Literal(secret.into())));
        origins.extend(self.file.passphrases());
        origins
    }

    /// Sources of passphrases on the command line.
    pub fn typed_origins(&self, flags: &passphrases::Flags) -> Vec<Origin> {
        passphrases::in_order(flags, innermost(&self.matches))
    }

    /// Whether the user set a flag, on the command line or in the environment.
    pub fn is_given(&self, id: &str) -> bool {
        innermost(&self.matches).value_source(id).is_some_and(|source| source != ValueSource::DefaultValue)
    }
}

/// The matches of the innermost subcommand, which hold its flags.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

fn consistent(mut flags: RegistryFlags) -> Result<RegistryFlags, Failure> {
    let connection = &flags.connection;
    if connection.cert_file.is_some() != connection.key_file.is_some() {
        return Err(Failure::usage("a client certificate needs both --cert-file and --key-file"));
    }
    if connection.plain_http == Some(true) && connection.insecure {
        return Err(Failure::usage("--plain-http and --insecure conflict: without TLS there is no certificate to ignore"));
    }
    flags.login.read()?;
    Ok(flags)
}
