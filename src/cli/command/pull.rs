//! `ocifs pull`: writes the files of an artifact to disk, as a mount shows them.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::{ArgAction, Args};
use serde::Serialize;
use serde::ser::SerializeSeq;

use crate::artifact::{Artifact, Dialect, Kind, ViewMode};
use crate::cli::exit::{Code, Failure};
use crate::cli::history::{self, Done};
use crate::cli::runtime::resumable;
use crate::cli::settings::flags::{ContentFlags, Format, Reaching, ReadPlatform, Transferring, Verify};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases;
use crate::cli::source::reference;
use crate::cli::source::wiring::{self, Caching, Parts, Reading};
use crate::cli::terminal::bar::{Bar, Figures};
use crate::cli::terminal::{escape, message, units};
use crate::error::ErrorKind;
use crate::extract::{self, Selection, Summary, Tally, Target};
use crate::oci::{Digest, Repository, Source, Version};
use crate::sys::process;
use crate::transfer;

/// Levels of subjects followed.
const SUBJECTS: usize = 16;

/// Write the files of an artifact to a directory, as a mount shows them
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true, mut_arg("concurrency", |arg| arg.help("Files written at a time [default: 4]")))]
pub struct Pull {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF", required_unless_present = "remote")]
    reference: Option<String>,

    /// Directory to write to; created if missing [default: the working directory]
    #[arg(value_name = "DIR", conflicts_with = "output")]
    directory: Option<PathBuf>,

    /// Same as DIR; `-` writes the single selected file to standard output
    #[arg(short, long, visible_short_alias = 'l', visible_alias = "local", value_name = "DIR")]
    output: Option<PathBuf>,

    /// Same as REF
    #[arg(short, long, value_name = "REF", conflicts_with = "reference")]
    remote: Option<String>,

    /// Pull only paths that match this glob, and everything below them; `**` crosses directories; repeatable
    #[arg(long = "path", value_name = "GLOB", action = ArgAction::Append)]
    paths: Vec<String>,

    /// Keep existing files, and fail if there were any
    #[arg(short, long)]
    keep_old_files: bool,

    /// Restore owners, all mode bits, all extended attributes and devices, as root
    #[arg(long)]
    same_owner: bool,

    /// Also pull the artifact's subject; where both have a path, the artifact's file wins
    #[arg(long)]
    include_subject: bool,

    /// The platform.
    #[command(flatten)]
    platform: ReadPlatform,

    /// When to verify content: `strict` verifies whole blobs before the first byte; no unverified file appears either way [default: auto]
    #[arg(long, value_name = "MODE", env = "OCIFS_VERIFY", hide_env = true)]
    verify: Option<Verify>,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How the registry is reached.
    #[command(flatten)]
    reaching: Reaching,
}

/// An artifact to pull.
struct ToPull {
    reference: String,
    digest: Digest,
    source: extract::Source,
}

/// The output. Its keys are stable.
#[derive(Serialize)]
struct Report<'a> {
    reference: &'a str,
    digest: String,
    media_type: &'a str,
    platform: Option<String>,
    /// The target directory.
    directory: String,
    files: Files<'a>,
    /// Regular files that were already up to date.
    unchanged: u64,
    /// Existing names that were kept.
    kept: u64,
    /// Parts that could not be restored as archived.
    warnings: Vec<String>,
}

/// The selected files of an artifact.
struct Files<'a> {
    artifact: &'a Artifact,
    selection: &'a Selection,
    directory: &'a Path,
}

/// One file.
#[derive(Serialize)]
struct File {
    path: String,
    size: u64,
    digest: Option<String>,
}

impl Pull {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact does not exist or cannot be read, or the disk refuses a write. Files that are complete by then stay.
    pub fn run(mut self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let given = self.remote.take().or(self.reference.take()).unwrap_or_default();
        let source = reference::parse(&given, environment)?;
        self.reaching.storage = std::mem::take(&mut self.reaching.storage).for_command(environment)?;
        self.reaching.registry = invocation.registry(reference::registry(&source))?;
        let selection = Selection::new(&self.paths)?;
        let output = self.output.take().or(self.directory.take()).unwrap_or_else(|| PathBuf::from("."));
        if output.as_os_str() == "-" && self.how.output.format != Format::Text {
            return Err(Failure::usage("standard output cannot hold both the file (`-o -`) and the report (`--format`)"));
        }
        let passphrases = passphrases::read_all(&invocation.origins(&self.reaching.keys))?;
        let is_typed = !invocation.typed_origins(&self.reaching.keys).is_empty();
        process::raise_open_file_limit();
        let content = ContentFlags { verify: self.verify, ..self.platform.content() };
        let by_digest = reference::digest(&source).is_some();
        let reading = Reading { by_digest, passphrases, caching: Caching::Unfilled { spool: existing(&output) }, ..Reading::of(&content) };
        let done = resumable(
            async {
                let parts = wiring::build(&source, reading, &self.reaching.registry, &self.reaching.storage, environment)?;
                let done = self.pull(&parts, &source, &selection, &output, is_typed).await;
                parts.artifacts.flush().await;
                done
            },
            "complete files are kept, and the next pull resumes",
        );
        done?.into_iter().for_each(|done| history::add(done, environment));
        Ok(())
    }

    /// Pulls, and returns the entries for the history.
    async fn pull(
        &self,
        parts: &Parts,
        source: &Source,
        selection: &Selection,
        output: &Path,
        is_typed: bool,
    ) -> Result<Option<Done>, Failure> {
        let tally = Arc::new(Tally::default());
        let bar = {
            let (artifacts, tally) = (parts.artifacts.clone(), Arc::clone(&tally));
            Bar::new(self.how.output.quiet, move || figures(artifacts.progress(), &tally))
        };
        let wanted = self.find(parts, source).await?;
        let surveys: Vec<_> = wanted.iter().map(|one| extract::survey(&one.source.artifact, selection)).collect();
        if !selection.is_everything() && surveys.iter().all(|survey| survey.names == 0) {
            let message =
                format!("nothing in {source} matches {}; a glob matches whole paths, and `**/` any directories", self.paths.join(", "));
            return Err(Failure::new(Code::NotFound, message));
        }
        let is_encrypted = |one: &ToPull| one.source.artifact.is_encrypted();
        if is_typed && !wanted.iter().any(is_encrypted) {
            message::warn(&format!("{source} is not encrypted; ignoring the passphrase"));
        }
        if output.as_os_str() == "-" {
            drop(bar);
            return to_standard_output(&wanted, &surveys).await.map(|()| None);
        }
        let target = Target::open(output)?;
        let mut summaries = Vec::new();
        for one in &wanted {
            let options = extract::Options {
                concurrency: self.how.concurrency.get(),
                keep: self.keep_old_files,
                same_owner: self.same_owner,
                selection: selection.clone(),
            };
            summaries.push(extract::extract(one.source.clone(), &target, options, Arc::clone(&tally)).await?);
        }
        drop(bar);
        self.print(&wanted, &summaries, selection, &target)?;
        Ok(wanted.last().map(|one| Done::now("pull", &one.reference, history::place(target.path()), one.digest)))
    }

    /// The artifact, preceded by its subjects.
    async fn find(&self, parts: &Parts, source: &Source) -> Result<Vec<ToPull>, Failure> {
        let (repository, version) = reference::named(source, parts.pull.as_ref()).await?;
        let mut digest = parts.artifacts.digest(&repository, &version).await?;
        let mut wanted = vec![self.open(parts, &repository, digest, reference::with_version(source, &version)).await?];
        while self.include_subject
            && wanted.len() <= SUBJECTS
            && let Some(subject) = wanted.first().and_then(|one| one.source.artifact.manifest.subject())
        {
            digest = subject.digest;
            let reference = reference::with_version(source, &Version::Digest(digest));
            wanted.insert(0, self.open(parts, &repository, digest, reference).await?);
        }
        Ok(wanted)
    }

    async fn open(&self, parts: &Parts, repository: &Repository, digest: Digest, reference: String) -> Result<ToPull, Failure> {
        let artifacts = parts.artifacts.clone();
        let artifact = artifacts.artifact(repository, &digest, ViewMode::Merged, false).await.map_err(|error| match error.kind {
            ErrorKind::KeyMissing => Failure::from(error).context(&reference),
            _ => error.into(),
        })?;
        // An index without platforms is a directory of its members, whatever platform is requested.
        let members = artifact.manifest.index().map(|index| index.manifests.as_slice()).unwrap_or_default();
        let has_platforms = members.iter().any(|member| member.platform.as_ref().is_some_and(|platform| !platform.is_unknown()));
        if let (Some(platform), Dialect::Members, true) = (&self.platform.platform, artifact.dialect, has_platforms) {
            transfer::member_for(&artifact.manifest, platform)?;
        }
        let source = extract::Source { artifacts, repository: repository.clone(), artifact, strict: false };
        Ok(ToPull { reference, digest, source })
    }

    fn print(&self, wanted: &[ToPull], summaries: &[Summary], selection: &Selection, target: &Target) -> Result<(), Failure> {
        let directory = std::path::absolute(target.path()).unwrap_or_else(|_| target.path().to_owned());
        let kept: u64 = summaries.iter().map(|summary| summary.kept.count).sum();
        for summary in summaries.iter().filter(|_| !self.how.output.quiet) {
            warnings(summary).iter().for_each(|text| message::warn(text));
        }
        let pulled = || wanted.iter().zip(summaries);
        let reports = Reports { pulled: pulled().map(|(one, summary)| report(one, summary, selection, &directory)).collect() };
        let lines = || pulled().map(|(one, summary)| text(one, summary, &directory)).collect::<Vec<_>>();
        self.how.output.show(&reports, |_| lines().join("\n"))?;
        let Some(first) = summaries.iter().find_map(|summary| summary.kept.first.as_ref()) else { return Ok(()) };
        Err(Failure::other(format!("{kept} existing names were kept: {first}, …; drop --keep-old-files to replace them")))
    }
}

/// The directory, or the nearest one above it that exists; `None` for standard output.
fn existing(output: &Path) -> Option<PathBuf> {
    let output = Some(output).filter(|output| output.as_os_str() != "-")?;
    std::path::absolute(output).ok()?.ancestors().find(|place| place.is_dir()).map(Path::to_owned)
}

/// All artifacts.
#[derive(Serialize)]
struct Reports<'a> {
    pulled: Vec<Report<'a>>,
}

/// The progress of a pull. Until the files are known, bytes read count towards resolving the artifact.
fn figures(read: u64, tally: &Tally) -> Figures {
    match tally.total.load(Ordering::Relaxed) {
        0 => Figures { doing: "reading", done: read, total: None },
        total => Figures { doing: "pulling", done: tally.done.load(Ordering::Relaxed), total: Some(total) },
    }
}

async fn to_standard_output(wanted: &[ToPull], surveys: &[extract::Survey]) -> Result<(), Failure> {
    let files: u64 = surveys.iter().map(|survey| survey.files).sum();
    let found = wanted.iter().zip(surveys).find_map(|(one, survey)| Some((one, survey.file?)));
    let Some((one, node)) = found.filter(|_| files == 1) else {
        return Err(Failure::usage(format!("standard output takes one file, but this selects {files}; choose one with --path")));
    };
    // Avoids the line buffer that text output gets.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let mut stdout = std::fs::File::from(stdout.map_err(|error| Failure::other(format!("cannot write to standard output: {error}")))?);
    let mut write = |bytes: &[u8]| match stdout.write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    };
    extract::stream(&one.source, node, &mut write).await?;
    Ok(())
}

fn report<'a>(one: &'a ToPull, summary: &Summary, selection: &'a Selection, directory: &'a Path) -> Report<'a> {
    let artifact = &one.source.artifact;
    Report {
        reference: &one.reference,
        digest: one.digest.to_string(),
        media_type: &artifact.manifest.media_type,
        platform: artifact.platform.as_ref().map(ToString::to_string),
        directory: directory.to_string_lossy().into_owned(),
        files: Files { artifact, selection, directory },
        unchanged: summary.unchanged,
        kept: summary.kept.count,
        warnings: artifact.tree.warnings().map(str::to_owned).chain(warnings(summary)).collect(),
    }
}

impl Serialize for Files<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (tree, mut sequence) = (&self.artifact.tree, serializer.serialize_seq(None)?);
        let mut outcome = Ok(());
        extract::visit(tree, self.selection, &mut |path, node| {
            let Some(file) = tree.node(node).filter(|file| file.kind == Kind::File && outcome.is_ok()) else { return };
            let path = self.directory.join(OsStr::from_bytes(path)).to_string_lossy().into_owned();
            let digest = tree.content(node).and_then(|content| content.sha256).map(|sha256| Digest::from_sha256(sha256).to_string());
            outcome = sequence.serialize_element(&File { path, size: file.size, digest });
        });
        outcome?;
        sequence.end()
    }
}

/// Warnings about attributes that could not be restored.
fn warnings(summary: &Summary) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |case: &extract::Case, what: &str| {
        if let Some(first) = &case.first {
            warnings.push(format!("{} {what}: {first}", case.count));
        }
    };
    warn(&summary.devices, "devices were skipped (--same-owner as root creates them), the first");
    warn(&summary.attributes, "extended attributes could not be set, the first");
    warnings
}

fn text(one: &ToPull, summary: &Summary, directory: &Path) -> String {
    let (reference, directory) = (escape::terminal(&one.reference), escape::path(directory));
    let unchanged = match summary.unchanged {
        0 => String::new(),
        count => format!(", {count} already there"),
    };
    format!(
        "{reference} => {directory}\n  digest {}\n  {}, {}{unchanged}",
        one.digest,
        units::show_count(summary.files, "file"),
        units::show_size(summary.bytes)
    )
}
