//! Copies between two places, made and reported by `cp`, `backup` and `restore`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Arg;
use serde::Serialize;

use crate::cli::exit::{Code, Failure};
use crate::cli::history::{self, Done};
use crate::cli::listing::holding;
use crate::cli::settings::environment::Environment;
use crate::cli::source::reference;
use crate::cli::terminal::bar::{Bar, Figures};
use crate::cli::terminal::{escape, units};
use crate::oci::{Repository, Source, Tag, Version};
use crate::registry::{Pull, Push};
use crate::transfer::{self, Copied, Copier, Options, Tally};

/// The two places.
pub struct Ends {
    /// The source, as the user wrote it.
    pub from: Source,
    /// The destination, as the user wrote it.
    pub to: Source,
    /// The source, opened.
    pub pull: Arc<dyn Pull>,
    /// The destination, opened.
    pub push: Arc<dyn Push>,
}

/// An artifact to copy.
pub struct ToCopy {
    /// Version at the source.
    pub version: Version,
    /// Tags at the destination; empty to copy by digest.
    pub tags: Vec<Tag>,
}

impl ToCopy {
    /// Copies a tag under its own name.
    pub fn tag(tag: &Tag) -> Self {
        Self { version: Version::Tag(tag.clone()), tags: vec![tag.clone()] }
    }
}

/// One artifact. Its keys are stable.
#[derive(Debug, Serialize)]
pub struct Report {
    source: String,
    /// Every reference that now names the artifact.
    destinations: Vec<String>,
    digest: String,
    media_type: String,
    size: u64,
}

/// All artifacts. The keys are stable.
#[derive(Debug, Serialize)]
pub struct Reports {
    copied: Vec<Report>,
    /// Bytes and blobs.
    sent: (u64, u64),
    /// Bytes and blobs that the destination had, or mounted from another of its repositories.
    reused: (u64, u64),
}

/// Copies from a repository of the source, with a progress bar unless `quiet`.
///
/// # Errors
/// One side cannot be read or written. No tag is set on an incomplete artifact.
pub async fn copy(ends: &Ends, repository: Repository, wanted: Vec<ToCopy>, options: Options, quiet: bool) -> Result<Reports, Failure> {
    let source = transfer::Source { pull: Arc::clone(&ends.pull), repository };
    let destination = transfer::Destination { push: Arc::clone(&ends.push), repository: reference::repository(&ends.to)? };
    let copier = Copier::new(source, destination, options);
    let tally = copier.tally();
    let shown = Arc::clone(&tally);
    let _bar = Bar::new(quiet, move || figures("copying", &shown));
    let mut copied = Vec::new();
    for ToCopy { version, tags } in wanted {
        let done = copier.copy(&version, &tags).await?;
        copied.push(report(ends, &version, &tags, done));
    }
    ends.push.finish().await?;
    Ok(Reports { copied, sent: tally.sent(), reused: tally.reused() })
}

/// All tags of a repository, to copy.
///
/// # Errors
/// There are no tags, or they cannot be listed.
pub async fn all_tags(from: &Source, pull: &dyn Pull, repository: &Repository) -> Result<Vec<Tag>, Failure> {
    let tags = match holding::tags(pull, repository).await {
        Ok(tags) => tags,
        Err(failure) => return Err(reference::no_repository(from, pull, failure).await),
    };
    match tags.is_empty() {
        true => Err(Failure::new(Code::NotFound, format!("{from} has no tags"))),
        false => Ok(tags),
    }
}

impl Reports {
    /// Records the copies for `recent`.
    pub fn remember(&self, command: &str, environment: &Environment) {
        for report in &self.copied {
            history::add(Done::now(command, &report.source, report.destinations.first().cloned(), &report.digest), environment);
        }
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let shown = |text: &str| escape::terminal(text).into_owned();
        let mut lines = Vec::new();
        for report in &self.copied {
            let destinations: Vec<String> = report.destinations.iter().map(|reference| shown(reference)).collect();
            lines.push(format!("{} => {}", shown(&report.source), destinations.join(", ")));
            lines.push(format!("  digest {}", report.digest));
        }
        lines.push(units::show_sent(self.sent, self.reused));
        lines.join("\n")
    }
}

fn report(ends: &Ends, version: &Version, tags: &[Tag], copied: Copied) -> Report {
    Report {
        source: reference::with_version(&ends.from, version),
        destinations: reference::all(&ends.to, tags, copied.digest),
        digest: copied.digest.to_string(),
        media_type: copied.media_type,
        size: copied.size,
    }
}

/// The flag `--concurrency` of these commands.
pub fn of_blobs(concurrency: Arg) -> Arg {
    concurrency.help("Blobs copied at a time [default: 4]")
}

/// Progress figures of a transfer.
pub fn figures(doing: &'static str, tally: &Tally) -> Figures {
    Figures { doing, done: tally.done.load(Ordering::Relaxed), total: Some(tally.total.load(Ordering::Relaxed)) }
}
