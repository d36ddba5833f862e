//! The entries of each planned layer: walks the snapshot again, and yields a layer once its entries are known.
//!
//! Yields only wanted layers. Memory is bounded by the names in the open groups.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, future, stream};

use crate::artifact::Kind;
use crate::error::Error;
use crate::layer::{PackEntry, Packing};
use crate::publish::plan::groups::{Assigner, Placement, Totals};
use crate::publish::plan::identity::archived;
use crate::publish::plan::layers::{LayerPlan, Plan, Selector};
use crate::publish::plan::parents::{Above, Named};
use crate::publish::plan::path_set::PathSet;
use crate::view::TreeEntry;
use crate::view::snapshot::{Entries, FirstNames, Snapshot};

/// An entry and, for a regular file with content, its source.
pub(in crate::publish) struct Item {
    pub archived: PackEntry,
    pub file: Option<TreeEntry>,
}

/// The entries of a layer, in order.
pub(in crate::publish) type Items = stream::BoxStream<'static, Result<Item, Error>>;

/// A layer whose entries are known.
pub(in crate::publish) struct Job {
    /// Its number in the plan.
    pub number: usize,
    pub items: Items,
}

/// The wanted layers of a plan, each as soon as its entries are complete (or at once, for a layer that takes the whole walk).
pub(super) fn jobs(snapshot: &Arc<dyn Snapshot>, plan: &Arc<Plan>, wanted: Vec<bool>) -> stream::BoxStream<'static, Result<Job, Error>> {
    match &plan.selector {
        Selector::Groups(totals) => match kept(plan, &wanted) {
            Some(jobs) => stream::iter(jobs.into_iter().map(Ok)).boxed(),
            None => groups(snapshot, plan, wanted, totals),
        },
        Selector::All => single(snapshot, plan, None),
        Selector::Chosen(paths) => single(snapshot, plan, Some(Arc::clone(paths))),
        Selector::Each(files) => each(snapshot, Arc::clone(files), wanted),
    }
}

/// The wanted layers, if all of them kept their entries: the tree need not be walked again.
fn kept(plan: &Plan, wanted: &[bool]) -> Option<Vec<Job>> {
    let wanted = plan.layers.iter().enumerate().zip(wanted).filter(|(_, wanted)| **wanted);
    let job = |((number, layer), _): ((usize, &LayerPlan), _)| {
        let entries = Arc::clone(layer.kept.as_ref()?);
        let items = (0..entries.len()).filter_map(move |at| entries.get(at).cloned()).map(|entry| Ok(item(entry, None)));
        Some(Job { number, items: stream::iter(items).chain(behind(layer)).boxed() })
    };
    wanted.map(job).collect()
}

/// A group with incomplete entries.
#[derive(Default)]
struct Open {
    entries: Vec<TreeEntry>,
    /// Entries taken from the walk so far.
    taken: u64,
    named: Named,
}

impl Open {
    fn add(&mut self, entry: TreeEntry, above: &Above, packing: Packing) {
        if packing != Packing::Raw {
            self.entries.extend(self.named.missing(above, &entry));
        }
        self.entries.push(entry);
        self.taken += 1;
    }
}

/// A walk that sorts entries into groups.
struct Groups {
    entries: Entries,
    plan: Arc<Plan>,
    wanted: Vec<bool>,
    assigner: Assigner,
    above: Above,
    open: HashMap<u32, Open>,
}

impl Groups {
    /// The next complete group.
    async fn next(&mut self) -> Result<Option<Job>, Error> {
        while let Some(entry) = self.entries.next().await? {
            self.above.step(&entry);
            let (Placement::Group(group) | Placement::Alone(group)) = self.assigner.place(&entry) else { continue };
            let number = group as usize;
            let Some(layer) = self.plan.layers.get(number).filter(|_| self.wanted.get(number) == Some(&true)) else { continue };
            let open = self.open.entry(group).or_default();
            open.add(entry, &self.above, layer.packing);
            if open.taken == layer.entries
                && let Some(Open { entries, .. }) = self.open.remove(&group)
            {
                let items = stream::iter(entries.into_iter().map(|entry| Ok(item(entry, None))));
                return Ok(Some(Job { number, items: items.chain(behind(layer)).boxed() }));
            }
        }
        if self.open.is_empty() { Ok(None) } else { Err(Error::other("the frozen tree changed while it was packed")) }
    }
}

fn groups(
    snapshot: &Arc<dyn Snapshot>,
    plan: &Arc<Plan>,
    wanted: Vec<bool>,
    totals: &Totals,
) -> stream::BoxStream<'static, Result<Job, Error>> {
    let groups = Groups {
        entries: Entries::of(snapshot),
        plan: Arc::clone(plan),
        wanted,
        assigner: Assigner::new(totals),
        above: Above::default(),
        open: HashMap::new(),
    };
    stream::try_unfold(groups, |mut groups| async move { Ok(groups.next().await?.map(|job| (job, groups))) }).boxed()
}

/// The single layer of a plan that takes a whole walk, or chosen paths of it.
fn single(snapshot: &Arc<dyn Snapshot>, plan: &Plan, chosen: Option<Arc<PathSet>>) -> stream::BoxStream<'static, Result<Job, Error>> {
    let Some(layer) = plan.layers.first() else { return stream::empty().boxed() };
    let mut names = FirstNames::default();
    let items = walked(snapshot).try_filter_map(move |entry| {
        let is_chosen = chosen.as_ref().is_none_or(|chosen| chosen.contains(&entry.path));
        let item = is_chosen.then(|| {
            let first = names.of(&entry).map(<[u8]>::to_vec);
            item(entry, first.as_deref())
        });
        future::ok(item)
    });
    stream::once(future::ok(Job { number: 0, items: items.chain(behind(layer)).boxed() })).boxed()
}

/// Layers of one file each.
fn each(
    snapshot: &Arc<dyn Snapshot>,
    files: Arc<HashMap<Vec<u8>, usize>>,
    wanted: Vec<bool>,
) -> stream::BoxStream<'static, Result<Job, Error>> {
    let jobs = walked(snapshot).try_filter_map(move |entry| {
        let number = files.get(&entry.path).copied().filter(|number| wanted.get(*number) == Some(&true));
        future::ok(number.map(|number| Job { number, items: stream::once(future::ok(item(entry, None))).boxed() }))
    });
    jobs.boxed()
}

fn walked(snapshot: &Arc<dyn Snapshot>) -> stream::BoxStream<'static, Result<TreeEntry, Error>> {
    stream::try_unfold(Entries::of(snapshot), |mut entries| async move { Ok(entries.next().await?.map(|entry| (entry, entries))) }).boxed()
}

/// The entries of a layer that follow those of the walk.
fn behind(layer: &LayerPlan) -> impl stream::Stream<Item = Result<Item, Error>> + use<> {
    stream::iter(layer.behind.clone().into_iter().map(|archived| Ok(Item { archived, file: None })))
}

fn item(entry: TreeEntry, first: Option<&[u8]>) -> Item {
    let archived = archived(&entry, first);
    let file = (first.is_none() && entry.kind == Kind::File && entry.size > 0).then_some(entry);
    Item { archived, file }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::path::order;
    use crate::publish::Sizes;
    use crate::publish::plan::files;
    use crate::publish::plan::groups::tests::entry;
    use crate::view::Reader;
    use crate::view::snapshot::Walk;

    /// Entries in memory, which counts its walks.
    struct Counted(Vec<TreeEntry>, AtomicUsize);

    #[async_trait]
    impl Snapshot for Counted {
        fn walk(self: Arc<Self>) -> Walk {
            self.1.fetch_add(1, Ordering::Relaxed);
            Box::new(self.0.clone().into_iter().map(Ok))
        }

        async fn sha256(&self, _entry: &TreeEntry) -> Result<[u8; 32], Error> {
            Err(Error::other("every file has its digest"))
        }

        async fn open(&self, _entry: &TreeEntry) -> Result<Reader, Error> {
            Err(Error::other("no file is read"))
        }
    }

    fn tree(files: u64) -> Arc<Counted> {
        let mut entries = vec![entry("", 0, Kind::Directory, 0)];
        entries.extend((0..10).map(|number| entry(&format!("d{number}"), number + 1, Kind::Directory, 0)));
        for number in 0..files {
            let file = entry(&format!("d{}/f{number:05}", number % 10), 100 + number, Kind::File, 20_000);
            entries.push(TreeEntry { sha256: Some([7; 32]), ..file });
        }
        entries.sort_by(|one, other| order(&one.path, &other.path));
        Arc::new(Counted(entries, AtomicUsize::new(0)))
    }

    /// The paths of the wanted layers, by number.
    async fn paths(jobs: stream::BoxStream<'static, Result<Job, Error>>) -> Vec<(usize, Vec<Vec<u8>>)> {
        let job = |job: Job| async move {
            let items: Vec<Item> = job.items.try_collect().await?;
            Ok((job.number, items.into_iter().map(|item| item.archived.path).collect()))
        };
        let mut all: Vec<(usize, Vec<Vec<u8>>)> = jobs.and_then(job).try_collect().await.unwrap();
        all.sort();
        all
    }

    #[tokio::test]
    async fn few_new_layers_are_packed_without_walking_the_tree_again() {
        for (files, walks) in [(3000, 1), (20_000, 2)] {
            let tree = tree(files);
            let snapshot: Arc<dyn Snapshot> = tree.clone();
            let mut totals = Totals::new(Sizes::default());
            tree.0.iter().for_each(|entry| totals.add(entry));
            let known = files::plan(&snapshot, totals, |_| false).await.unwrap();
            let known: Vec<_> = known.layers.iter().map(|layer| layer.identity).step_by(2).collect();
            tree.1.store(0, Ordering::Relaxed);
            let plan = Arc::new(files::plan(&snapshot, totals, |layer| known.contains(layer)).await.unwrap());
            let wanted: Vec<bool> = plan.layers.iter().map(|layer| !known.contains(&layer.identity)).collect();
            assert!(wanted.iter().filter(|wanted| **wanted).count() > 1);
            let packed = paths(jobs(&snapshot, &plan, wanted.clone())).await;
            assert_eq!(tree.1.load(Ordering::Relaxed), walks, "{files} files");
            assert_eq!(packed, paths(groups(&snapshot, &plan, wanted, &totals)).await);
        }
    }
}
