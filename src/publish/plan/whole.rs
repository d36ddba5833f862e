//! Plans a single layer that takes a whole walk, or chosen paths of it.

use std::sync::Arc;

use super::identity::{LayerIdentity, archived};
use super::layers::{LayerPlan, Plan, Selector};
use super::path_set::PathSet;
use crate::error::Error;
use crate::layer::{PackEntry, Packing};
use crate::view::snapshot::{FirstNames, Snapshot, hashed};

/// Plans one layer with the chosen entries (all if `None`), followed by others.
pub(in crate::publish) async fn plan(
    snapshot: &Arc<dyn Snapshot>,
    chosen: Option<Arc<PathSet>>,
    packing: Packing,
    behind: Vec<PackEntry>,
) -> Result<Plan, Error> {
    let mut identity = LayerIdentity::new(packing);
    let mut layer = LayerPlan { identity: [0; 32], packing, title: None, entries: 0, bytes: 0, behind, has_directories: true, kept: None };
    let mut names = FirstNames::default();
    let wanted = chosen.clone();
    let mut entries = hashed(snapshot, move |entry| wanted.as_ref().is_none_or(|wanted| wanted.contains(&entry.path)));
    while let Some(entry) = entries.next().await? {
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&entry.path)) {
            continue;
        }
        let first = names.of(&entry).map(<[u8]>::to_vec);
        let archived = archived(&entry, first.as_deref());
        identity.add(&archived, entry.sha256);
        layer.entries += 1;
        layer.bytes = layer.bytes.saturating_add(archived.size);
    }
    layer.behind.iter().for_each(|entry| identity.add(entry, None));
    layer.identity = identity.finish();
    let selector = chosen.map_or(Selector::All, Selector::Chosen);
    Ok(Plan { selector, layers: vec![layer] })
}
