//! Packs: from a Pack file to an artifact in a registry. All content is known before anything is sent; blobs go before manifests, tags last.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;

use super::gather::{self, Gathered, Gatherer};
use super::manifest;
use super::on_disk;
use super::pack_file::{PackConfig, PackFile, PackItem, PackSource};
use crate::blocking::blocking;
use crate::error::Error;
use crate::oci::document::EMPTY;
use crate::oci::{Descriptor, Digest, Manifest, Tag, Version, media_type};
use crate::registry::{BlobPlacer, FileSource, UploadSource, Uploaded};
use crate::transfer::{self, Copier, Destination, Options, Tally};

/// Resolves the artifacts that a Pack file names.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// The location of an artifact, from its reference.
    ///
    /// # Errors
    /// The reference is invalid, or its registry or layout cannot be opened.
    async fn find(&self, reference: &str) -> Result<(transfer::Source, Version), Error>;
}

/// The destination of a pack.
#[derive(Clone)]
pub struct PackTarget {
    /// The repository.
    pub destination: Destination,
    /// Tags to set; empty to push by digest only.
    pub tags: Vec<Tag>,
    /// Items read, and blobs sent, in parallel.
    pub concurrency: NonZeroUsize,
}

/// Packs. `tally` reports progress.
///
/// # Errors
/// Prefixed with the item, if one is at fault. No manifest is put before all its blobs are there, and no tag on an incomplete artifact.
pub async fn pack(
    file: &PackFile,
    gatherer: &Arc<Gatherer>,
    artifacts: &dyn ArtifactSource,
    target: &PackTarget,
    tally: Arc<Tally>,
) -> Result<Manifest, Error> {
    let Destination { push, repository } = &target.destination;
    let gathered = gather::all(gatherer, &file.items, target.concurrency.get()).await?;
    let placer = BlobPlacer::new(Arc::clone(push), repository.clone(), target.concurrency);
    let packing = Packing { base: &gatherer.base, artifacts, target, placer, tally };
    let whole = match file.is_index() {
        true => packing.index(file, &gathered).await?,
        false => packing.manifest(file, &gathered).await?,
    };
    push.push_manifest(repository, &Version::Digest(whole.digest), &whole).await?;
    for tag in &target.tags {
        transfer::put_tag(&target.destination, &whole, tag).await?;
    }
    push.finish().await?;
    Ok(whole)
}

struct Packing<'a> {
    base: &'a Path,
    artifacts: &'a dyn ArtifactSource,
    target: &'a PackTarget,
    placer: BlobPlacer,
    tally: Arc<Tally>,
}

impl Packing<'_> {
    /// The manifest of all items.
    async fn manifest(&self, file: &PackFile, gathered: &[Vec<Gathered>]) -> Result<Manifest, Error> {
        let mut layers = Vec::new();
        for (item, files) in file.items.iter().zip(gathered) {
            layers.extend(files.iter().map(|found| (manifest::layer(item, &found.file, false), found.disk.clone())));
        }
        let config = self.config(file.config.as_ref()).await?;
        self.place(&layers, config.is_none()).await?;
        let layers: Vec<Descriptor> = layers.into_iter().map(|(layer, _)| layer).collect();
        manifest::flat(file.artifact_type.as_deref(), config, &layers, &file.annotations)
    }

    /// The index of all items.
    async fn index(&self, file: &PackFile, gathered: &[Vec<Gathered>]) -> Result<Manifest, Error> {
        let mut entries = Vec::new();
        for (number, (item, files)) in file.items.iter().zip(gathered).enumerate() {
            let entry = self.member(file, item, files).await;
            entries.push(entry.map_err(|error| error.context(format_args!("item[{number}]")))?);
        }
        manifest::index(file, entries)
    }

    async fn member(&self, file: &PackFile, item: &PackItem, files: &[Gathered]) -> Result<Value, Error> {
        if let PackSource::Artifact(reference) = &item.source {
            let member = self.copied(reference).await?;
            return Ok(manifest::entry(&member, item.platform.as_ref(), &item.annotations));
        }
        let layers: Vec<_> = files.iter().map(|found| (manifest::layer(item, &found.file, true), found.disk.clone())).collect();
        let config = self.config(item.config.as_ref()).await?;
        self.place(&layers, config.is_none()).await?;
        let layers: Vec<Descriptor> = layers.into_iter().map(|(layer, _)| layer).collect();
        let artifact_type = item.artifact_type.as_ref().or(file.artifact_type.as_ref());
        let member = manifest::flat(artifact_type.map(String::as_str), config, &layers, &Default::default())?;
        let Destination { push, repository } = &self.target.destination;
        push.push_manifest(repository, &Version::Digest(member.digest), &member).await?;
        Ok(manifest::entry(&member, item.platform.as_ref(), &Default::default()))
    }

    /// Copies an artifact with everything below it.
    async fn copied(&self, reference: &str) -> Result<Manifest, Error> {
        let (source, version) = self.artifacts.find(reference).await?;
        let options = Options { concurrency: self.target.concurrency, referrers: false, platform: None };
        let copier = Copier::new(source.clone(), self.target.destination.clone(), options);
        let copied = copier.copy(&version, &[]).await?;
        self.tally.add(&copier.tally());
        source.pull.manifest(&source.repository, &Version::Digest(copied.digest)).await
    }

    /// Places and describes the blob of a config.
    async fn config(&self, config: Option<&PackConfig>) -> Result<Option<Value>, Error> {
        let Some(config) = config else { return Ok(None) };
        let disk = self.base.join(&config.file);
        let hashing = disk.clone();
        let content = blocking(move || gather::hashed(&hashing)).await?;
        self.place_file(&Descriptor::new(media_type::OCTET_STREAM, content.digest, content.size), &disk).await?;
        Ok(Some(manifest::config(config, content)))
    }

    /// Places layers, and the empty blob where a manifest needs a placeholder.
    async fn place(&self, layers: &[(Descriptor, PathBuf)], without_config: bool) -> Result<(), Error> {
        let placing = layers.iter().map(|(layer, disk)| self.place_file(layer, disk));
        stream::iter(placing).buffer_unordered(self.target.concurrency.get()).try_collect::<()>().await?;
        if without_config || layers.is_empty() {
            let empty = Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
            let open = || Ok::<_, Error>((Arc::new(Bytes::from_static(EMPTY)) as Arc<dyn UploadSource>, nobody()));
            self.placer.place(&empty, None, open).await?;
        }
        Ok(())
    }

    async fn place_file(&self, blob: &Descriptor, disk: &Path) -> Result<(), Error> {
        self.tally.total.fetch_add(blob.size, Ordering::Relaxed);
        let open = || {
            let file = File::open(disk).map_err(|error| on_disk("cannot read", disk, error))?;
            Ok(Arc::new(FileSource::new(file, blob.size)) as Arc<dyn UploadSource>)
        };
        self.tally.place(&self.placer, blob, None, open).await
    }
}

fn nobody() -> Uploaded {
    Arc::new(|_| {})
}
