//! The files dialect: the planned layers, each followed by its index.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::work::Work;
use crate::artifact::attached_index;
use crate::error::Error;
use crate::oci::Descriptor;
use crate::path::show;
use crate::publish::manifest::{descriptor, files as titled};
use crate::publish::pack::made::Made;
use crate::publish::pack::store::Ready;
use crate::publish::plan::files;
use crate::publish::plan::layers::{LayerPlan, Plan};
use crate::publish::plan::path_set::PathSet;
use crate::view::snapshot::Entries;

impl Work {
    /// The layers of everything except these paths, as manifest entries after `standing`. `planned` is their plan, if there is one already.
    pub(super) async fn grouped(
        &self,
        covered: PathSet,
        standing: &[Value],
        planned: Option<&Plan>,
    ) -> Result<(Vec<Value>, Vec<Made>), Error> {
        if let Some(link) = &self.survey.escaping {
            let link = show(link);
            self.progress.note(format!("`oras pull` refuses symbolic links that leave the directory, such as `{link}`; ocifs shows them"));
        }
        let snapshot = self.without(covered);
        let is_empty = Entries::of(&snapshot).next().await?.is_none();
        let remote = if is_empty { HashMap::new() } else { self.remote_layers().await? };
        let plan = match planned {
            Some(planned) => planned.clone(),
            None => files::plan(&snapshot, self.survey.totals, |layer| remote.contains_key(layer)).await?,
        };
        let order = order(&plan.layers);
        let titles: Vec<Option<String>> = plan.layers.iter().map(|layer| layer.title.clone()).collect();
        let identities: Vec<_> = plan.layers.iter().map(|layer| (layer.identity, layer.packing)).collect();
        let made = self.producer(Arc::clone(&snapshot), None, true)?.produce(plan, &remote).await?;
        for ((made, title), (identity, packing)) in made.iter().zip(&titles).zip(identities) {
            if let Made::Packed(Ready { blob, attached_index: Some((index, ..)), .. }) = made {
                self.identities.put((blob.0, *index, packing, title.clone()), Some(identity));
            }
        }
        let taken = |title: &String| standing.iter().any(|layer| layer["annotations"][titled::TITLE] == title.as_str());
        let mut roots = titled::roots().filter(|title| !taken(title));
        let ordered = order.into_iter().filter_map(|number| Some((made.get(number)?, titles.get(number)?)));
        let layers = ordered.flat_map(|(made, title)| described(made, title.as_deref(), &mut roots)).map(|layer| descriptor(&layer));
        Ok((layers.collect(), made))
    }
}

/// The order of a plan's layers: those with real directories of the tree last, outer directories after inner ones. So the last entry of a
/// directory is the real one; other layers hold placeholders.
fn order(layers: &[LayerPlan]) -> Vec<usize> {
    let numbers = |directories: bool| move |(_, layer): &(usize, &LayerPlan)| layer.has_directories == directories;
    let others = layers.iter().enumerate().filter(numbers(false));
    let directories = layers.iter().enumerate().rev().filter(numbers(true));
    others.chain(directories).map(|(number, _)| number).collect()
}

/// A layer and its index as descriptors. Each archive gets the next spelling of the root as its title.
fn described(made: &Made, title: Option<&str>, roots: &mut impl Iterator<Item = String>) -> Vec<Descriptor> {
    let mut root = || roots.next().unwrap_or_default();
    match made {
        Made::Remote(remote) => {
            let mut layer = remote.layer.clone();
            if title.is_none() {
                layer.annotations.insert(titled::TITLE.to_owned(), root());
            }
            std::iter::once(layer).chain(remote.index.clone()).collect()
        }
        Made::Packed(ready) => {
            let layer = match title {
                Some(title) => titled::raw(ready.blob, title),
                None => titled::archive(ready.blob, &ready.diff_id, &root()),
            };
            let index = ready.attached_index.as_ref().map(|(index, size, _)| attached_index::index_layer(&layer.digest, *index, *size));
            std::iter::once(layer).chain(index).collect()
        }
    }
}

/// Whether all layers of an artifact may be regrouped.
pub(super) fn is_ours(artifact: &crate::artifact::Artifact) -> bool {
    artifact.shown.artifact_type() == Some(titled::ARTIFACT_TYPE)
}
