//! `ocifs recent`: the latest commands that moved artifacts.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::history::{self, Done};
use crate::cli::settings::flags::Format;
use crate::cli::settings::invocation::Invocation;
use crate::cli::terminal::{escape, output, units};

/// Show this user's last pushes, pulls, copies, backups and deletions
#[derive(Args, Clone, Debug)]
pub struct Recent {
    /// Show at most this many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Clear the history
    #[arg(long)]
    clear: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

impl Recent {
    /// Runs the command.
    ///
    /// # Errors
    /// The history cannot be read or removed.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        if self.clear {
            return history::clear(&invocation.environment);
        }
        let mut list = history::all(&invocation.environment)?;
        list.truncate(self.limit);
        output::show(self.format, list.as_slice(), text)
    }
}

fn text(list: &[Done]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let age = |done: &Done| {
        let then = DateTime::parse_from_rfc3339(&done.timestamp).ok()?.timestamp();
        Some(units::show_duration(now.saturating_sub(u64::try_from(then).ok()?)))
    };
    let cells = list.iter().map(|done| {
        let place = done.local_path.as_deref().unwrap_or_default();
        vec![
            age(done).unwrap_or_default(),
            escape::terminal(&done.command).into_owned(),
            escape::terminal(&done.remote_ref).into_owned(),
            escape::terminal(place).into_owned(),
        ]
    });
    match list.is_empty() {
        true => "nothing yet".to_owned(),
        false => output::table(&["ago", "command", "artifact", "place"], cells.collect()),
    }
}
