//! `ocifs discard`: takes staged edits back, after a person has seen which.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::ArgMatches;

use crate::cli::exit::Failure;
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::Discard;
use crate::cli::staged::peer::{Asking, Peer};
use crate::cli::staged::summary;
use crate::cli::staged::target::AtMount;
use crate::cli::terminal::escape;
use crate::cli::terminal::output;

/// Runs the command.
///
/// # Errors
/// Nobody could be asked, the answer was no, or somebody holds a tag.
pub fn run(flags: Discard, matches: &ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    let asking = Asking::new(flags.without, matches, file, environment)?;
    let target = asking.finder().find(flags.target.as_deref())?;
    let references = asking.ask(target, async |peer| discard(peer, flags.yes).await)?;
    if references.is_empty() {
        return output::line("nothing is staged");
    }
    references.iter().try_for_each(|reference| output::line(&format!("discarded the edits of {}", escape::terminal(reference))))
}

/// Takes edits of a mount back; answers the references of the tags concerned.
///
/// # Errors
/// As [`run`].
pub fn at_mount(target: AtMount, yes: bool) -> Result<Vec<String>, Failure> {
    until_interrupted(discard(&Peer::Daemon(Box::new(target)), yes))
}

async fn discard(peer: &Peer, yes: bool) -> Result<Vec<String>, Failure> {
    if !yes {
        let tags = peer.staged().await?;
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        let lines: Vec<String> =
            tags.iter().map(|tag| format!("{} ({})", escape::terminal(&tag.reference), summary::summary(tag))).collect();
        let below = peer.path().map(str::to_owned);
        blocking(move || confirm(&lines, below.as_deref())).await?;
    }
    peer.discard().await
}

/// Asks on the terminal whether these edits may go.
///
/// # Errors
/// There is no terminal and nobody said `--yes`, or the answer is no.
fn confirm(lines: &[String], below: Option<&str>) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let what = summary::count(lines.len());
        return Err(Failure::usage(format!("this would take back the edits of {what}, for good; without a terminal that needs --yes")));
    }
    lines.iter().for_each(|line| crate::cli::terminal::message::report(line));
    let below = below.filter(|below| !below.is_empty()).map(|below| format!(" at {}", escape::terminal(below))).unwrap_or_default();
    let mut terminal = io::stderr().lock();
    let asked = write!(terminal, "Take these edits{below} back for good? [y/N] ").and_then(|()| terminal.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| io::stdin().lock().read_line(&mut answer).map(drop))
        .map_err(|error| Failure::other(format!("cannot ask: {error}")))?;
    if is_yes(&answer) { Ok(()) } else { Err(Failure::other("nothing was discarded")) }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert!(is_yes("y\n") && is_yes(" YES \n"));
        assert!(!is_yes("") && !is_yes("\n") && !is_yes("yeah\n") && !is_yes("n\n"));
    }
}
