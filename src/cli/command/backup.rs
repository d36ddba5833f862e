//! `ocifs backup` and `ocifs restore`: a repository with its referrers to a directory or tar, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::cli::copies::{self, Ends, Reports, ToCopy};
use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::flags::{RegistryFlags, Transferring};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{reference, wiring};
use crate::cli::terminal::{escape, output};
use crate::error::ErrorKind;
use crate::oci::{Digest, LayoutForm, LayoutPlace, Repository, Source, Tag, Version};
use crate::registry::Pull;
use crate::transfer::Options;

/// Back up a repository to a directory or tar; later runs fetch only new content
#[derive(Args, Clone, Debug)]
#[command(mut_arg("concurrency", copies::of_blobs))]
pub struct Backup {
    /// repository (all of its tags) or repository:tag[,tag]…
    #[arg(value_name = "REF")]
    reference: String,

    /// Directory (an OCI layout), or FILE.tar (an OCI archive)
    #[arg(value_name = "PATH", required_unless_present = "output")]
    path: Option<PathBuf>,

    /// Same as PATH
    #[arg(short, long, value_name = "PATH", conflicts_with = "path")]
    output: Option<PathBuf>,

    /// Leave out referrers: signatures, attestations, SBOMs
    #[arg(long)]
    exclude_referrers: bool,

    /// Accepted for compatibility with ORAS; referrers are included by default
    #[arg(long, hide = true, conflicts_with = "exclude_referrers")]
    include_referrers: bool,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How the registry is reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// Restore a backup to a registry; digests do not change
#[derive(Args, Clone, Debug)]
#[command(mut_arg("concurrency", copies::of_blobs))]
pub struct Restore {
    /// PATH of the backup, then repository (all tags) or repository:tag[,tag]…
    #[arg(value_names = ["PATH", "REF"], num_args = 1..=2, required = true)]
    places: Vec<String>,

    /// Same as PATH
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,

    /// Leave out referrers
    #[arg(long)]
    exclude_referrers: bool,

    /// Send nothing; show what each tag would become
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How the registry is reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

fn options(how: Transferring, exclude_referrers: bool) -> Options {
    Options { concurrency: how.concurrency.get(), referrers: !exclude_referrers, platform: None }
}

impl Backup {
    /// Runs the command.
    ///
    /// # Errors
    /// The repository cannot be read or the destination cannot be written. The next run does not fetch again what has arrived.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let (from, tags) = repository_and_tags(&self.reference, environment)?;
        let to = layout(self.path.as_ref().or(self.output.as_ref()).map_or(Path::new("."), PathBuf::as_path), environment)?;
        let flags = invocation.registry(reference::registry(&from))?;
        let pull = wiring::readable(&from, &flags, environment)?;
        let push = wiring::destination(&to, &flags, environment)?;
        let ends = Ends { from, to, pull, push };
        let reports = until_interrupted(async {
            let repository = reference::repository(&ends.from)?;
            let tags = chosen(&ends.from, ends.pull.as_ref(), &repository, tags).await?;
            let wanted = tags.iter().map(ToCopy::tag).collect();
            copies::copy(&ends, repository, wanted, options(self.how, self.exclude_referrers), self.how.output.quiet).await
        })?;
        reports.remember("backup", environment);
        self.how.output.show(&reports, Reports::text)
    }
}

impl Restore {
    /// Runs the command.
    ///
    /// # Errors
    /// The backup does not exist, or the registry refuses a write.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let (path, text) = match (self.places.as_slice(), &self.input) {
            ([path, text], None) => (Path::new(path), text),
            ([text], Some(path)) => (path.as_path(), text),
            ([_], None) => return Err(Failure::usage("name the PATH of the backup and the REF to restore to")),
            _ => return Err(Failure::usage("give the backup either as PATH or with --input, not both")),
        };
        let from = layout(path, environment)?;
        let (to, tags) = repository_and_tags(text, environment)?;
        let flags = invocation.registry(reference::registry(&to))?;
        let pull = wiring::readable(&from, &flags, environment)?;
        let push = wiring::destination(&to, &flags, environment)?;
        let ends = Ends { from, to, pull, push };
        until_interrupted(async {
            let repository = reference::repository(&ends.from)?;
            let mut tags = chosen(&ends.from, ends.pull.as_ref(), &repository, tags).await?;
            tags.retain(|tag| !(self.exclude_referrers && tag.is_bookkeeping()));
            if self.dry_run {
                return output::show(self.how.output.format, &plan(&ends, &repository, &tags).await?, Plan::text);
            }
            let wanted = tags.iter().map(ToCopy::tag).collect();
            let options = options(self.how, self.exclude_referrers);
            let reports = copies::copy(&ends, repository, wanted, options, self.how.output.quiet).await?;
            reports.remember("restore", environment);
            self.how.output.show(&reports, Reports::text)
        })
    }
}

/// The output of `restore -n`. Its keys are stable.
#[derive(Debug, Serialize)]
struct Plan {
    tags: Vec<Planned>,
}

/// One tag.
#[derive(Debug, Serialize)]
struct Planned {
    reference: String,
    digest: String,
    /// The digest the tag holds now.
    before: Option<String>,
}

impl Plan {
    fn text(&self) -> String {
        let line = |tag: &Planned| {
            let what = match &tag.before {
                None => "new".to_owned(),
                Some(before) if *before == tag.digest => "unchanged".to_owned(),
                Some(before) => format!("replaces {before}"),
            };
            format!("{}  {}  {what}", escape::terminal(&tag.reference), tag.digest)
        };
        self.tags.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

async fn plan(ends: &Ends, repository: &Repository, tags: &[Tag]) -> Result<Plan, Failure> {
    let there = reference::repository(&ends.to)?;
    let mut planned = Vec::new();
    for tag in tags {
        let version = Version::Tag(tag.clone());
        let digest = ends.pull.resolve(repository, &version).await?.digest;
        let before: Option<Digest> = match ends.push.resolve(&there, &version).await {
            Ok(resolved) => Some(resolved.digest),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let reference = reference::with_version(&ends.to, &version);
        planned.push(Planned { reference, digest: digest.to_string(), before: before.map(|digest| digest.to_string()) });
    }
    Ok(Plan { tags: planned })
}

/// Splits `repository:tag,tag` into the repository and its tags; no tags means all of them.
fn repository_and_tags(text: &str, environment: &Environment) -> Result<(Source, Vec<Tag>), Failure> {
    let (first, others) = reference::split_tags(text)?;
    let source = reference::parse(first, environment)?;
    let mut tags = match reference::version(&source) {
        Some(Version::Tag(tag)) => vec![tag],
        Some(Version::Digest(_)) => return Err(Failure::usage(format!("{source} names a single manifest; name tags or the repository"))),
        None => Vec::new(),
    };
    if tags.is_empty() && !others.is_empty() {
        return Err(Failure::usage(format!("{source} has no tag before the comma")));
    }
    tags.extend(others);
    reference::repository(&source)?;
    Ok((source, tags))
}

/// The tags to copy: those named, else all.
async fn chosen(from: &Source, pull: &dyn Pull, repository: &Repository, tags: Vec<Tag>) -> Result<Vec<Tag>, Failure> {
    if tags.is_empty() { copies::all_tags(from, pull, repository).await } else { Ok(tags) }
}

/// The layout at a path: an archive if the path is a file or ends in `.tar`.
fn layout(path: &Path, environment: &Environment) -> Result<Source, Failure> {
    if let Some(text) = path.to_str().filter(|text| LayoutForm::of_text(text).is_some()) {
        return match reference::written(text, environment)? {
            source @ Source::Layout { name: None, .. } => Ok(source),
            other => Err(Failure::usage(format!("{other} names one artifact; a backup is a whole directory or archive"))),
        };
    }
    let path = environment.absolute(path, None)?;
    let is_archive = path.is_file() || (!path.is_dir() && path.extension().is_some_and(|extension| extension == "tar"));
    let form = if is_archive { LayoutForm::Archive } else { LayoutForm::Directory };
    Ok(Source::Layout { place: LayoutPlace { form, path }, name: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Code;

    #[test]
    fn a_backup_is_a_directory_or_archive_by_what_exists_else_by_name() {
        let (environment, folder) = (Environment::default(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("file"), b"").unwrap();
        std::fs::create_dir(folder.path().join("folder.tar")).unwrap();
        for (name, archive) in [("new", false), ("new.tar", true), ("file", true), ("folder.tar", false)] {
            let Ok(Source::Layout { place, name: None }) = layout(&folder.path().join(name), &environment) else { panic!("{name}") };
            assert_eq!(place.form == LayoutForm::Archive, archive, "{name}");
        }
        assert!(layout(Path::new("oci:/a:v1"), &environment).is_err());
    }

    #[test]
    fn a_repository_is_meant_as_a_whole_or_by_tags() {
        let named = |text: &str| {
            let (_, tags) = repository_and_tags(text, &Environment::default())?;
            Ok::<_, Failure>(tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!((named("reg.io/a").unwrap().as_str(), named("reg.io/a:v1,v2").unwrap().as_str()), ("", "v1 v2"));
        for text in ["reg.io", &format!("reg.io/a@{}", Digest::of(b"x")), "reg.io/a,v2"] {
            assert_eq!(named(text).unwrap_err().code, Code::Usage, "{text}");
        }
    }
}
