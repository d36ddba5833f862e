//! A plan of the files dialect made while the tree is surveyed, so that it is not walked once more.
//!
//! The boundaries of layers follow from totals that only the end of the walk knows. Those of the base are a good guess: if they turn out to give
//! other boundaries, or an entry cannot be planned without reading it, there is no plan and the tree is walked again.

use std::collections::HashSet;

use super::files::{Draft, Planner, is_silent};
use super::groups::{Placement, Totals};
use super::identity::Identity;
use super::layers::Plan;
use crate::artifact::{Kind, Tree};
use crate::publish::Sizes;
use crate::view::TreeEntry;

/// A plan in the making.
pub(in crate::publish) struct Guess {
    totals: Totals,
    planner: Planner,
    /// Layers that need no packing.
    known: HashSet<Identity>,
}

impl Guess {
    /// Starts a plan with the totals of a tree.
    pub fn new(tree: &Tree, sizes: Sizes, known: HashSet<Identity>) -> Self {
        let mut totals = Totals::new(sizes);
        (0..tree.node_count()).filter_map(|node| tree.node(node)).for_each(|node| totals.count(node.kind, node.size));
        Self { totals, planner: Planner::new(&totals), known }
    }

    /// Adds the next published entry. `false` if the plan cannot be made like this.
    pub fn add(&mut self, entry: &TreeEntry) -> bool {
        if entry.path.is_empty() && is_silent(entry) {
            return true;
        }
        let placement = self.planner.place(entry);
        let is_unknown = entry.kind == Kind::File && entry.size > 0 && entry.sha256.is_none();
        match placement {
            Placement::Group(_) | Placement::Alone(_) if is_unknown => return false,
            Placement::Alone(_) => {
                let (draft, is_settled) = Draft::preferred(entry, self.planner.above(), |layer| self.known.contains(layer));
                if !is_settled {
                    return false;
                }
                self.planner.push(draft);
            }
            placement => self.planner.add(&placement, entry, |layer| self.known.contains(layer)),
        }
        true
    }

    /// The plan, if it is that of a tree with these totals.
    pub fn finish(self, totals: &Totals) -> Option<Plan> {
        totals.divide_like(&self.totals).then(|| self.planner.finish(*totals))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::publish::plan::files;
    use crate::publish::plan::groups::tests::entry;
    use crate::view::Reader;
    use crate::view::snapshot::{Snapshot, Walk};

    /// Entries in memory.
    struct Listed(Vec<TreeEntry>);

    #[async_trait]
    impl Snapshot for Listed {
        fn walk(self: Arc<Self>) -> Walk {
            Box::new(self.0.clone().into_iter().map(Ok))
        }

        async fn sha256(&self, _entry: &TreeEntry) -> Result<[u8; 32], Error> {
            Err(Error::other("every file has its digest"))
        }

        async fn open(&self, _entry: &TreeEntry) -> Result<Reader, Error> {
            Err(Error::other("no file is read"))
        }
    }

    /// Files of these kilobytes in two directories; every eighth is another name of the one before it.
    fn entries(files: &[u64], mode: u32) -> Vec<TreeEntry> {
        let mut entries = vec![entry("", 0, Kind::Directory, 0)];
        for (number, kilobytes) in (0_u64..).zip(files) {
            if number == 0 || number == 40 {
                entries.push(entry(&format!("d{number:02}"), 1000 + number, Kind::Directory, 0));
            }
            let mut file =
                entry(&format!("d{:02}/f{number:03}", if number < 40 { 0 } else { 40 }), 1 + number, Kind::File, kilobytes * 1000);
            (file.metadata.mode, file.sha256) = (Some(mode), Some([number as u8; 32]));
            if let Some(last) = entries.last().filter(|last| number % 8 == 7 && last.kind == Kind::File).cloned() {
                entries.pop();
                entries.push(TreeEntry { links: 2, ..last.clone() });
                file = TreeEntry { path: file.path, links: 2, sha256: None, ..last };
            }
            entries.push(file);
        }
        entries
    }

    fn totals(entries: &[TreeEntry]) -> Totals {
        let mut totals = Totals::new(Sizes::default());
        let mut seen = HashSet::new();
        entries.iter().filter(|entry| seen.insert(entry.node)).for_each(|entry| totals.add(entry));
        totals
    }

    /// The plan made on the way, with the totals of another tree as a guess.
    fn guessed(entries: &[TreeEntry], guess: Totals, known: HashSet<Identity>) -> Option<Plan> {
        let mut guess = Guess { totals: guess, planner: Planner::new(&guess), known };
        entries.iter().all(|entry| guess.add(entry)).then(|| guess.finish(&totals(entries)))?
    }

    async fn walked(entries: &[TreeEntry], known: &HashSet<Identity>) -> Result<Plan, Error> {
        let snapshot: Arc<dyn Snapshot> = Arc::new(Listed(entries.to_vec()));
        files::plan(&snapshot, totals(entries), |layer| known.contains(layer)).await
    }

    /// Everything that packing and the manifest follow from.
    fn shown(plan: &Plan) -> String {
        format!("{:?}", plan.layers)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_plan_made_on_the_way_is_that_of_a_walk_or_none(
            files in proptest::collection::vec(prop_oneof![0..100_u64, 500..6000_u64], 0..90),
            edited in 0..90_usize,
            grown in 0..9000_u64,
        ) {
            let before = entries(&files, 0o755);
            let mut after = files;
            if let Some(size) = after.get_mut(edited) {
                *size += grown;
            }
            let after = entries(&after, 0o755);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let known: HashSet<Identity> = runtime.block_on(walked(&before, &HashSet::new())).unwrap().layers.iter().map(|layer| layer.identity).collect();
            let walked = runtime.block_on(walked(&after, &known)).unwrap();
            match guessed(&after, totals(&before), known) {
                Some(plan) => prop_assert_eq!(shown(&plan), shown(&walked)),
                None => prop_assert!(!totals(&after).divide_like(&totals(&before))),
            }
        }
    }

    #[test]
    fn what_must_be_read_or_is_divided_otherwise_is_not_planned_on_the_way() {
        let small = entries(&[10, 20, 30], 0o644);
        assert!(guessed(&small, totals(&small), HashSet::new()).is_some());
        let unknown: Vec<TreeEntry> = small.iter().map(|entry| TreeEntry { sha256: None, ..entry.clone() }).collect();
        assert!(guessed(&unknown, totals(&small), HashSet::new()).is_none(), "the bytes of a file are unknown");
        let large = entries(&[10, 6000], 0o644);
        assert!(guessed(&large, totals(&large), HashSet::new()).is_none(), "a sample decides whether it is compressed");
        let archived = entries(&[10, 6000], 0o755);
        assert!(guessed(&archived, totals(&archived), HashSet::new()).is_some(), "it is archived in any case");
        let several = entries(&[3000; 4], 0o644);
        assert!(guessed(&several, totals(&several), HashSet::new()).is_some());
        assert!(guessed(&several, totals(&small), HashSet::new()).is_none(), "the small tree was one layer");
    }

    #[test]
    fn the_directory_of_a_tag_of_which_only_the_time_is_known_is_not_planned() {
        let mut tree = entries(&[10, 20], 0o755);
        let all = guessed(&tree, totals(&tree), HashSet::new()).unwrap();
        tree[0].metadata.mode = None;
        tree[0].metadata.owner = None;
        let silent = guessed(&tree, totals(&tree), HashSet::new()).unwrap();
        assert_eq!(silent.layers[0].entries + 1, all.layers[0].entries);
    }
}
