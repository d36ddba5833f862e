//! `ocifs discard`: takes staged edits back, after a person has seen which.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::ArgMatches;

use super::config::File;
use super::environment::Environment;
use super::exit::Failure;
use super::flags::Discard;
use super::interrupt::{blocking, until_interrupted};
use super::left::Left;
use super::subjects::{self, Wanted};
use super::target::{self, AtMount, Finder, Target};
use super::{escape, output, passphrases, staged, sync};
use crate::control::Request;
use crate::fs::{Selection, StagedTag};
use crate::oci::Source;

/// Runs the command.
///
/// # Errors
/// Nobody could be asked, the answer was no, or somebody holds a tag.
pub fn run(mut flags: Discard, matches: &ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    let origins = passphrases::origins(&flags.without.keys, matches, file, environment)?;
    file.complete_storage(&mut flags.without.storage, environment)?;
    let state_directory = flags.without.storage.state_dir.clone();
    let finder = Finder { state_directory: state_directory.as_deref(), environment };
    let references = match finder.find(flags.target.as_deref())? {
        Target::Mount(target) => at_mount(*target, flags.yes)?,
        Target::Left(wanted) => match Left::find(state_directory.as_deref(), &wanted)? {
            Some(left) if !left.references().is_empty() => {
                confirm(&left.references(), flags.target.as_deref(), flags.yes)?;
                let reach = sync::reach(&flags.without, passphrases::read_all(&origins)?, file, environment);
                until_interrupted(left.discard(&reach, &wanted))?
            }
            _ => Vec::new(),
        },
    };
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
    let AtMount { mount, client, selection } = target;
    let source = Source::parse(&mount.source.to_string_lossy()).ok();
    let tags: Vec<StagedTag> = target::staged(&client)?.into_iter().filter(|tag| is_selected(&selection, tag, source.as_ref())).collect();
    if tags.is_empty() {
        return Ok(Vec::new());
    }
    let lines: Vec<String> = tags.iter().map(|tag| format!("{} ({})", escape::terminal(&tag.reference), staged::summary(tag))).collect();
    let below = match &selection {
        Selection::Path(path) => Some(path.as_str()),
        _ => None,
    };
    confirm(&lines, below, yes)?;
    let request = Request::Discard { selection };
    until_interrupted(blocking(move || Ok(client.collect(&request, &mut |_| {})?)))
}

fn is_selected(selection: &Selection, tag: &StagedTag, source: Option<&Source>) -> bool {
    let wanted = match (selection, source) {
        (Selection::Path(path), Some(source)) => Wanted::Path(source.clone(), path.clone()),
        (Selection::Reference(reference), _) => Source::parse(reference).map_or(Wanted::Nothing, Wanted::Reference),
        (Selection::All, _) | (Selection::Path(_), None) => Wanted::All,
    };
    subjects::is_wanted(&wanted, &tag.reference)
}

/// Asks on the terminal whether these edits may go.
///
/// # Errors
/// There is no terminal and nobody said `--yes`, or the answer is no.
pub fn confirm(lines: &[String], below: Option<&str>, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let what = staged::count(lines.len());
        return Err(Failure::usage(format!("this would take back the edits of {what}, for good; without a terminal that needs --yes")));
    }
    lines.iter().for_each(|line| super::report(line));
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
