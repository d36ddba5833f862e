//! `ocifs diff`: staged changes, path by path.

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::settings::flags::{Format, TagFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::staged::peer::Asking;
use crate::cli::terminal::{escape, output, units};
use crate::control::Difference;

/// Show staged changes, path by path
#[derive(Args, Clone, Debug)]
pub struct Diff {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The tags.
    #[command(flatten)]
    tags: TagFlags,
}

impl Diff {
    /// Runs the command.
    ///
    /// # Errors
    /// The daemon does not answer, or the upstream content cannot be read.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let asking = Asking::new(self.tags.reaching, &invocation)?;
        let target = asking.finder().find(self.tags.target.as_deref())?;
        let rows = asking.ask(target, async |peer| peer.differences().await)?;
        output::show(self.format, &rows, |rows| text(rows).join("\n"))
    }
}

/// One line per path, below the reference of its tag.
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
    fn paths_are_listed_below_their_tag_with_their_change_of_size() {
        let rows = [
            row("new\u{1b}", "added", "file", None, Some(2048)),
            row("a/b", "changed", "file", Some(10), Some(4)),
            row("old", "removed", "directory", None, None),
        ];
        let lines = text(&rows);
        assert_eq!(lines, ["reg.io/a:v1", "  A    +2.0 KiB  new\\u{1b}", "  M        -6 B  a/b", "  D              old/"]);
    }
}
