//! `ocifs attach`: attaches files or annotations to an artifact as a referrer.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::history::{self, Done};
use crate::cli::runtime::{blocking, resumable};
use crate::cli::settings::flags::{ContentFlags, Reaching, Transferring};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::cli::source::{inputs, pushing, reference};
use crate::cli::terminal::escape;
use crate::oci::{Descriptor, Platform, Repository, Source, Version};
use crate::publish::{Metadata, NewKind, Packs, Pushing};
use crate::transfer;

/// Attach files or annotations to an artifact: signatures, SBOMs, notes; `discover` finds them
///
/// A file becomes a layer under the name given, a directory one archive, as `oras attach` makes them. No tag is created.
#[derive(Args, Clone, Debug)]
pub struct Attach {
    /// The artifact to attach to: repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Files and directories, each optionally with the media type of its layer; `-` reads standard input
    #[arg(value_name = "PATH[:TYPE]")]
    paths: Vec<PathBuf>,

    /// Artifact type of the attachment, like application/spdx+json
    #[arg(long, value_name = "TYPE")]
    artifact_type: String,

    /// An annotation of the manifest; repeatable
    #[arg(short, long = "annotation", value_name = "NAME=VALUE", value_parser = inputs::annotation)]
    annotations: Vec<(String, String)>,

    /// Annotations from a JSON file: objects by title, `$manifest` and `$config`
    #[arg(long, value_name = "FILE")]
    annotation_file: Option<PathBuf>,

    /// Attach to this member of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Paths are relative to this directory
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Title of the layer read from standard input
    #[arg(long, value_name = "NAME")]
    title: Option<String>,

    /// Also write the manifest to this file
    #[arg(long, value_name = "FILE")]
    export_manifest: Option<PathBuf>,

    /// Publish files of encrypted artifacts unencrypted; refused without this flag
    #[arg(long)]
    plaintext: bool,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How the registry is reached.
    #[command(flatten)]
    reaching: Reaching,
}

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    /// The attached manifest, by digest.
    reference: String,
    /// The subject, by digest.
    subject: String,
    digest: String,
    media_type: String,
    artifact_type: String,
    size: u64,
}

impl Attach {
    /// Runs the command.
    ///
    /// # Errors
    /// A file cannot be read, the artifact does not exist, or the registry refuses the push.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(&self.reference, environment)?;
        let metadata = pushing::annotated(self.annotation_file.as_deref(), &self.annotations)?;
        if self.paths.is_empty() && metadata.annotations.is_empty() {
            return Err(Failure::usage("nothing to attach; name files, or give annotations with -a"));
        }
        let storage = self.reaching.storage.clone().for_command(environment)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let content = ContentFlags::default();
        let (pushed, subject) = resumable(
            async {
                let reading = Reading::of(&content);
                let parts = wiring::build(&source, reading, &flags, &storage, environment)?;
                let (repository, subject) = self.subject(&source, &parts).await?;
                let packs = pushing::packs(&storage, &format!("attach {source} {self:?}")).await?;
                let metadata = Metadata { artifact_type: Some(self.artifact_type.clone()), subject: Some(subject.clone()), ..metadata };
                let wanted = self.pushing(repository.clone(), metadata, &packs).await?;
                let publisher = pushing::publisher(&source, &parts, false, false);
                let pushed = publisher.push(&wanted, &pushing::listener(self.how.output.quiet)).await?;
                packs.finish();
                pushing::keep_listed(&*parts.push, &repository, &subject, &pushed.manifest.descriptor()).await?;
                parts.artifacts.flush().await;
                Ok((pushed, subject))
            },
            "nothing was attached",
        )?;
        let manifest = &pushed.manifest;
        pushing::export(self.export_manifest.as_deref(), &manifest.raw)?;
        let by_digest = |digest| reference::with_version(&source, &Version::Digest(digest));
        let report = Report {
            reference: by_digest(manifest.digest),
            subject: by_digest(subject.digest),
            digest: manifest.digest.to_string(),
            media_type: manifest.media_type.clone(),
            artifact_type: self.artifact_type.clone(),
            size: manifest.raw.len() as u64,
        };
        history::add(Done::now("attach", &report.reference, None, manifest.digest), environment);
        self.how.output.show(&report, text)
    }

    /// Resolves the manifest to attach to, as the registry itself knows it.
    async fn subject(&self, source: &Source, parts: &Parts) -> Result<(Repository, Descriptor), Failure> {
        let (repository, version) = reference::named(source, parts.push.as_ref()).await?;
        let from = transfer::Source { pull: parts.push.clone(), repository };
        let manifest = from.manifest(&version, self.platform.as_ref()).await?;
        Ok((from.repository, manifest.descriptor()))
    }

    async fn pushing(&self, repository: Repository, metadata: Metadata, packs: &Packs) -> Result<Pushing, Failure> {
        let given = inputs::Given {
            paths: self.paths.clone(),
            directory: self.directory.clone(),
            title: self.title.clone(),
            scratch: packs.directory().to_path_buf(),
        };
        let inputs = blocking(move || inputs::find(given, inputs::Naming::AsGiven)).await?;
        let source_date = inputs::source_date()?;
        Ok(Pushing {
            repository,
            tags: Vec::new(),
            inputs,
            kind: NewKind::Oras,
            metadata: pushing::dated(metadata, source_date),
            owner: None,
            newest: source_date,
            packs: packs.directory().to_path_buf(),
            concurrency: self.how.concurrency.get(),
            dry_run: false,
            plaintext: self.plaintext,
            no_ignore: true,
        })
    }
}

fn text(report: &Report) -> String {
    format!("{}\n  refers to {}", escape::terminal(&report.reference), escape::terminal(&report.subject))
}
