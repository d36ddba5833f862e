//! Edits of artifacts made of titled layers, single blobs, or one archive.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::work::{Built, CONFIG_LIMIT, Work};
use crate::artifact::{Artifact, Dialect, attached_index};
use crate::error::{Error, ErrorKind};
use crate::layer::Packing;
use crate::oci::{Descriptor, Digest, ImageManifest, media_type};
use crate::path::{parent, show};
use crate::publish::manifest::listing::{Listed, relisted, stale};
use crate::publish::manifest::{EMPTY, descriptor, files as titled, layers};
use crate::publish::pack::made::Made;
use crate::publish::plan::foreign::{Fate, Foreign};
use crate::publish::plan::path_set::PathSet;
use crate::publish::plan::{foreign, whole};
use crate::view::TreeEntry;
use crate::view::snapshot::Entries;

/// Annotations that changed content invalidates: ModelPack's attributes, the digest of the uncompressed archive, eStargz's table of contents,
/// our own index.
const OF_CONTENT: [&str; 6] = [
    "org.cncf.model.file.metadata+json",
    "org.cnai.model.file.metadata+json",
    titled::CONTENT,
    "containerd.io/snapshot/stargz/toc.digest",
    attached_index::INDEX_DIGEST,
    attached_index::INDEX_SIZE,
];
/// The config of a Helm chart: a copy of one of its files.
const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// The signature of a Helm chart.
const HELM_PROVENANCE: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";

impl Work {
    pub(super) async fn edit_layered(&self, base: &Arc<Artifact>) -> Result<Built, Error> {
        let is_empty = base.layers().iter().all(|layer| layer.blob.is_none());
        if super::files::is_ours(base) || is_empty {
            let (layers, made) = self.grouped(self.silent_root().await?, &[], self.survey.plan.as_ref()).await?;
            return self.finish(layers, base, made).await;
        }
        let all = base.layers();
        let is_group = |number: usize| {
            let layer = all.get(number);
            layer.is_some_and(|layer| layer.index.is_some() && layer.descriptor.annotation(titled::TITLE).is_some_and(titled::is_root))
        };
        let one = (&self.artifacts, &self.repository);
        let mut plan = foreign::plan(one, base, &self.snapshot, &self.survey.paths, is_group).await?;
        self.itself(base, &mut plan.covered);
        let replaced = self.producer(Arc::clone(&self.snapshot), None, base.dialect == Dialect::Files)?;
        let mut made = replaced.produce(plan.replaced.clone(), &HashMap::new()).await?;
        let (layers, more) = match base.dialect {
            Dialect::Files => self.files_around(base, &plan, &made).await?,
            Dialect::Archive => self.archive_around(base, &mut plan, &made).await?,
            _ => self.blobs_only(base, &plan, &made).await?,
        };
        made.extend(more);
        self.finish(layers, base, made).await
    }

    /// Builds the manifest from the base with these layers; a config that listed the old layers lists the new ones.
    async fn finish(&self, layers: Vec<Value>, base: &Artifact, made: Vec<Made>) -> Result<Built, Error> {
        let mut top = titled::manifest(layers.clone(), Some(&base.shown), None)?;
        if let (Some(before), Some(after)) = (base.shown.image(), top.image())
            && let Some(config) = self.config_for(before, &listed(&after.layers, &made)).await?
        {
            top = titled::manifest(layers, Some(&base.shown), Some(&config))?;
        }
        Ok(Built { top, before: Vec::new(), referrers: Vec::new(), made })
    }

    /// The updated config for these layers; `None` to keep the old one. Notes entries that cannot be updated.
    async fn config_for(&self, image: &ImageManifest, after: &[Listed]) -> Result<Option<Descriptor>, Error> {
        let config = &image.config;
        let before: Vec<Digest> = image.layers.iter().filter(|layer| !is_silent(layer)).map(|layer| layer.digest).collect();
        if config.size <= EMPTY.len() as u64 || before.iter().eq(after.iter().map(|layer| &layer.digest)) {
            return Ok(None);
        }
        if config.size > CONFIG_LIMIT {
            self.progress.note(format!("the config ({} bytes) was not updated: it may name removed layers", config.size));
            return Ok(None);
        }
        let bytes = self.config(config).await?;
        let edited = relisted(&bytes, &before, after);
        let stale: Vec<String> = stale(edited.as_ref().unwrap_or(&bytes), &before, after).iter().map(Digest::to_string).collect();
        if !stale.is_empty() {
            self.progress.note(format!("the config still names layers that the new version does not have: {}", stale.join(", ")));
        }
        let Some(edited) = edited else { return Ok(None) };
        let (digest, size) = self.send(&config.media_type, edited).await?;
        Ok(Some(Descriptor::new(&config.media_type, digest, size)))
    }

    /// A manifest with a title is itself one of the files shown.
    fn itself(&self, base: &Artifact, covered: &mut PathSet) {
        if base.dialect == Dialect::Files
            && let Some(title) = base.shown.annotations().get(titled::TITLE)
            && self.survey.paths.contains(title.as_bytes())
        {
            covered.insert(title.as_bytes());
        }
    }

    async fn files_around(&self, base: &Artifact, plan: &Foreign, replaced: &[Made]) -> Result<(Vec<Value>, Vec<Made>), Error> {
        let mut layers = standing(base, plan, replaced, true)?;
        let mut covered = plan.covered.clone();
        if !self.silent_root().await?.is_empty() {
            covered.insert(b"");
        }
        let covered = self.with_directories(covered).await?;
        let (grouped, made) = self.grouped(covered, &layers, None).await?;
        layers.extend(grouped);
        Ok((layers, made))
    }

    /// Parent directories of planned entries are planned too, even if an unchanged layer holds them: a placeholder must not be a directory's last
    /// entry.
    async fn with_directories(&self, mut covered: PathSet) -> Result<PathSet, Error> {
        let mut planned = Entries::of(&self.without(covered.clone()));
        while let Some(entry) = planned.next().await? {
            let mut path = entry.path.as_slice();
            while let Some(above) = parent(path).filter(|above| !above.is_empty()) {
                path = above;
                covered.remove(path);
            }
        }
        Ok(covered)
    }

    async fn archive_around(&self, base: &Artifact, plan: &mut Foreign, replaced: &[Made]) -> Result<(Vec<Value>, Vec<Made>), Error> {
        let &[number] = plan.archives.as_slice() else {
            return Err(unsupported("it consists of several archives, so it is unclear which one a change belongs to"));
        };
        if let Some(fate @ Fate::Stays) = plan.fates.get_mut(number) {
            if self.more_than(plan.covered.clone()).await?.is_none() {
                return Ok((standing(base, plan, replaced, false)?, Vec::new()));
            }
            // New files go into it too.
            *fate = Fate::Goes;
        }
        let index = self.artifacts.layer_index(&self.repository, base, number, false).await?;
        let has_root = index.is_some_and(|index| index.entries().any(|entry| entry.path.is_empty()));
        let mut covered: PathSet = PathSet::default();
        for layer in base.layers().iter().filter(|layer| layer.number != number) {
            // Files with their own layer are not part of the archive.
            if let (Some(Fate::Stays | Fate::Replaced(_)), Some((path, _))) = (plan.fates.get(layer.number), base.file_of(layer.number)) {
                covered.insert(&path);
            }
        }
        if !has_root {
            covered.insert(b"");
        }
        let descriptor_of = base.layers().into_iter().nth(number).map(|layer| layer.descriptor);
        let mut layer = descriptor_of.ok_or_else(|| Error::other("an archive has no layer"))?;
        let packing = packing_of(&layer.media_type)?;
        let snapshot = self.without(covered);
        let archive = whole::plan(&snapshot, None, packing, Vec::new()).await?;
        let made = self.producer(snapshot, None, false)?.produce(archive, &HashMap::new()).await?;
        if let Some(Made::Packed(ready)) = made.first() {
            (layer.digest, layer.size) = ready.blob;
        }
        layer.annotations.retain(|key, _| !OF_CONTENT.contains(&key.as_str()));
        if base.shown.image().is_some_and(|image| image.layers.iter().any(|layer| layer.media_type == HELM_PROVENANCE)) {
            self.progress.note("the provenance file signs the previous chart: re-sign the new version");
        }
        if base.shown.image().is_some_and(|image| image.config.media_type == HELM_CONFIG) {
            self.progress.note("the chart's config was not updated: registries may show an old name, version or description");
        }
        let mut layers = standing(base, plan, replaced, false)?;
        let place = (0..number).filter(|number| !matches!(plan.fates.get(*number), None | Some(Fate::Goes | Fate::Silent))).count();
        layers.insert(place.min(layers.len()), descriptor(&layer));
        Ok((layers, made))
    }

    async fn blobs_only(&self, base: &Artifact, plan: &Foreign, replaced: &[Made]) -> Result<(Vec<Value>, Vec<Made>), Error> {
        if let Some(entry) = self.more_than(plan.covered.clone()).await? {
            return Err(unsupported(&format!(
                "it is a list of unnamed blobs and cannot hold `{}`; only the content of its files can be changed",
                show(&entry.path)
            )));
        }
        Ok((standing(base, plan, replaced, false)?, Vec::new()))
    }

    /// The first entry that no layer covers.
    async fn more_than(&self, covered: PathSet) -> Result<Option<TreeEntry>, Error> {
        let mut entries = Entries::of(&self.without(covered));
        while let Some(entry) = entries.next().await? {
            if !entry.path.is_empty() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

fn unsupported(why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("this artifact does not support the edit: {why} (use --as with --as-kind to publish it as another kind)"),
    )
}

/// Whether a layer holds no content of the artifact: one of our indexes, or the empty placeholder.
fn is_silent(layer: &Descriptor) -> bool {
    attached_index::is_index_layer(layer) || layer.media_type == media_type::OCI_EMPTY && layer.annotation(titled::TITLE).is_none()
}

/// The layers with content, with their uncompressed digests.
fn listed(layers: &[Descriptor], made: &[Made]) -> Vec<Listed> {
    let packed = |digest: &Digest| {
        made.iter().find_map(|made| match made {
            Made::Packed(ready) if ready.blob.0 == *digest => Some(ready.diff_id),
            _ => None,
        })
    };
    let listed = layers.iter().filter(|layer| !is_silent(layer)).map(|layer| {
        let said = layer.annotation(titled::CONTENT).and_then(|digest| Digest::parse(digest).ok());
        Listed { digest: layer.digest, diff_id: packed(&layer.digest).or(said) }
    });
    listed.collect()
}

/// The layers that stay or are replaced, in order, each followed by its index.
fn standing(base: &Artifact, plan: &Foreign, replaced: &[Made], with_index: bool) -> Result<Vec<Value>, Error> {
    let written = layers(&base.shown)?;
    let mut standing = Vec::new();
    for layer in base.layers() {
        match plan.fates.get(layer.number) {
            Some(Fate::Stays) => {
                standing.extend(written.get(layer.number).cloned());
                let neighbour = written.get(layer.number + 1).filter(|_| layer.index.is_some());
                let of = neighbour.and_then(|next| next.get("annotations")?.get(attached_index::INDEX_OF)?.as_str());
                if of.and_then(|of| Digest::parse(of).ok()) == Some(layer.descriptor.digest) {
                    standing.extend(neighbour.cloned());
                }
            }
            Some(Fate::Replaced(number)) => {
                let Some(Made::Packed(ready)) = replaced.get(*number) else { continue };
                let mut new = layer.descriptor.clone();
                (new.digest, new.size) = ready.blob;
                new.annotations.retain(|key, _| !OF_CONTENT.contains(&key.as_str()));
                standing.push(descriptor(&new));
                let described = with_index && plan.described.get(*number) == Some(&true);
                if let Some((index, size, _)) = ready.attached_index.as_ref().filter(|_| described) {
                    standing.push(descriptor(&attached_index::index_layer(&new.digest, *index, *size)));
                }
            }
            None | Some(Fate::Goes | Fate::Silent) => {}
        }
    }
    Ok(standing)
}

/// The compression for archives of this media type.
fn packing_of(media_type: &str) -> Result<Packing, Error> {
    if media_type.contains("zstd") {
        return Err(unsupported("its layer is compressed with zstd, which ocifs cannot write"));
    }
    let is_plain = media_type.ends_with(".tar") || media_type.ends_with("+tar") || media_type.ends_with("x-tar");
    Ok(if is_plain { Packing::Tar } else { Packing::GzipTar })
}
