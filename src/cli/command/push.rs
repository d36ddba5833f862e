//! `ocifs push`: builds an artifact from local files and directories and pushes it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::history::{self, Done};
use crate::cli::runtime::{blocking, resumable};
use crate::cli::settings::flags::{ContentFlags, Reaching, Transferring};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases;
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::cli::source::{inputs, pushing, reference};
use crate::cli::terminal::{escape, units};
use crate::oci::{Descriptor, Platform, Repository, Source, Tag, Version};
use crate::publish::{ArtifactKind, ImageSpec, Metadata, NewKind, Packs, Pushed, Pushing};

/// Pack files and directories into a new artifact and push it
///
/// Paths keep their names as given; `.` is the content of the working directory (see -C). A file becomes a layer of its own, a directory
/// is split into layers that later pushes reuse. The same input gives the same digest; with SOURCE_DATE_EPOCH, later times are clamped
/// to it.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Push {
    /// repository:tag[,tag]…, oci:DIRECTORY:tag[,tag]… or oci-archive:FILE:tag[,tag]…
    #[arg(value_name = "REF", required_unless_present = "remote")]
    reference: Option<String>,

    /// Files and directories, each optionally with the media type of its layer; `-` reads standard input
    #[arg(value_name = "PATH[:TYPE]")]
    paths: Vec<PathBuf>,

    /// A file or directory to push
    #[arg(short = 'l', long = "local", value_name = "PATH")]
    local: Vec<PathBuf>,

    /// Same as REF
    #[arg(short = 'r', long = "remote", value_name = "REF")]
    remote: Option<String>,

    /// Paths are relative to this directory
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Title of the layer read from standard input
    #[arg(long, value_name = "NAME")]
    title: Option<String>,

    /// Kind of artifact to build
    #[arg(long, value_name = "KIND", value_enum, default_value_t, env = "OCIFS_AS_KIND", hide_env = true)]
    as_kind: Kind,

    /// Artifact type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,

    /// An annotation of the manifest; a label of an oci-sync artifact
    #[arg(short, long = "annotation", visible_alias = "label", value_name = "NAME=VALUE", value_parser = inputs::annotation)]
    annotations: Vec<(String, String)>,

    /// Annotations from a JSON file: objects by title, `$manifest` and `$config`
    #[arg(long, value_name = "FILE")]
    annotation_file: Option<PathBuf>,

    /// Config of the artifact, optionally with its media type
    #[arg(long, value_name = "FILE[:TYPE]")]
    artifact_config: Option<PathBuf>,

    /// Platform of an image, os/arch[/variant] [default: this machine's]
    #[arg(long, visible_alias = "artifact-platform", value_name = "PLATFORM", env = "OCIFS_PLATFORM", hide_env = true)]
    platform: Option<Platform>,

    /// Version of the manifest format
    #[arg(long, value_name = "VERSION", value_enum, default_value_t)]
    image_spec: Spec,

    /// Tag or digest of the subject, in the same repository
    #[arg(long, value_name = "TAG|DIGEST")]
    subject: Option<String>,

    /// Also write the manifest to this file
    #[arg(long, value_name = "FILE")]
    export_manifest: Option<PathBuf>,

    /// Owner and group of everything [default: those of the files]
    #[arg(long, value_name = "UID[:GID]", value_parser = inputs::owner)]
    owner: Option<(u32, u32)>,

    /// Show what would happen; send nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Publish files of encrypted artifacts unencrypted; refused without this flag
    #[arg(long)]
    plaintext: bool,

    /// Also publish files ignored by default (editor and system temporary files) or by `.ocifsignore`
    #[arg(long)]
    no_ignore: bool,

    /// Do not attach layer indexes as referrers to images and oci-sync artifacts; readers build their own
    #[arg(long)]
    no_index: bool,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How the registry is reached.
    #[command(flatten)]
    reaching: Reaching,
}

const EXAMPLES: &str = "\
Examples:
  ocifs push reg.io/team/app:v1,latest -C build .      what is in build
  ocifs push reg.io/team/model:v1 model.bin README.md  two files
  ocifs push reg.io/team/app:v1 --as-kind image -C rootfs .
  tar c data | ocifs push reg.io/team/backup:monday --title data.tar -";

/// `--as-kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Titled layers, reused between versions and read lazily; `oras pull` gets the same files
    #[default]
    Files,
    /// A single-layer container image
    Image,
    /// One archive in oci-sync's format, encrypted if there is a passphrase
    OciSync,
    /// As `oras push`: one layer per named path
    Oras,
}

/// `--image-spec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Spec {
    /// The artifact type is the config's media type
    #[value(name = "v1.0")]
    V1_0,
    /// The artifact type is a field of its own
    #[default]
    #[value(name = "v1.1")]
    V1_1,
}

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    /// Every reference that names the artifact.
    references: Vec<String>,
    digest: String,
    media_type: String,
    artifact_type: Option<String>,
    size: u64,
    /// The digest the first tag held before.
    before: Option<String>,
    /// Bytes and blobs.
    sent: (u64, u64),
    /// Bytes and blobs that the registry already had.
    reused: (u64, u64),
    /// Files left out: ignored, or not representable in an archive.
    ignored: u64,
    notes: Vec<String>,
    dry_run: bool,
}

impl Push {
    /// Runs the command.
    ///
    /// # Errors
    /// A file cannot be read or the artifact cannot be pushed. No tag is set on an incomplete artifact.
    pub fn run(mut self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let text = self.take_reference();
        let (text, others) = reference::split_tags(&text)?;
        let source = reference::parse(text, environment)?;
        let tags = tags(&source, &others)?;
        let origins = invocation.origins(&self.reaching.keys);
        let storage = self.reaching.storage.clone().for_command(environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let passphrases = passphrases::read_all(&origins)?;
        let encrypted = !passphrases.is_empty();
        let content = ContentFlags { platform: self.platform.clone(), ..ContentFlags::default() };
        let (pushed, references) = resumable(
            async {
                let reading = Reading { begins: true, passphrases, ..Reading::of(&content) };
                let push = wiring::destination(&source, &flags, environment)?;
                let parts = wiring::over(push, &source, reading, &flags, &storage)?;
                let packs = pushing::packs(&storage, &format!("push {source} {self:?}")).await?;
                let wanted = self.pushing(&source, tags, &parts, &packs).await?;
                let publisher = pushing::publisher(&source, &parts, encrypted, !self.no_index);
                let pushed = publisher.push(&wanted, &pushing::listener(self.how.output.quiet)).await?;
                parts.push.finish().await?;
                parts.artifacts.flush().await;
                packs.finish();
                let references = reference::all(&source, &wanted.tags, pushed.manifest.digest);
                Ok((pushed, references))
            },
            "no tag was set; run the same push again to resume",
        )?;
        pushing::export(self.export_manifest.as_deref(), &pushed.manifest.raw)?;
        if let (Some(reference), false) = (references.first(), self.dry_run) {
            let place = self.directory.as_ref().or(self.local.first()).or(self.paths.first());
            let place = place.filter(|place| place.as_os_str() != "-").and_then(|place| history::place(place));
            history::add(Done::now("push", reference, place, pushed.manifest.digest), environment);
        }
        self.print(&row(references, pushed, self.dry_run))
    }

    /// The reference; with `--remote`, the first argument becomes a path.
    fn take_reference(&mut self) -> String {
        match self.remote.clone() {
            None => self.reference.clone().unwrap_or_default(),
            Some(remote) => {
                self.paths.splice(0..0, self.reference.take().map(PathBuf::from));
                remote
            }
        }
    }

    async fn pushing(&self, source: &Source, tags: Vec<Tag>, parts: &Parts, packs: &Packs) -> Result<Pushing, Failure> {
        let repository = reference::repository(source)?;
        let kind = match self.as_kind {
            Kind::Files => NewKind::Editable(ArtifactKind::Files),
            Kind::Image => NewKind::Editable(ArtifactKind::Image),
            Kind::OciSync => NewKind::Editable(ArtifactKind::OciSync),
            Kind::Oras => NewKind::Oras,
        };
        let (given, naming) = (self.given(packs), inputs::Naming::of(kind));
        let inputs = blocking(move || inputs::find(given, naming)).await?;
        let source_date = inputs::source_date()?;
        let mut metadata = self.metadata(source_date)?;
        if let Some(subject) = &self.subject {
            metadata.subject = Some(self.subject(subject, parts, &repository).await?);
        }
        Ok(Pushing {
            repository,
            tags,
            inputs,
            kind,
            metadata,
            owner: self.owner,
            newest: source_date,
            packs: packs.directory().to_path_buf(),
            concurrency: self.how.concurrency.get(),
            dry_run: self.dry_run,
            plaintext: self.plaintext,
            no_ignore: self.no_ignore,
        })
    }

    fn given(&self, packs: &Packs) -> inputs::Given {
        inputs::Given {
            paths: self.paths.iter().chain(&self.local).cloned().collect(),
            directory: self.directory.clone(),
            title: self.title.clone(),
            scratch: packs.directory().to_path_buf(),
        }
    }

    fn metadata(&self, source_date: Option<i64>) -> Result<Metadata, Failure> {
        let mut metadata = pushing::dated(pushing::annotated(self.annotation_file.as_deref(), &self.annotations)?, source_date);
        metadata.artifact_type.clone_from(&self.artifact_type);
        metadata.config = self.artifact_config.as_deref().map(inputs::config).transpose()?;
        metadata.image_spec = match self.image_spec {
            Spec::V1_0 => ImageSpec::V1_0,
            Spec::V1_1 => ImageSpec::V1_1,
        };
        Ok(metadata)
    }

    async fn subject(&self, subject: &str, parts: &Parts, repository: &Repository) -> Result<Descriptor, Failure> {
        let manifest = parts.pull.manifest(repository, &Version::parse(subject)?).await?;
        Ok(manifest.descriptor())
    }

    fn print(&self, row: &Row) -> Result<(), Failure> {
        self.how.output.show(row, text)
    }
}

/// The tags to set. There is no default tag.
fn tags(source: &Source, others: &[Tag]) -> Result<Vec<Tag>, Failure> {
    match reference::version(source) {
        None => Err(Failure::usage(format!("{source} has no tag; write {source}:TAG"))),
        Some(_) => reference::tags_to_set(source, others, "push"),
    }
}

fn row(references: Vec<String>, pushed: Pushed, dry_run: bool) -> Row {
    let Pushed { report, manifest } = pushed;
    Row {
        references,
        digest: manifest.digest.to_string(),
        media_type: manifest.media_type.clone(),
        artifact_type: manifest.artifact_type().map(str::to_owned),
        size: manifest.raw.len() as u64,
        before: report.before().map(str::to_owned),
        sent: report.sent,
        reused: report.reused,
        ignored: report.ignored,
        notes: report.notes,
        dry_run,
    }
}

fn text(row: &Row) -> String {
    let references: Vec<String> = row.references.iter().map(|reference| escape::terminal(reference).into_owned()).collect();
    let done = if row.dry_run { "would push" } else { "pushed" };
    let mut lines = vec![format!("{done} {}", references.join(", ")), format!("  digest {}", row.digest)];
    if !row.dry_run {
        lines.push(format!("  {}", units::show_sent(row.sent, row.reused)));
    }
    if row.ignored > 0 {
        lines.push(format!("  {} ignored (--no-ignore includes them)", units::show_count(row.ignored, "file")));
    }
    lines.join("\n")
}
