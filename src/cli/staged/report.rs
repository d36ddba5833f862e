//! The outcome of a sync: one line or JSON object per tag, one exit code for all.

use serde::Serialize;

use crate::cli::exit::{Code, Failure};
use crate::cli::staged::summary;
use crate::cli::terminal::{escape, message, units};
use crate::error::ErrorKind;
use crate::publish::{Outcome, Report};

/// Among several failures, the first in this list determines the exit code.
const PRIORITY: [Code; 6] = [Code::Conflict, Code::NotPushed, Code::Authentication, Code::Key, Code::Unreachable, Code::Other];

/// One tag. Its keys are stable.
#[derive(Debug, Default, Serialize)]
pub struct Row<'report> {
    reference: &'report str,
    /// `unchanged`, `published`, `deleted`, `dropped` or `failed`.
    outcome: &'static str,
    /// Previous digest.
    before: Option<&'report str>,
    /// New digest.
    digest: Option<&'report str>,
    /// The repository already had the artifact.
    known: bool,
    /// Kind of the failure.
    kind: Option<&'report str>,
    /// Message of the failure.
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

/// One line of text; `None` for a failure, which goes to standard error.
pub fn line(report: &Report, dry_run: bool) -> Option<String> {
    let reference = escape::terminal(&report.reference);
    let would = |done: &str, would: &str| if dry_run { format!("would {would}") } else { done.to_owned() };
    match &report.outcome {
        Outcome::Unchanged => Some(format!("unchanged {reference}")),
        Outcome::Published { before, digest, known } => {
            let mut facts = vec![before.as_ref().map_or_else(|| "new".to_owned(), |before| format!("was {}", escape::terminal(before)))];
            facts.extend(summary::changes(report.changes));
            if *known {
                facts.push("already in the registry".to_owned());
            } else if !dry_run {
                facts.push(format!("{} sent", units::show_size(report.sent.0)));
                facts.push(format!("{} reused", units::show_size(report.reused.0)));
            }
            if report.ignored > 0 {
                facts.push(format!("{} ignored", report.ignored));
            }
            let verb = would("published", "publish");
            Some(format!("{verb} {reference} {} ({})", escape::terminal(digest), facts.join(", ")))
        }
        Outcome::Deleted { before } => Some(format!("{} {reference} (was {})", would("deleted", "delete"), escape::terminal(before))),
        Outcome::Dropped => Some(format!("{} the edits of {reference}", would("dropped", "drop"))),
        Outcome::Failed { .. } => None,
    }
}

/// Logs the outcome of a tag.
pub fn log(report: &Report) {
    match (&report.outcome, line(report, false)) {
        (Outcome::Failed { message, .. }, _) => tracing::warn!(reference = %report.reference, message, "not published"),
        (_, Some(line)) => tracing::info!("{line}"),
        (_, None) => {}
    }
}

/// The reference, exit code and message of a failure.
fn failure(report: &Report) -> Option<(&str, Code, &str)> {
    match &report.outcome {
        Outcome::Failed { kind, message } => Some((&report.reference, code(kind), message)),
        _ => None,
    }
}

/// The exit code of a failure; codes that a sync does not use become `Other`.
fn code(kind: &str) -> Code {
    let code = Code::from(ErrorKind::of_name(kind));
    if PRIORITY.contains(&code) { code } else { Code::Other }
}

/// The first failure's message.
pub fn reason(reports: &[Report]) -> Option<String> {
    reports.iter().find_map(failure).map(|(_, _, message)| message.to_owned())
}

/// The result of a sync. Several failures are printed one per line; the returned error then summarises them.
///
/// # Errors
/// At least one tag was not published.
pub fn outcome(reports: &[Report]) -> Result<(), Failure> {
    let failures: Vec<_> = reports.iter().filter_map(failure).collect();
    let code = PRIORITY.into_iter().find(|code| failures.iter().any(|(_, found, _)| found == code));
    let shown = |(reference, _, message): &(&str, Code, &str)| {
        // Some messages already name the tag.
        if message.contains(reference) { (*message).to_owned() } else { format!("{reference}: {message}") }
    };
    match (failures.as_slice(), code) {
        ([], _) | (_, None) => Ok(()),
        ([only], Some(code)) => Err(Failure::new(code, shown(only))),
        (several, Some(code)) => {
            several.iter().for_each(|one| message::report(&shown(one)));
            let message = format!("{} of {} tags were not published; they stay staged", several.len(), reports.len());
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
    fn the_exit_code_is_that_of_the_most_serious_failure() {
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
            assert_eq!(outcome(&reports).unwrap_err().code, code, "{kinds:?}");
        }
        assert!(outcome(&[report(Outcome::Unchanged)]).is_ok() && outcome(&[]).is_ok());
    }

    #[test]
    fn one_failure_is_one_line_with_its_tag() {
        assert_eq!(outcome(&[failed(ErrorKind::Conflict)]).unwrap_err().message, "reg.io/team/app:v2: because");
    }

    #[test]
    fn a_line_has_the_old_and_the_new_digest() {
        let published = report(Outcome::Published { before: None, digest: "sha256:b".into(), known: false });
        let text = line(&published, false).unwrap();
        assert_eq!(text, "published reg.io/team/app:v2 sha256:b (new, 3 added, 1 removed, 2.0 KiB sent, 0 B reused, 1 ignored)");
        assert!(line(&published, true).unwrap().starts_with("would publish reg.io"));
        let moved = report(Outcome::Published { before: Some("sha256:a".into()), digest: "sha256:b".into(), known: true });
        assert!(line(&moved, false).unwrap().contains("was sha256:a"));
        assert_eq!(line(&failed(ErrorKind::Conflict), false), None);
    }

    #[test]
    fn json_keys_are_stable() {
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
