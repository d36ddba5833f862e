//! The files dialect: layers of a plan, each followed by its index.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Built, Work};
use crate::artifact::travel;
use crate::oci::Descriptor;
use crate::publish::Error;
use crate::publish::manifest::{descriptor, files as titled};
use crate::publish::plan::{PathSet, files};
use crate::publish::produce::Made;

impl Work {
    pub(super) async fn new_files(&self) -> Result<Built, Error> {
        let (layers, made) = self.grouped(self.silent_root().await?).await?;
        self.send_empty().await?;
        let top = titled::manifest(layers, None)?;
        Ok(Built { top, before: Vec::new(), referrers: Vec::new(), made })
    }

    /// The layers of everything but these paths, as they stand in a manifest.
    pub(super) async fn grouped(&self, covered: PathSet) -> Result<(Vec<Value>, Vec<Made>), Error> {
        if let Some(link) = &self.survey.escaping {
            let link = crate::publish::snapshot::show(link);
            self.progress.note(format!("`oras pull` refuses symbolic links that leave the directory, as `{link}` does; ocifs shows them"));
        }
        let snapshot = self.without(covered);
        let plan = files::plan(&snapshot, self.survey.totals).await?;
        let titles: Vec<Option<String>> = plan.layers.iter().map(|layer| layer.title.clone()).collect();
        let known = if plan.layers.is_empty() { HashMap::new() } else { self.known().await? };
        let made = self.producer(Arc::clone(&snapshot), None, true)?.produce(plan, &known).await?;
        let layers = made.iter().zip(&titles).flat_map(|(made, title)| described(made, title.as_deref())).map(|layer| descriptor(&layer));
        Ok((layers.collect(), made))
    }
}

/// A layer and its index.
fn described(made: &Made, title: Option<&str>) -> Vec<Descriptor> {
    match made {
        Made::Known(known) => [Some(known.layer.clone()), known.index.clone()].into_iter().flatten().collect(),
        Made::Packed(ready) => {
            let layer = match title {
                Some(title) => titled::raw(ready.blob, title),
                None => titled::archive(ready.blob, &ready.diff_id),
            };
            let index = ready.travelling.as_ref().map(|(index, size, _)| travel::index_layer(&layer.digest, *index, *size));
            std::iter::once(layer).chain(index).collect()
        }
    }
}

/// Whether the layers of an artifact are all ours to cut anew.
pub(super) fn is_ours(artifact: &crate::artifact::Artifact) -> bool {
    artifact.shown.artifact_type() == Some(titled::ARTIFACT_TYPE)
}
