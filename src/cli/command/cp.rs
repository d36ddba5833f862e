//! `ocifs cp`: copies artifacts between registries, layouts and archives, byte for byte.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde::Serialize;

use crate::cli::exit::{Code, Failure};
use crate::cli::history::{self, Done};
use crate::cli::listing::holding;
use crate::cli::runtime::resumable;
use crate::cli::settings::flags::{Format, RegistryFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::sides::{Side, Sides};
use crate::cli::source::{reference, wiring};
use crate::cli::terminal::bar::{Bar, Figures};
use crate::cli::terminal::{escape, output, units};
use crate::oci::{Platform, Repository, Source, Tag, Version};
use crate::registry::Pull;
use crate::transfer::{self, Copied, Copier, Options, Tally};

/// Copy artifacts between registries, layouts and OCI archives; digests stay what they are
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "copy", args_override_self = true)]
pub struct Cp {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag; with --all-tags without the tag
    #[arg(value_name = "SRC")]
    source: String,

    /// repository[:tag[,tag]…], oci:DIRECTORY[:tag…] or oci-archive:FILE[:tag…] [default tag: that of SRC]
    #[arg(value_name = "DST")]
    destination: String,

    /// Copy every tag
    #[arg(long)]
    all_tags: bool,

    /// Also copy what refers to the artifact: signatures, attestations, SBOMs
    #[arg(short, long, visible_alias = "include-referrers")]
    recursive: bool,

    /// Copy only this platform of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Blobs copied at a time [default: 4]
    #[arg(long, value_name = "N", env = "OCIFS_CONCURRENCY", hide_env = true)]
    concurrency: Option<NonZeroUsize>,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Reaching both registries.
    #[command(flatten)]
    registry: RegistryFlags,

    /// Reaching one of them.
    #[command(flatten)]
    sides: Sides,
}

/// The output. The keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    source: String,
    /// Every reference that now names the artifact.
    destinations: Vec<String>,
    digest: String,
    media_type: String,
    size: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Reports {
    copied: Vec<Report>,
    /// Bytes and blobs.
    sent: (u64, u64),
    /// Bytes and blobs that were there, or that the registry took from another of its repositories.
    reused: (u64, u64),
}

impl Cp {
    /// Runs the command.
    ///
    /// # Errors
    /// One of the ends cannot be read or written. No tag is put on an artifact that did not arrive whole.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let (text, tags) = reference::split_tags(&self.destination)?;
        let (from, to) = (reference::parse(&self.source, environment)?, reference::parse(text, environment)?);
        invocation.check_one_login(reference::registry(&from), reference::registry(&to))?;
        let flags = invocation.registry_of_side(Side::From, reference::registry(&from))?;
        let pull = wiring::registry(&from, false, &flags, environment)?;
        let flags = invocation.registry_of_side(Side::To, reference::registry(&to))?;
        let push = wiring::destination(&to, &flags, environment)?;
        let options = Options {
            concurrency: self.concurrency.unwrap_or(wiring::CONCURRENCY),
            referrers: self.recursive,
            platform: self.platform.clone(),
        };
        let (reports, tally) = resumable(
            async {
                let (repository, versions) = match self.all_tags {
                    true => all_tags(&from, pull.as_ref()).await?,
                    false => reference::named(&from, pull.as_ref()).await.map(|(repository, version)| (repository, vec![version]))?,
                };
                let source = transfer::Source { pull, repository };
                let arrives = Arc::clone(&push);
                let destination = transfer::Destination { push, repository: reference::repository(&to)? };
                let copier = Copier::new(source, destination, options);
                let tally = copier.tally();
                let shown = Arc::clone(&tally);
                let _bar = Bar::new(self.quiet, move || figures(&shown));
                let mut reports = Vec::new();
                for version in versions {
                    let tags = if self.all_tags { vec![tag_of(&version)?] } else { tags_for(&to, &tags, &version)? };
                    let copied = copier.copy(&version, &tags).await?;
                    reports.push(report(&from, &version, &to, &tags, copied));
                }
                arrives.finish().await?;
                Ok((reports, tally))
            },
            "no tag was put on what did not arrive whole, and the same copy goes on from here",
        )?;
        for report in &reports {
            let destination = report.destinations.first().cloned();
            history::add(Done::now("cp", &report.source, destination, &report.digest), environment);
        }
        self.print(reports, &tally)
    }

    fn print(&self, copied: Vec<Report>, tally: &Tally) -> Result<(), Failure> {
        let pair = |counter: &(AtomicU64, AtomicU64)| (counter.0.load(Ordering::Relaxed), counter.1.load(Ordering::Relaxed));
        let reports = Reports { copied, sent: pair(&tally.sent), reused: pair(&tally.reused) };
        match self.format {
            format @ (Format::Json | Format::Yaml) => output::data(format, &reports),
            Format::Text if self.quiet => Ok(()),
            Format::Text => output::line(&text(&reports)),
        }
    }
}

fn text(reports: &Reports) -> String {
    let shown = |text: &str| escape::terminal(text).into_owned();
    let mut lines = Vec::new();
    for report in &reports.copied {
        let destinations: Vec<String> = report.destinations.iter().map(|reference| shown(reference)).collect();
        lines.push(format!("{} => {}", shown(&report.source), destinations.join(", ")));
        lines.push(format!("  digest {}", report.digest));
    }
    let ((sent, sent_blobs), (reused, reused_blobs)) = (reports.sent, reports.reused);
    let (sent, reused) = (units::show_size(sent), units::show_size(reused));
    lines.push(format!("sent {sent} in {sent_blobs} blobs, {reused} in {reused_blobs} blobs were there"));
    lines.join("\n")
}

fn report(from: &Source, version: &Version, to: &Source, tags: &[Tag], copied: Copied) -> Report {
    let by_digest = [Version::Digest(copied.digest)];
    let versions: Vec<Version> = tags.iter().cloned().map(Version::Tag).collect();
    let versions = if versions.is_empty() { by_digest.to_vec() } else { versions };
    Report {
        source: reference::with_version(from, version),
        destinations: versions.iter().map(|version| reference::with_version(to, version)).collect(),
        digest: copied.digest.to_string(),
        media_type: copied.media_type,
        size: copied.size,
    }
}

/// The tags that are put: those that DST names, else the one of SRC; none if both have none.
fn tags_for(to: &Source, others: &[Tag], version: &Version) -> Result<Vec<Tag>, Failure> {
    let first = match reference::version(to) {
        Some(Version::Digest(_)) => return Err(Failure::usage(format!("{to}: a copy cannot choose its digest; name a tag, or none"))),
        Some(Version::Tag(tag)) => Some(tag),
        None => match version {
            Version::Tag(tag) => Some(tag.clone()),
            Version::Digest(_) => None,
        },
    };
    Ok(first.into_iter().chain(others.iter().cloned()).collect())
}

fn tag_of(version: &Version) -> Result<Tag, Failure> {
    match version {
        Version::Tag(tag) => Ok(tag.clone()),
        Version::Digest(digest) => Err(Failure::usage(format!("--all-tags copies tags, and {digest} is none"))),
    }
}

/// The repository of SRC and all of its tags.
async fn all_tags(from: &Source, pull: &dyn Pull) -> Result<(Repository, Vec<Version>), Failure> {
    if let Some(version) = reference::version(from) {
        return Err(Failure::usage(format!("--all-tags copies a repository, and {from} names {version} of it")));
    }
    let repository = reference::repository(from)?;
    let versions: Vec<Version> = holding::tags(pull, &repository).await?.into_iter().map(Version::Tag).collect();
    match versions.is_empty() {
        true => Err(Failure::new(Code::NotFound, format!("{from} has no tags"))),
        false => Ok((repository, versions)),
    }
}

/// How far a copy is.
fn figures(tally: &Tally) -> Figures {
    Figures { doing: "copying", done: tally.done.load(Ordering::Relaxed), total: Some(tally.total.load(Ordering::Relaxed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    fn names(to: &str, others: &[&str], version: &str) -> Result<Vec<String>, Failure> {
        let others: Vec<Tag> = others.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
        let tags = tags_for(&source(to), &others, &Version::Tag(Tag::parse(version).unwrap()))?;
        Ok(tags.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_copy_has_the_tags_of_its_destination_else_that_of_its_source() {
        assert_eq!(names("reg.io/app:v2", &["v3"], "v1").unwrap(), ["v2", "v3"]);
        assert_eq!(names("reg.io/app", &[], "v1").unwrap(), ["v1"]);
        assert_eq!(names("oci:/layout:v2", &[], "v1").unwrap(), ["v2"]);
        let by_digest = format!("reg.io/app@{}", crate::oci::Digest::of(b"x"));
        assert_eq!(names(&by_digest, &[], "v1").unwrap_err().code, Code::Usage);
    }
}
