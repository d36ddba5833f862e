//! `ocifs shortcut`: short names for repositories.

use clap::{Args, CommandFactory, Subcommand};
use serde::Serialize;

use super::Cli;
use crate::cli::exit::Failure;
use crate::cli::settings::flags::Format;
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::shortcuts;
use crate::cli::terminal::{escape, output};

/// Name repositories: after `shortcut add docs ghcr.io/me/docs`, push with `ocifs docs push -l DIR --tag v1`
///
/// `NAME push|pull|delete --tag TAG` and `NAME list` take the flags of push, pull, rm and list. As in oci-sync, `NAME push` makes
/// oci-sync artifacts unless --as-kind says otherwise. Shortcuts in oci-sync.yaml work too. Commands win over shortcuts.
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "alias")]
pub struct Shortcut {
    /// The action.
    #[command(subcommand)]
    action: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Add or change a shortcut
    Add {
        /// The name
        #[arg(value_name = "NAME")]
        name: String,

        /// registry/repository or oci:DIRECTORY
        #[arg(value_name = "REPO", required_unless_present = "repo")]
        repository: Option<String>,

        /// Same as REPOSITORY, in oci-sync's spelling
        #[arg(long, value_name = "REPO", conflicts_with = "repository")]
        repo: Option<String>,
    },
    /// List shortcuts
    #[command(visible_alias = "ls")]
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove a shortcut
    #[command(visible_alias = "remove")]
    Rm {
        /// The name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// One shortcut. Its keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    repository: String,
    file: String,
}

impl Shortcut {
    /// Runs the command.
    ///
    /// # Errors
    /// The name or repository is invalid, or the file cannot be read or written.
    pub fn run(self, Invocation { environment, .. }: Invocation) -> Result<(), Failure> {
        match self.action {
            Action::Add { name, repository, repo } => {
                if Cli::command().find_subcommand(&name).is_some() || name == "help" {
                    return Err(Failure::usage(format!("`{name}` is the name of a command; choose another")));
                }
                shortcuts::add(&name, &repository.or(repo).unwrap_or_default(), &environment)
            }
            Action::Rm { name } => shortcuts::remove(&name, &environment),
            Action::List { format } => {
                let rows: Vec<Row> = shortcuts::all(&environment)?
                    .into_iter()
                    .map(|(name, shortcut)| Row { name, repository: shortcut.repository, file: shortcut.file.display().to_string() })
                    .collect();
                output::show(format, rows.as_slice(), text)
            }
        }
    }
}

fn text(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| [&row.name, &row.repository, &row.file].map(|text| escape::terminal(text).into_owned()).to_vec());
    match rows.is_empty() {
        true => "no shortcuts".to_owned(),
        false => output::table(&["name", "repository", "file"], cells.collect()),
    }
}
