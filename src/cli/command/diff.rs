//! `ocifs diff`: what is staged, path by path.

use clap::ArgMatches;

use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::{Diff, Format};
use crate::cli::staged::peer::Asking;
use crate::cli::terminal::escape;
use crate::cli::terminal::output;
use crate::cli::terminal::units;
use crate::control::Difference;

/// Runs the command.
///
/// # Errors
/// The daemon does not answer, or what is upstream cannot be read.
pub fn run(flags: Diff, matches: &ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    let asking = Asking::new(flags.without, matches, file, environment)?;
    let target = asking.finder().find(flags.target.as_deref())?;
    let rows = asking.ask(target, async |peer| peer.differences().await)?;
    match flags.format {
        Format::Json => output::json(&rows),
        Format::Text => text(&rows).iter().try_for_each(|line| output::line(line)),
    }
}

/// A line a path, below the reference of its tag.
fn text(rows: &[Difference]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut reference: Option<&str> = None;
    for row in rows {
        if reference != Some(&row.reference) {
            reference = Some(&row.reference);
            lines.push(escape::terminal(&row.reference).into_owned());
        }
        let letter = match row.state.as_str() {
            "added" => 'A',
            "removed" => 'D',
            _ => 'M',
        };
        let slash = if row.kind == "directory" { "/" } else { "" };
        lines.push(format!("  {letter}  {:>10}  {}{slash}", size(row), escape::terminal(&row.path)));
    }
    lines
}

fn size(row: &Difference) -> String {
    if row.kind != "file" {
        return String::new();
    }
    match (row.before, row.after) {
        (Some(before), Some(after)) if after >= before => format!("+{}", units::show_size(after - before)),
        (Some(before), Some(after)) => format!("-{}", units::show_size(before - after)),
        (None, Some(after)) => format!("+{}", units::show_size(after)),
        (Some(before), None) => format!("-{}", units::show_size(before)),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, state: &str, kind: &str, before: Option<u64>, after: Option<u64>) -> Difference {
        Difference {
            reference: "reg.io/a:v1".into(),
            path: path.into(),
            state: state.into(),
            kind: kind.into(),
            before,
            after,
            path_base64: None,
        }
    }

    #[test]
    fn paths_stand_below_their_tag_with_what_they_cost() {
        let rows = [
            row("new\u{1b}", "added", "file", None, Some(2048)),
            row("a/b", "changed", "file", Some(10), Some(4)),
            row("old", "removed", "directory", None, None),
        ];
        let lines = text(&rows);
        assert_eq!(lines, ["reg.io/a:v1", "  A    +2.0 KiB  new\\u{1b}", "  M        -6 B  a/b", "  D              old/"]);
    }
}
