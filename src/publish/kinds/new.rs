//! Artifacts without a base: their kind, files with their own layers, manifest fields.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::new_artifact::Own;
use super::work::{Built, Work};
use crate::artifact::{Kind, attached_index};
use crate::error::{Error, ErrorKind};
use crate::layer::Packing;
use crate::oci::{Descriptor, Manifest, media_type};
use crate::path::{is_within, show};
use crate::publish::manifest;
use crate::publish::manifest::metadata::UNKNOWN_ARTIFACT;
use crate::publish::manifest::{descriptor, empty, files as titled};
use crate::publish::pack::made::Made;
use crate::publish::plan::foreign::has_attributes;
use crate::publish::plan::layers::{LayerPlan, Plan, Selector};
use crate::publish::plan::path_set::PathSet;
use crate::publish::plan::{files, whole};
use crate::view::snapshot::Entries;

/// Media type of a file's layer, as chosen by ORAS.
const ORAS_FILE: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a file's layer.
const FILE: &str = "application/octet-stream";

impl Work {
    /// Files dialect: named files get a layer each, everything else is planned as a tree.
    pub(super) async fn new_files(&self) -> Result<Built, Error> {
        let mut covered = self.silent().await?;
        let (mut layers, mut made) = self.own_files(FILE, true).await?;
        for own in &self.new.own {
            covered.insert(&own.path);
        }
        let (grouped, more) = self.grouped(covered, &layers, None).await?;
        layers.extend(grouped);
        made.extend(more);
        self.send_empty().await?;
        self.with_metadata(titled::manifest(layers, None, None)?, made).await
    }

    /// ORAS kind: each named path is a layer, in the order given.
    pub(super) async fn new_oras(&self) -> Result<Built, Error> {
        let (files, mut made) = self.own_files(ORAS_FILE, false).await?;
        let mut files = files.into_iter();
        let directories = self.directories().await?;
        let mut layers = Vec::new();
        for own in &self.new.own {
            if !directories.contains(&own.path) {
                layers.extend(files.next());
                continue;
            }
            let (layer, archive) = self.oras_directory(own).await?;
            layers.push(descriptor(&layer));
            made.push(archive);
        }
        self.send_empty().await?;
        let mut members = Map::new();
        members.insert("schemaVersion".to_owned(), json!(2));
        members.insert("mediaType".to_owned(), json!(media_type::OCI_MANIFEST));
        members.insert("artifactType".to_owned(), json!(UNKNOWN_ARTIFACT));
        members.insert("config".to_owned(), empty());
        members.insert("layers".to_owned(), Value::Array(if layers.is_empty() { vec![empty()] } else { layers }));
        self.with_metadata(manifest::finish(members)?, made).await
    }

    /// Applies the user's manifest fields.
    async fn with_metadata(&self, top: Arc<Manifest>, made: Vec<Made>) -> Result<Built, Error> {
        let top = self.new.metadata.applied(&top)?;
        if let Some((config, bytes)) = self.new.metadata.config_blob() {
            self.send(&config.media_type, bytes).await?;
        }
        Ok(Built { top, before: Vec::new(), referrers: Vec::new(), made })
    }

    /// Which of the named paths are directories.
    async fn directories(&self) -> Result<HashSet<Vec<u8>>, Error> {
        let named: HashSet<&[u8]> = self.new.own.iter().map(|own| own.path.as_slice()).collect();
        let mut found = HashSet::new();
        let mut entries = Entries::of(&self.snapshot);
        while let Some(entry) = entries.next().await? {
            if entry.kind == Kind::Directory && named.contains(entry.path.as_slice()) {
                found.insert(entry.path);
            }
        }
        Ok(found)
    }

    /// The layers of the named files, in order.
    async fn own_files(&self, default_type: &str, with_index: bool) -> Result<(Vec<Value>, Vec<Made>), Error> {
        let media_types: HashMap<&[u8], &Own> = self.new.own.iter().map(|own| (own.path.as_slice(), own)).collect();
        let mut planned: HashMap<Vec<u8>, (LayerPlan, bool)> = HashMap::new();
        let mut entries = Entries::of(&self.snapshot);
        while let Some(entry) = entries.next().await? {
            if !media_types.contains_key(entry.path.as_slice()) || entry.kind == Kind::Directory {
                continue;
            }
            let unfit = |why: &str| Error::new(ErrorKind::Invalid, format!("`{}` {why}", show(&entry.path)));
            if entry.kind != Kind::File {
                return Err(unfit("is neither a file nor a directory"));
            }
            let title = files::title(&entry.path).ok_or_else(|| unfit("cannot be the title of a layer: it is not plain text"))?;
            let plan = LayerPlan::of_file(&entry, self.snapshot.sha256(&entry).await?, title);
            planned.insert(entry.path.clone(), (plan, has_attributes(&entry)));
        }
        let (mut layers, mut numbers, mut named) = (Vec::new(), HashMap::new(), Vec::new());
        for own in &self.new.own {
            if let Some((plan, described)) = planned.remove(&own.path) {
                numbers.insert(own.path.clone(), layers.len());
                named.push((own, described && with_index, plan.title.clone().unwrap_or_default()));
                layers.push(plan);
            }
        }
        if layers.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let plan = Plan { selector: Selector::Each(Arc::new(numbers)), layers };
        let made = self.producer(Arc::clone(&self.snapshot), None, with_index)?.produce(plan, &HashMap::new()).await?;
        let described = named.iter().zip(&made).flat_map(|((own, described, title), made)| {
            let Made::Packed(ready) = made else { return Vec::new() };
            let mut layer = titled::raw(ready.blob, title);
            layer.media_type = own.media_type.clone().unwrap_or_else(|| default_type.to_owned());
            let index = ready.attached_index.as_ref().filter(|_| *described);
            let index = index.map(|(index, size, _)| attached_index::index_layer(&layer.digest, *index, *size));
            std::iter::once(layer).chain(index).map(|layer| descriptor(&layer)).collect()
        });
        Ok((described.collect(), made))
    }

    /// The archive of a directory, whose entries start with its path.
    async fn oras_directory(&self, own: &Own) -> Result<(Descriptor, Made), Error> {
        let mut chosen = PathSet::default();
        let mut entries = Entries::of(&self.snapshot);
        while let Some(entry) = entries.next().await? {
            if is_within(&entry.path, &own.path) && !entry.path.is_empty() {
                chosen.insert(&entry.path);
            }
        }
        let plan = whole::plan(&self.snapshot, Some(Arc::new(chosen)), Packing::GzipTar, Vec::new()).await?;
        let made = self.producer(Arc::clone(&self.snapshot), None, false)?.produce(plan, &HashMap::new()).await?;
        let Some(made @ Made::Packed(ready)) = made.first() else { return Err(Error::other("an archive was not packed")) };
        let title = if own.path.is_empty() { Some(".".to_owned()) } else { files::title(&own.path) };
        let untitled =
            || Error::new(ErrorKind::Invalid, format!("`{}` cannot be the title of a layer: it is not plain text", show(&own.path)));
        let mut layer = titled::archive(ready.blob, &ready.diff_id, &title.ok_or_else(untitled)?);
        if let Some(media_type) = &own.media_type {
            layer.media_type.clone_from(media_type);
        }
        Ok((layer, made.clone()))
    }
}
