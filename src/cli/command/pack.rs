//! `ocifs pack` and `ocifs unpack`: builds an artifact from a Pack file, and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use clap::{Arg, Args};
use serde::Serialize;

use crate::cli::copies;
use crate::cli::exit::Failure;
use crate::cli::history::{self, Done};
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::environment;
use crate::cli::settings::flags::{RegistryFlags, Storage, Transferring};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{inputs, opened, pushing, reference, wiring};
use crate::cli::terminal::bar::Bar;
use crate::cli::terminal::{escape, message, units};
use crate::error::Error;
use crate::oci::{LayoutForm, Platform, Registry, Version};
use crate::publish::Packs;
use crate::recipe::{self, ArtifactSource, Gatherer, PackFile, PackTarget, Unpacked};
use crate::registry::Objects;
use crate::transfer::{self, Destination, Tally};

/// Prefix of the environment variables that configure S3.
const S3_VARIABLES: &str = "AWS_";

/// Build an artifact or index from a Pack file
#[derive(Args, Clone, Debug)]
#[command(after_help = PACK_FILE, mut_arg("concurrency", in_items))]
pub struct Pack {
    /// repository[:tag[,tag]…], oci:DIRECTORY[:tag…] or oci-archive:FILE[:tag…]
    #[arg(value_name = "DST")]
    destination: String,

    /// Pack file; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Resolve paths in the Pack file from here [default: the working directory]
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Annotation of the manifest or index, NAME=VALUE; overrides the Pack file; repeatable
    #[arg(short, long = "annotation", value_name = "NAME=VALUE", value_parser = inputs::annotation)]
    annotations: Vec<(String, String)>,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,

    /// Where fetched files are kept until they are sent.
    #[command(flatten)]
    storage: Storage,
}

/// Unpack an artifact into files and a Pack file that packs to the same digest
#[derive(Args, Clone, Debug)]
#[command(mut_arg("concurrency", in_items))]
pub struct Unpack {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// A new or empty directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Unpack only this member of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// The flag `--concurrency`, which also counts items.
fn in_items(concurrency: Arg) -> Arg {
    concurrency.help("Items read, and blobs transferred, at a time [default: 4]").short('j').visible_alias("parallel")
}

const PACK_FILE: &str = "\
A Pack file:
  type: application/vnd.acme.bundle     # of the artifact
  annotations: {team: blue}
  config: {from: file:config.json, type: application/vnd.acme.config+json}
  items:
    - from: file:bin/tool               # a layer; its media type follows from its name
    - from: dir:docs                    # a layer for each file
    - from: https://example.org/a.tgz   # also s3://BUCKET/KEY, with the AWS_… variables
      sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
      mediaType: application/vnd.acme.data
If an item has a `platform` (linux/arm64) or is an artifact (cr://REPOSITORY:TAG, oci:DIRECTORY:TAG),
the items become the members of an index, and each may have its own `config`.";

/// The output of `pack`. Its keys are stable.
#[derive(Debug, Serialize)]
struct PackReport {
    references: Vec<String>,
    digest: String,
    media_type: String,
    /// Bytes and blobs.
    sent: (u64, u64),
    /// Bytes and blobs that the registry already had.
    reused: (u64, u64),
}

/// The output of `unpack`. Its keys are stable.
#[derive(Debug, Serialize)]
struct UnpackReport {
    reference: String,
    digest: String,
    directory: String,
    files: usize,
    members: usize,
    /// Whether the Pack file packs to this digest again.
    reproducible: bool,
}

impl Pack {
    /// Runs the command.
    ///
    /// # Errors
    /// The Pack file is invalid, a source cannot be read or fetched, or the registry refuses a write. No tag is set on an incomplete artifact.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let (text, others) = reference::split_tags(&self.destination)?;
        let to = reference::parse(text, environment)?;
        let tags = reference::tags_to_set(&to, &others, "pack")?;
        let flags = invocation.registry(reference::registry(&to))?;
        let storage = self.storage.clone().with_directories(environment)?;
        let base = environment.absolute(self.directory.as_deref().unwrap_or(Path::new(".")), None)?;
        let push = wiring::destination(&to, &flags, environment)?;
        let destination = Destination { push, repository: reference::repository(&to)? };
        let target = PackTarget { destination, tags: tags.clone(), concurrency: self.how.concurrency.get() };
        let finder = Finder { invocation: &invocation, base: base.clone(), destination: reference::registry(&to).cloned() };
        let report = until_interrupted(async {
            let pack_file = self.read().await?;
            let packs = pushing::packs(&storage, &format!("pack {to} {:?} {base:?}", self.file)).await?;
            let gatherer = Arc::new(gatherer(base.clone(), &packs, &flags, &invocation));
            let tally: Arc<Tally> = Arc::default();
            let shown = Arc::clone(&tally);
            let _bar = Bar::new(self.how.output.quiet, move || copies::figures("packing", &shown));
            let packed = recipe::pack(&pack_file, &gatherer, &finder, &target, Arc::clone(&tally)).await?;
            packs.finish();
            Ok::<_, Failure>(PackReport {
                references: reference::all(&to, &tags, packed.digest),
                digest: packed.digest.to_string(),
                media_type: packed.media_type,
                sent: tally.sent(),
                reused: tally.reused(),
            })
        })?;
        let place = Some(self.file.as_path()).filter(|file| *file != Path::new(inputs::STDIN)).and_then(history::place);
        for reference in &report.references {
            history::add(Done::now("pack", reference, place.clone(), &report.digest), environment);
        }
        self.how.output.show(&report, PackReport::text)
    }

    async fn read(&self) -> Result<PackFile, Failure> {
        let file = self.file.clone();
        let bytes = blocking(move || inputs::small(&file)).await?;
        let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is not UTF-8", escape::path(&self.file))))?;
        let mut pack_file = PackFile::parse(&text).map_err(|error| Failure::from(error).context(escape::path(&self.file)))?;
        pack_file.annotations.extend(self.annotations.iter().cloned());
        if let Some((name, time)) = inputs::source_date()?.and_then(inputs::created) {
            pack_file.annotations.entry(name).or_insert(time);
        }
        Ok(pack_file)
    }
}

impl Unpack {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact cannot be read, or the directory is not empty. The directory is left unchanged.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let directory = invocation.environment.absolute(&self.directory, None)?;
        let (source, pull) = opened::to_read(&self.reference, &invocation)?;
        let report = until_interrupted(async {
            let (repository, version) = reference::named(&source, pull.as_ref()).await?;
            let from = transfer::Source { pull, repository };
            let whole = from.manifest(&version, self.platform.as_ref()).await?;
            let Unpacked { files, members, is_same } = recipe::unpack(&from, &whole, &directory, self.how.concurrency.get()).await?;
            Ok::<_, Failure>(UnpackReport {
                reference: reference::with_version(&source, &Version::Digest(whole.digest)),
                digest: whole.digest.to_string(),
                directory: directory.display().to_string(),
                files,
                members,
                reproducible: is_same,
            })
        })?;
        if !report.reproducible {
            message::warn("another tool wrote this artifact in its own form: packing it again gives the same content with another digest");
        }
        self.how.output.show(&report, UnpackReport::text)
    }
}

impl PackReport {
    fn text(&self) -> String {
        let references: Vec<_> = self.references.iter().map(|reference| escape::terminal(reference)).collect();
        format!("packed {}\n  digest {}\n  {}", references.join(", "), self.digest, units::show_sent(self.sent, self.reused))
    }
}

impl UnpackReport {
    fn text(&self) -> String {
        let directory = escape::terminal(&self.directory);
        let members = if self.members == 0 { String::new() } else { format!(" and {}", units::show_count(self.members, "member")) };
        {
            let files = units::show_count(self.files, "file");
            format!("{directory}: {files}{members}\nto pack them again: ocifs pack -C {directory} -f {directory}/pack.yaml DST")
        }
    }
}

fn gatherer(base: PathBuf, packs: &Packs, flags: &RegistryFlags, invocation: &Invocation) -> Gatherer {
    Gatherer {
        base,
        scratch: packs.directory().to_path_buf(),
        web: wiring::web_files(flags, &invocation.environment),
        objects: Objects::new(environment::with_prefix(S3_VARIABLES), flags.transport.io_timeout.unwrap_or(wiring::IO_TIMEOUT)),
    }
}

/// Resolves the artifacts that a Pack file names. Each registry is reached as if it were named on the command line, without the
/// credentials typed for the destination.
struct Finder<'a> {
    invocation: &'a Invocation,
    base: PathBuf,
    /// The registry that typed credentials and headers belong to.
    destination: Option<Registry>,
}

impl Finder<'_> {
    async fn found(&self, text: &str) -> Result<(transfer::Source, Version), Failure> {
        let environment = &self.invocation.environment;
        let text = match LayoutForm::of_text(text) {
            Some((form, rest)) if !rest.starts_with(['/', '~']) => format!("{}{}", form.scheme(), self.base.join(rest).display()),
            _ => text.to_owned(),
        };
        let source = reference::written(&text, environment)?;
        let mut flags = self.invocation.registry(reference::registry(&source))?;
        if reference::registry(&source) != self.destination.as_ref() {
            flags.login.credential = None;
            if self.invocation.is_given("headers") {
                flags.connection.headers.clear();
            }
        }
        let pull = wiring::readable(&source, &flags, environment)?;
        let (repository, version) = reference::named(&source, pull.as_ref()).await?;
        Ok((transfer::Source { pull, repository }, version))
    }
}

#[async_trait]
impl ArtifactSource for Finder<'_> {
    async fn find(&self, reference: &str) -> Result<(transfer::Source, Version), Error> {
        self.found(reference).await.map_err(|failure| Error::new(failure.code.into(), failure.message))
    }
}
