//! `ocifs blob`: raw blobs, verified in transit.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::exit::{Code, Failure};
use crate::cli::output_file::Destination;
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::flags::{QueryFlags, RegistryFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{inputs, reference, wiring};
use crate::cli::terminal::{escape, output, prompt};
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Repository, Source, Version, document, media_type};
use crate::registry::{BlobPlacer, FileSource, Placed, Pull, Push};
use crate::transfer::{self, RemoteBlob};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Get, put and delete raw blobs
#[derive(Args, Clone, Debug)]
pub struct Blob {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Write a blob to standard output or a file
    #[command(visible_alias = "fetch")]
    Get(Get),
    /// Upload a file as a blob
    #[command(visible_alias = "push")]
    Put(Put),
    /// Delete a blob
    #[command(visible_aliases = ["delete", "remove"])]
    Rm(Rm),
}

/// Flags of `get`.
#[derive(Args, Clone, Debug)]
struct Get {
    /// repository@digest, oci:DIRECTORY@digest or oci-archive:FILE@digest
    #[arg(value_name = "REF")]
    reference: String,

    /// Print the descriptor instead: media type, digest and size
    #[arg(long)]
    descriptor: bool,

    /// Write to this file; `-` is standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "descriptor")]
    output: Option<PathBuf>,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// Flags of `put`.
#[derive(Args, Clone, Debug)]
struct Put {
    /// repository[@digest] or oci:DIRECTORY[@digest]
    #[arg(value_name = "REF")]
    reference: String,

    /// The content; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Refuse content of any other size, in bytes
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,

    /// Media type of the printed descriptor
    #[arg(long, value_name = "TYPE", default_value = media_type::OCTET_STREAM)]
    media_type: String,

    /// Print the descriptor
    #[arg(long)]
    descriptor: bool,

    /// Format and registry.
    #[command(flatten)]
    query: QueryFlags,
}

/// Flags of `rm`.
#[derive(Args, Clone, Debug)]
struct Rm {
    /// repository@digest or oci:DIRECTORY@digest
    #[arg(value_name = "REF")]
    reference: String,

    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// Do not ask for confirmation, and ignore a missing blob
    #[arg(short, long)]
    force: bool,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// The output of `put`. Its keys are stable.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: String,
    size: u64,
    /// False if the registry already had the blob.
    sent: bool,
}

impl Blob {
    /// Runs the command.
    ///
    /// # Errors
    /// The blob does not exist, its bytes do not match its digest, or the registry refuses.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Get(flags) => flags.run(&invocation),
            Action::Put(flags) => flags.run(&invocation),
            Action::Rm(flags) => flags.run(&invocation),
        }
    }
}

/// Parses a reference that must name a blob by digest.
fn named(text: &str, invocation: &Invocation) -> Result<(Source, Repository, Digest), Failure> {
    let source = reference::parse(text, &invocation.environment)?;
    let wanted = || Failure::usage(format!("{source} does not name a blob; write {}@sha256:…", reference::without_version(&source)));
    let digest = reference::digest(&source).ok_or_else(wanted)?;
    Ok((source.clone(), reference::repository(&source)?, digest))
}

fn open(source: &Source, flags: &Invocation) -> Result<Arc<dyn Push>, Failure> {
    wiring::registry(source, false, &flags.registry(reference::registry(source))?, &flags.environment)
}

impl Get {
    fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (source, repository, digest) = named(&self.reference, invocation)?;
        let flags = invocation.registry(reference::registry(&source))?;
        let pull = wiring::readable(&source, &flags, &invocation.environment)?;
        let mut destination = (!self.descriptor).then(|| Destination::new(self.output.as_deref())).transpose()?;
        if destination.as_ref().is_some_and(Destination::is_terminal) {
            return Err(Failure::usage("refusing to write a blob to a terminal; use -o FILE or a pipe"));
        }
        until_interrupted(async {
            let size = match pull.blob_size(&repository, &digest).await {
                Err(error) if error.kind == ErrorKind::NotFound => {
                    return Err(absent(&source, pull.as_ref(), &repository, digest, error).await);
                }
                size => size?,
            };
            let descriptor = Descriptor::new(media_type::OCTET_STREAM, digest, size);
            let Some(mut destination) = destination.take() else {
                return output::line(&document::text(&document::descriptor(&descriptor)));
            };
            let from = transfer::Source { pull, repository };
            loop {
                let blob = RemoteBlob::new(from.clone(), descriptor.clone());
                match write(&blob, size, &mut destination).await {
                    // A mirror lied: the next place is asked.
                    Err(_) if blob.is_elsewhere() && destination.restart()? => {}
                    written => break written?,
                }
            }
            destination.finish()
        })
    }
}

/// Writes a blob until its end, or until the reader closes the output.
async fn write(blob: &RemoteBlob, size: u64, destination: &mut Destination) -> Result<(), Failure> {
    let mut offset = 0;
    while offset < size {
        // The last piece arrives only after the digest has been verified.
        let piece = blob.piece(offset, PIECE).await?;
        if piece.is_empty() {
            return Err(Failure::other(format!("the blob ends after {offset} of {size} bytes")));
        }
        offset += piece.len() as u64;
        if !destination.write(&piece)? {
            break;
        }
    }
    Ok(())
}

/// Explains that there is no such blob: it may be a manifest.
async fn absent(source: &Source, pull: &dyn Pull, repository: &Repository, digest: Digest, error: Error) -> Failure {
    match pull.resolve(repository, &Version::Digest(digest)).await {
        Ok(_) => {
            let shown = escape::terminal(&source.to_string()).into_owned();
            Failure::new(Code::NotFound, format!("{digest} is a manifest, not a blob; `ocifs manifest get {shown}` prints it"))
        }
        Err(_) => error.into(),
    }
}

impl Put {
    fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let to = reference::parse(&self.reference, environment)?;
        if matches!(reference::version(&to), Some(Version::Tag(_))) {
            return Err(Failure::usage(format!("{to} names a tag, but blobs have no tags; write {}", reference::without_version(&to))));
        }
        let repository = reference::repository(&to)?;
        let push = wiring::destination(&to, &invocation.registry(reference::registry(&to))?, environment)?;
        let wanted = reference::digest(&to);
        let report = until_interrupted(async {
            let (path, expected) = (self.file.clone(), (wanted, self.size));
            let (file, digest, size) = blocking(move || content(&path, expected)).await?;
            let descriptor = Descriptor::new(self.media_type.clone(), digest, size);
            let placer = BlobPlacer::new(Arc::clone(&push), repository, std::num::NonZeroUsize::MIN);
            let placed = placer
                .place(&descriptor, None, || {
                    let uploaded: crate::registry::Uploaded = Arc::new(|_| {});
                    Ok::<_, Failure>((Arc::new(FileSource::new(file, size)) as Arc<dyn crate::registry::UploadSource>, uploaded))
                })
                .await?;
            push.finish().await?;
            let reference = reference::with_version(&to, &Version::Digest(digest));
            Ok((Report { reference, digest: digest.to_string(), size, sent: placed == Some(Placed::Uploaded) }, descriptor))
        })?;
        let (report, descriptor) = report;
        match self.descriptor {
            true => output::line(&escape::json(&document::text(&document::descriptor(&descriptor)))),
            false => output::show(self.query.format, &report, |report| escape::terminal(&report.reference).into_owned()),
        }
    }
}

/// Opens and hashes the content, and compares it with the expected digest and size. Standard input is spooled to an unnamed file.
fn content(path: &Path, (digest, size): (Option<Digest>, Option<u64>)) -> Result<(File, Digest, u64), Failure> {
    let failed = |error: io::Error| inputs::unreadable(path, &error);
    let mut file = match path == Path::new(inputs::STDIN) {
        true => tempfile::tempfile().and_then(|mut file| {
            io::copy(&mut io::stdin().lock(), &mut file)?;
            file.flush()?;
            file.rewind()?;
            Ok(file)
        }),
        false => File::open(path),
    }
    .map_err(failed)?;
    let mut hasher = Hasher::new(digest.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
    let (mut piece, mut length) = (vec![0; PIECE], 0);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(piece.get(..read).unwrap_or_default());
        length += read as u64;
    }
    let (found, shown) = (hasher.finish(), escape::path(path));
    match (digest, size) {
        (Some(digest), _) if digest != found => Err(Failure::usage(format!("{shown} has digest {found}, not {digest}"))),
        (_, Some(size)) if size != length => Err(Failure::usage(format!("{shown} has {length} bytes, not {size}"))),
        _ => Ok((file, found, length)),
    }
}

impl Rm {
    fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (source, repository, digest) = named(&self.reference, invocation)?;
        let push = open(&source, invocation)?;
        let shown = escape::terminal(&source.to_string()).into_owned();
        if !self.yes && !self.force {
            prompt::needs_terminal(&format!("delete blob {shown}"))?;
            if !prompt::confirm(&format!("Delete blob {shown}, even if manifests refer to it?"))? {
                return Err(Failure::other(format!("{shown} was not deleted")));
            }
        }
        let deleted = until_interrupted(async { Ok(push.delete_blob(&repository, &digest).await?) });
        match deleted {
            Err(failure) if self.force && failure.code == Code::NotFound => Ok(()),
            Err(failure) => Err(failure),
            Ok(()) => output::line(&format!("deleted {shown}")),
        }
    }
}
