//! What became of each tag of a sync: a line for people, an object for programs, one exit code for all of them.

use serde::Serialize;

use crate::cli::exit::{Code, Failure};
use crate::cli::staged::summary;
use crate::cli::terminal::escape;
use crate::cli::terminal::units;
use crate::error::ErrorKind;
use crate::publish::{Outcome, Report};

/// Of several reasons the first of these is the exit code.
const PRIORITY: [Code; 6] = [Code::Conflict, Code::NotPushed, Code::Authentication, Code::Key, Code::Unreachable, Code::Other];

/// One tag. The keys are stable.
#[derive(Debug, Default, Serialize)]
pub struct Row<'report> {
    reference: &'report str,
    /// `unchanged`, `published`, `deleted`, `dropped` or `failed`.
    outcome: &'static str,
    /// What the tag held before.
    before: Option<&'report str>,
    /// What it holds now.
    digest: Option<&'report str>,
    /// An artifact that the repository had already.
    known: bool,
    /// Kind of the reason of a failure.
    kind: Option<&'report str>,
    /// The reason of a failure.
    message: Option<&'report str>,
    added: u64,
    changed: u64,
    removed: u64,
    ignored: u64,
    bytes_sent: u64,
    blobs_sent: u64,
    bytes_reused: u64,
    blobs_reused: u64,
    notes: &'report [String],
}

impl<'report> From<&'report Report> for Row<'report> {
    fn from(report: &'report Report) -> Self {
        let ((added, changed, removed), (bytes_sent, blobs_sent)) = (report.changes, report.sent);
        let (bytes_reused, blobs_reused) = report.reused;
        let mut row = Self {
            reference: &report.reference,
            added,
            changed,
            removed,
            ignored: report.ignored,
            bytes_sent,
            blobs_sent,
            bytes_reused,
            blobs_reused,
            notes: &report.notes,
            ..Self::default()
        };
        match &report.outcome {
            Outcome::Unchanged => row.outcome = "unchanged",
            Outcome::Published { before, digest, known } => {
                row.outcome = "published";
                (row.before, row.digest, row.known) = (before.as_deref(), Some(digest.as_str()), *known);
            }
            Outcome::Deleted { before } => (row.outcome, row.before) = ("deleted", Some(before.as_str())),
            Outcome::Dropped => row.outcome = "dropped",
            Outcome::Failed { kind, message } => {
                (row.outcome, row.kind, row.message) = ("failed", Some(kind.as_str()), Some(message.as_str()));
            }
        }
        row
    }
}

/// One line for a person; nothing for a failure, which is told on standard error.
pub fn line(report: &Report, dry_run: bool) -> Option<String> {
    let reference = escape::terminal(&report.reference);
    let would = |done: &str, would: &str| if dry_run { format!("would {would}") } else { done.to_owned() };
    match &report.outcome {
        Outcome::Unchanged => Some(format!("unchanged {reference}")),
        Outcome::Published { before, digest, known } => {
            let mut facts = vec![before.as_ref().map_or_else(|| "new".to_owned(), |before| format!("was {}", escape::terminal(before)))];
            facts.extend(summary::changes(report.changes));
            if *known {
                facts.push("an artifact that is there already".to_owned());
            } else if !dry_run {
                facts.push(format!("{} sent", units::show_size(report.sent.0)));
                facts.push(format!("{} reused", units::show_size(report.reused.0)));
            }
            if report.ignored > 0 {
                facts.push(format!("{} left out", report.ignored));
            }
            let verb = would("published", "publish");
            Some(format!("{verb} {reference} {} ({})", escape::terminal(digest), facts.join(", ")))
        }
        Outcome::Deleted { before } => Some(format!("{} {reference} (was {})", would("deleted", "delete"), escape::terminal(before))),
        Outcome::Dropped => Some(format!("{} the edits of {reference}", would("dropped", "drop"))),
        Outcome::Failed { .. } => None,
    }
}

/// Writes what became of a tag to the log.
pub fn log(report: &Report) {
    match (&report.outcome, line(report, false)) {
        (Outcome::Failed { message, .. }, _) => tracing::warn!(reference = %report.reference, message, "not published"),
        (_, Some(line)) => tracing::info!("{line}"),
        (_, None) => {}
    }
}

/// Reference, exit code and message of a failure.
fn failure(report: &Report) -> Option<(&str, Code, &str)> {
    match &report.outcome {
        Outcome::Failed { kind, message } => Some((&report.reference, code(kind), message)),
        _ => None,
    }
}

/// The code of a reason; one that has none of those of a sync counts as any other.
fn code(kind: &str) -> Code {
    let code = Code::from(ErrorKind::of_name(kind));
    if PRIORITY.contains(&code) { code } else { Code::Other }
}

/// The first reason, where something was not published.
pub fn reason(reports: &[Report]) -> Option<String> {
    reports.iter().find_map(failure).map(|(_, _, message)| message.to_owned())
}

/// How a sync ended. Several reasons are told one a line before the last line sums them up.
///
/// # Errors
/// At least one tag was not published.
pub fn ended(reports: &[Report]) -> Result<(), Failure> {
    let failures: Vec<_> = reports.iter().filter_map(failure).collect();
    let code = PRIORITY.into_iter().find(|code| failures.iter().any(|(_, found, _)| found == code));
    let told = |(reference, _, message): &(&str, Code, &str)| {
        // The message names the tag already where whoever wrote it knew it.
        if message.contains(reference) { (*message).to_owned() } else { format!("{reference}: {message}") }
    };
    match (failures.as_slice(), code) {
        ([], _) | (_, None) => Ok(()),
        ([only], Some(code)) => Err(Failure::new(code, told(only))),
        (several, Some(code)) => {
            several.iter().for_each(|one| crate::cli::terminal::message::report(&told(one)));
            let message = format!("{} of {} tags were not published; what is staged stays", several.len(), reports.len());
            Err(Failure::new(code, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome) -> Report {
        let reference = "reg.io/team/app:v2".to_owned();
        Report { reference, outcome, sent: (2048, 2), reused: (0, 0), changes: (3, 0, 1), ignored: 1, notes: vec!["n".into()] }
    }

    fn failed(kind: ErrorKind) -> Report {
        report(Outcome::Failed { kind: kind.name().to_owned(), message: "because".to_owned() })
    }

    #[test]
    fn of_several_reasons_the_one_that_needs_a_person_most_is_the_exit_code() {
        use ErrorKind as Kind;
        for (kinds, code) in [
            (vec![Kind::Unreachable, Kind::Conflict, Kind::Skipped], Code::Conflict),
            (vec![Kind::Denied, Kind::Skipped, Kind::KeyMissing], Code::NotPushed),
            (vec![Kind::Unreachable, Kind::KeyWrong, Kind::Denied], Code::Authentication),
            (vec![Kind::NoSpace, Kind::TimedOut, Kind::KeyMissing], Code::Key),
            (vec![Kind::NoSpace, Kind::TimedOut], Code::Unreachable),
            (vec![Kind::NotFound], Code::Other),
            (vec![Kind::Invalid], Code::Other),
        ] {
            let mut reports: Vec<Report> = kinds.iter().copied().map(failed).collect();
            reports.push(report(Outcome::Unchanged));
            assert_eq!(ended(&reports).unwrap_err().code, code, "{kinds:?}");
        }
        assert!(ended(&[report(Outcome::Unchanged)]).is_ok() && ended(&[]).is_ok());
    }

    #[test]
    fn one_reason_is_told_in_one_line_with_its_tag() {
        assert_eq!(ended(&[failed(ErrorKind::Conflict)]).unwrap_err().message, "reg.io/team/app:v2: because");
    }

    #[test]
    fn a_line_says_what_was_and_what_is() {
        let published = report(Outcome::Published { before: None, digest: "sha256:b".into(), known: false });
        let text = line(&published, false).unwrap();
        assert_eq!(text, "published reg.io/team/app:v2 sha256:b (new, 3 added, 1 removed, 2.0 KiB sent, 0 B reused, 1 left out)");
        assert!(line(&published, true).unwrap().starts_with("would publish reg.io"));
        let moved = report(Outcome::Published { before: Some("sha256:a".into()), digest: "sha256:b".into(), known: true });
        assert!(line(&moved, false).unwrap().contains("was sha256:a"));
        assert_eq!(line(&failed(ErrorKind::Conflict), false), None);
    }

    #[test]
    fn the_keys_for_programs_are_these() {
        let row = serde_json::to_value(Row::from(&failed(ErrorKind::Conflict))).unwrap();
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let wanted = "added before blobs_reused blobs_sent bytes_reused bytes_sent changed digest ignored kind known message notes \
            outcome reference removed";
        assert_eq!(keys, wanted.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            (row["outcome"].as_str(), row["kind"].as_str(), row["bytes_sent"].as_u64()),
            (Some("failed"), Some("conflict"), Some(2048))
        );
    }
}
