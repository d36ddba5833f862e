//! Assigns entries to layers: large files alone, everything else in groups of similar size with boundaries that depend on names.
//!
//! A pure function of the ordered entries: the same tree gives the same groups, and an edit moves only adjacent boundaries. It runs twice, once to
//! plan and once to pack, so that no list of entries is kept.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::artifact::Kind;
use crate::publish::Sizes;
use crate::view::{TreeEntry, ViewNode};

/// The weight of a name in a group, besides its bytes.
const NAME: u64 = 2048;
/// Approximate limit on groups and large files per manifest, which must stay below 4 MiB.
const LAYERS: u64 = 1000;

/// Totals over the whole tree, which determine the boundaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::publish) struct Totals {
    /// The target sizes.
    pub sizes: Sizes,
    /// Total bytes of regular files, each counted once.
    pub bytes: u64,
    /// Total weight of small entries.
    pub small: u64,
}

impl Totals {
    pub fn new(sizes: Sizes) -> Self {
        Self { sizes, bytes: 0, small: 0 }
    }

    /// Counts the first name of a node.
    pub fn add(&mut self, entry: &TreeEntry) {
        self.count(entry.kind, entry.size);
    }

    /// Counts a node.
    pub fn count(&mut self, kind: Kind, size: u64) {
        let bytes = if kind == Kind::File { size } else { 0 };
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes < self.sizes.large {
            self.small = self.small.saturating_add(weight(kind, size));
        }
    }

    /// Whether trees with these and with other totals are divided in the same way.
    pub fn divide_like(&self, other: &Self) -> bool {
        Scale::of(self) == Scale::of(other)
    }
}

fn weight(kind: Kind, size: u64) -> u64 {
    NAME + if kind == Kind::File { size.div_ceil(512).saturating_mul(512) } else { 0 }
}

/// Bounds derived from the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    large: u64,
    target: u64,
    /// Everything small fits into one group.
    single: bool,
}

impl Scale {
    fn of(totals: &Totals) -> Self {
        let power = |bytes: u64| bytes.checked_next_power_of_two().unwrap_or(1 << 63);
        Self {
            large: totals.sizes.large.max(power(totals.bytes / (2 * LAYERS))),
            target: totals.sizes.group.max(power(totals.bytes.saturating_add(totals.small) / LAYERS)),
            single: totals.small <= totals.sizes.group / 4,
        }
    }
}

/// The layer of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Placement {
    /// A group; a new one if the number is new.
    Group(u32),
    /// Its own new layer, with this number.
    Alone(u32),
    /// A further name of a file, after the other entries of the layer with the first name.
    Link {
        /// The layer.
        group: u32,
        /// The first name.
        first: Vec<u8>,
    },
}

struct Open {
    group: u32,
    weight: u64,
}

/// Assigns entries, given in order, to layers.
pub(in crate::publish) struct Assigner {
    scale: Scale,
    groups: u32,
    /// The open groups for directories and for everything else; directories are kept apart since their times change whenever their content does.
    open: [Option<Open>; 2],
    /// Layer and first name of files with several names.
    named: HashMap<ViewNode, (u32, Vec<u8>)>,
}

impl Assigner {
    pub fn new(totals: &Totals) -> Self {
        Self { scale: Scale::of(totals), groups: 0, open: [None, None], named: HashMap::new() }
    }

    /// Places the next entry.
    pub fn place(&mut self, entry: &TreeEntry) -> Placement {
        let has_names = entry.links > 1 && entry.kind != Kind::Directory;
        if has_names && let Some((group, first)) = self.named.get(&entry.node) {
            return Placement::Link { group: *group, first: first.clone() };
        }
        let place = if entry.kind == Kind::File && entry.size >= self.scale.large {
            Placement::Alone(self.new_group())
        } else {
            Placement::Group(self.grouped(entry))
        };
        if has_names && let Placement::Alone(group) | Placement::Group(group) = &place {
            self.named.insert(entry.node, (*group, entry.path.clone()));
        }
        place
    }

    fn new_group(&mut self) -> u32 {
        self.groups = self.groups.saturating_add(1);
        self.groups - 1
    }

    fn grouped(&mut self, entry: &TreeEntry) -> u32 {
        let class = usize::from(!self.scale.single && entry.kind == Kind::Directory);
        let weight = weight(entry.kind, entry.size);
        let fits = match self.open.get(class) {
            Some(Some(open)) => !self.is_border(open, &entry.path, weight),
            _ => false,
        };
        let fresh = if fits { None } else { Some(self.new_group()) };
        let Some(slot) = self.open.get_mut(class) else { return 0 };
        match (slot, fresh) {
            (Some(open), None) => {
                open.weight = open.weight.saturating_add(weight);
                open.group
            }
            (slot, fresh) => {
                let group = fresh.unwrap_or_default();
                *slot = Some(Open { group, weight });
                group
            }
        }
    }

    /// Whether a group ends before a name: decided by the name's hash, at a rate that gives groups the target size on average.
    fn is_border(&self, open: &Open, path: &[u8], weight: u64) -> bool {
        let Scale { target, single, .. } = self.scale;
        if single || open.weight < target / 4 {
            return false;
        }
        if open.weight.saturating_add(weight) > target.saturating_mul(4) {
            return true;
        }
        let threshold = u128::from(weight) * (u128::from(u64::MAX) + 1) / u128::from(target);
        u128::from(xxh3_64(path)) < threshold
    }
}

#[cfg(test)]
pub(in crate::publish) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::layer::Metadata;
    use crate::path::order;
    use crate::view::EntryContent;

    pub(in crate::publish) fn entry(path: &str, node: u64, kind: Kind, size: u64) -> TreeEntry {
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        TreeEntry {
            path: path.as_bytes().to_vec(),
            node,
            kind,
            metadata: Metadata { mode: Some(mode), owner: Some((0, 0)), mtime: Some((1, 0)), device: (0, 0) },
            size,
            links: 1,
            target: Vec::new(),
            xattrs: Vec::new(),
            content: EntryContent::Data(node),
            sha256: None,
        }
    }

    type Tree = BTreeMap<String, u64>;

    /// Files with sizes in thousands; with `links`, every eighth is linked to the previous one.
    fn entries_of(tree: &Tree, links: bool) -> Vec<TreeEntry> {
        let mut all = vec![entry("", 0, Kind::Directory, 0)];
        let directories: BTreeSet<&str> = tree.keys().filter_map(|path| path.rsplit_once('/')).map(|(above, _)| above).collect();
        all.extend(directories.iter().enumerate().map(|(number, path)| entry(path, 1_000_000 + number as u64, Kind::Directory, 0)));
        let mut last = 0;
        for (number, (path, size)) in tree.iter().enumerate() {
            let mut file = entry(path, xxh3_64(path.as_bytes()), Kind::File, size * 1000);
            if links && number % 8 == 7 && last != 0 {
                (file.node, file.links) = (last, 2);
            }
            last = file.node;
            all.push(file);
        }
        let linked: BTreeSet<u64> = all.iter().filter(|entry| entry.links == 2).map(|entry| entry.node).collect();
        all.iter_mut().filter(|entry| linked.contains(&entry.node)).for_each(|entry| entry.links = 2);
        all.sort_by(|one, other| order(&one.path, &other.path));
        all
    }

    fn entries(tree: &Tree) -> Vec<TreeEntry> {
        entries_of(tree, true)
    }

    /// The names of each layer.
    fn layers(entries: &[TreeEntry]) -> Vec<Vec<Vec<u8>>> {
        let mut totals = Totals::default();
        let mut seen = BTreeSet::new();
        entries.iter().filter(|entry| seen.insert(entry.node)).for_each(|entry| totals.add(entry));
        let mut assigner = Assigner::new(&totals);
        let mut layers: Vec<Vec<Vec<u8>>> = Vec::new();
        for entry in entries {
            let group = match assigner.place(entry) {
                Placement::Group(group) | Placement::Alone(group) | Placement::Link { group, .. } => group as usize,
            };
            if group == layers.len() {
                layers.push(Vec::new());
            }
            layers[group].push(entry.path.clone());
        }
        layers
    }

    fn tree() -> impl Strategy<Value = Tree> {
        proptest::collection::btree_map("[a-d]{1,2}/[a-z]{1,4}", prop_oneof![0..100_u64, 500..5000_u64], 0..300)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_entry_is_in_exactly_one_layer_and_hard_links_share_it(tree in tree()) {
            let entries = entries(&tree);
            let layers = layers(&entries);
            let placed: Vec<&Vec<u8>> = layers.iter().flatten().collect();
            let unique: BTreeSet<&Vec<u8>> = placed.iter().copied().collect();
            prop_assert_eq!(placed.len(), entries.len());
            prop_assert_eq!(unique.len(), entries.len());
            let mut of_node: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
            for entry in entries.iter().filter(|entry| entry.links > 1) {
                let layer = layers.iter().position(|layer| layer.contains(&entry.path)).unwrap();
                of_node.entry(entry.node).or_default().insert(layer);
            }
            prop_assert!(of_node.values().all(|layers| layers.len() == 1));
        }

        #[test]
        fn the_same_tree_gives_the_same_layers(tree in tree()) {
            prop_assert_eq!(layers(&entries(&tree)), layers(&entries(&tree)));
        }

        #[test]
        fn groups_stay_within_their_bounds(tree in tree()) {
            let entries = entries(&tree);
            let weights: BTreeMap<&[u8], u64> = entries.iter().map(|entry| (entry.path.as_slice(), weight(entry.kind, entry.size))).collect();
            for layer in layers(&entries).iter().filter(|layer| layer.len() > 2) {
                let sum: u64 = layer.iter().map(|path| weights[path.as_slice()]).sum();
                // Further names of a file do not count when boundaries are drawn.
                prop_assert!(sum <= 4 * Sizes::default().group + 300 * Sizes::default().large / 8, "{}", sum);
            }
        }
    }

    fn many(files: usize) -> Tree {
        (0..files).map(|number| (format!("d{:02}/f{number:05}", number % 50), 20 + (number as u64 * 7919) % 180)).collect()
    }

    fn untouched(before: &Tree, after: &Tree) -> (usize, usize) {
        let sizes = |tree: &Tree| -> BTreeSet<Vec<(Vec<u8>, u64)>> {
            let entries = entries_of(tree, false);
            let size: BTreeMap<Vec<u8>, u64> = entries.iter().map(|entry| (entry.path.clone(), entry.size)).collect();
            layers(&entries).into_iter().map(|layer| layer.into_iter().map(|path| (path.clone(), size[&path])).collect()).collect()
        };
        let (before, after) = (sizes(before), sizes(after));
        (after.intersection(&before).count(), after.len())
    }

    #[test]
    fn an_edit_changes_few_layers() {
        let before = many(5000);
        assert!(layers(&entries(&before)).len() > 20);
        let mut grown = before.clone();
        *grown.get_mut("d07/f01007").unwrap() += 50;
        let mut added = before.clone();
        added.insert("d20/new".to_owned(), 90);
        let mut removed = before.clone();
        removed.remove("d33/f02033");
        for after in [grown, added, removed] {
            let (same, all) = untouched(&before, &after);
            assert!(all - same <= 3, "{same} of {all} layers are the same");
        }
    }

    #[test]
    fn a_small_tree_is_one_layer_and_a_large_file_one_of_its_own() {
        let small: Tree = [("a/x".to_owned(), 10), ("b".to_owned(), 3)].into();
        assert_eq!(layers(&entries(&small)).len(), 1);
        let large: Tree = [("a/x".to_owned(), 10), ("b".to_owned(), 5000)].into();
        assert_eq!(layers(&entries(&large)), [vec![b"".to_vec(), b"a".to_vec(), b"a/x".to_vec()], vec![b"b".to_vec()]]);
    }

    #[test]
    fn a_huge_tree_does_not_outgrow_a_manifest() {
        let file = |number: u64| entry(&format!("f{number:06}"), number, Kind::File, Sizes::default().large);
        let mut totals = Totals::default();
        (0..20_000).for_each(|number| totals.add(&file(number)));
        let mut assigner = Assigner::new(&totals);
        (0..20_000).for_each(|number| {
            assigner.place(&file(number));
        });
        assert!(assigner.groups < 4000, "{} layers", assigner.groups);
    }
}
