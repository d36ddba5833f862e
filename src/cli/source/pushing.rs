//! Shared by the commands that build artifacts: the publisher, progress, the directory for packed layers, annotations.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::wiring::{self, Parts};
use super::{inputs, root};
use crate::cli::exit::{Code, Failure};
use crate::cli::output_file::Destination;
use crate::cli::runtime::blocking;
use crate::cli::settings::flags::{Concurrency, Storage, WriteFlags};
use crate::cli::terminal::progress::Progress;
use crate::oci::{Descriptor, Manifest, Repository, Source, Tag, Version};
use crate::publish::{ArtifactKind, Listener, Metadata, Packs, Publisher, Sizes};
use crate::registry::Push;
use crate::transfer;
use crate::view::Context;

/// Longest time between another writer's read of the referrers list and its own write, which would drop our entry.
const SETTLED: Duration = Duration::from_millis(300);

/// The publisher for a source. `encrypted`: there is a passphrase.
pub fn publisher(source: &Source, parts: &Parts, encrypted: bool, attach_index: bool) -> Publisher {
    let meaning = wiring::meaning(parts, &WriteFlags::default(), encrypted);
    let context = Context {
        artifacts: parts.artifacts.clone(),
        meaning,
        defaults: root::defaults(Duration::ZERO),
        authority: root::authority(source),
        tag_ttl: parts.artifacts.options().tag_ttl,
        staging: None,
    };
    Publisher {
        context: Arc::new(context),
        push: Arc::clone(&parts.push),
        kind: ArtifactKind::Files,
        concurrency: Concurrency::DEFAULT,
        sizes: Sizes::default(),
        attach_index,
        identities: Arc::default(),
    }
}

/// Shows progress, or nothing.
pub fn listener(quiet: bool) -> Listener {
    if quiet {
        return Arc::new(|_| {});
    }
    let progress = Mutex::new(Progress::new());
    Arc::new(move |event| progress.lock().show(&event))
}

/// The directory for a command's packed layers. `command` and the working directory distinguish it from others.
///
/// # Errors
/// No state directory is known, or another process runs the same command.
pub async fn packs(storage: &Storage, command: &str) -> Result<Packs, Failure> {
    let state = storage.state_dir.clone().ok_or_else(|| Failure::usage("no state directory is known; give --state-dir"))?;
    let subject = format!("{command} {:?}", std::env::current_dir().unwrap_or_default());
    blocking(move || Ok(Packs::claim(&state.join("push"), &subject)?)).await
}

/// The annotations in a file, overridden by those on the command line.
///
/// # Errors
/// The annotation file cannot be read.
pub fn annotated(file: Option<&Path>, annotations: &[(String, String)]) -> Result<Metadata, Failure> {
    let mut metadata = file.map(inputs::annotation_file).transpose()?.unwrap_or_default();
    metadata.annotations.extend(annotations.iter().cloned());
    Ok(metadata)
}

/// Adds the source date, unless the user set another.
pub fn dated(mut metadata: Metadata, source_date: Option<i64>) -> Metadata {
    if let Some((name, time)) = source_date.and_then(inputs::created) {
        metadata.annotations.entry(name).or_insert(time);
    }
    metadata
}

/// Links a referrer, and keeps it in the list of a registry that has the list as a tag: a writer that read it before our entry was there may have
/// overwritten it by now; if so, the entry is added again.
///
/// # Errors
/// Errors of the registry.
pub async fn keep_listed(push: &dyn Push, repository: &Repository, subject: &Descriptor, referrer: &Descriptor) -> Result<(), Failure> {
    push.link_referrer(repository, &subject.digest, referrer).await?;
    let list = Version::Tag(Tag::parse(&subject.digest.path_name())?);
    if push.resolve(repository, &list).await.is_ok() {
        tokio::time::sleep(SETTLED).await;
        push.link_referrer(repository, &subject.digest, referrer).await?;
    }
    Ok(())
}

/// Checks immediately before a write that a version still names the manifest that was edited: registries have no compare-and-swap.
///
/// # Errors
/// Conflict if it moved.
pub async fn unmoved(to: &transfer::Destination, source: &Source, version: &Version, before: &Manifest) -> Result<(), Failure> {
    let now = to.push.resolve(&to.repository, version).await?.digest;
    match now == before.digest {
        true => Ok(()),
        false => Err(Failure::new(Code::Conflict, format!("{source} moved from {} to {now} meanwhile", before.digest))),
    }
}

/// Writes a manifest to the `--export-manifest` file.
///
/// # Errors
/// It cannot be written.
pub fn export(path: Option<&Path>, manifest: &Bytes) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let mut destination = Destination::new(Some(path))?;
    destination.write(manifest)?;
    destination.finish()
}
