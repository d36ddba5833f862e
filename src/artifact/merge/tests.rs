//! Merging: each rule by name, then random layers against a naive model.

mod peak;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::artifact::tree::{Kind, Tree};
use crate::layer::{Extent, Metadata};
use crate::sys::array::Scratch;

/// An entry of a synthetic layer.
#[derive(Clone, Debug)]
struct Item {
    path: &'static str,
    kind: FileKind,
    link: &'static str,
    mtime: i64,
    mode: u32,
}

impl Item {
    fn of(path: &'static str, kind: FileKind, link: &'static str) -> Self {
        Self { path, kind, link, mtime: 7, mode: 0o640 }
    }
    fn at(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }
}

fn file(path: &'static str) -> Item {
    Item::of(path, FileKind::File, "")
}
fn dir(path: &'static str) -> Item {
    Item::of(path, FileKind::Directory, "")
}
fn link(path: &'static str, target: &'static str) -> Item {
    Item::of(path, FileKind::Symlink, target)
}
fn hard(path: &'static str, target: &'static str) -> Item {
    Item::of(path, FileKind::HardLink, target)
}

struct Layer(Vec<Item>);

impl Entries for Layer {
    fn entry_count(&self) -> u32 {
        self.0.len() as u32
    }
    fn entry(&self, number: u32) -> Option<Entry<'_>> {
        self.0.get(number as usize).map(|item| Entry {
            path: item.path.as_bytes(),
            kind: item.kind,
            metadata: Metadata { mode: Some(item.mode), owner: Some((5, 6)), mtime: Some((item.mtime, 0)), device: (1, 3) },
            size: if item.kind == FileKind::File { 3 } else { item.link.len() as u64 },
            link: item.link.as_bytes(),
            sha256: None,
            number,
        })
    }
    fn extents(&self, number: u32) -> Vec<Extent> {
        vec![Extent { file: 0, stream: u64::from(number) * 512, length: 3 }]
    }
    fn xattrs(&self, _: u32) -> Vec<(&[u8], &[u8])> {
        vec![(b"user.a", b"1"), (b"user.oci.digest", b"a lie")]
    }
}

fn image() -> Placing {
    Placing { whiteouts: true, ..Placing::default() }
}

fn merge_as(layers: &[Vec<Item>], placing: &Placing) -> (Tree, Vec<String>) {
    let layers: Vec<Layer> = layers.iter().map(|items| Layer(items.clone())).collect();
    let mut merge = Merge::new(&Scratch::memory()).unwrap();
    for (number, layer) in layers.iter().enumerate() {
        merge.layer(number as u32, layer, placing).unwrap();
    }
    let warnings = merge.warnings().to_vec();
    let sources: Vec<MergeSource<'_>> =
        layers.iter().map(|layer| MergeSource::Layer { entries: layer, image: placing.whiteouts }).collect();
    (Tree::open(Arc::new(merge.encode(&sources).unwrap())).unwrap(), warnings)
}

fn merged(layers: &[Vec<Item>]) -> Tree {
    merge_as(layers, &image()).0
}

fn find(tree: &Tree, path: &str) -> Option<u32> {
    tree.find(path.as_bytes())
}

/// Every path with its kind, source layer and entry (from the content or the time).
fn listing(tree: &Tree) -> Vec<String> {
    fn walk(tree: &Tree, directory: u32, above: &str, out: &mut Vec<String>) {
        for child in tree.children(directory, 0) {
            let path = format!("{above}{}", String::from_utf8_lossy(child.name));
            let is_directory = tree.node(child.node).unwrap().kind == Kind::Directory;
            if is_directory {
                out.push(format!("{path}/"));
                assert_eq!(tree.parent(child.node), directory, "{path}");
                walk(tree, child.node, &format!("{path}/"), out);
            } else {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(tree, 0, "", &mut out);
    out
}

#[test]
fn names_are_sorted_and_cookies_continue_after_a_name() {
    let tree = merged(&[vec![file("b"), file("a"), file("c/x"), file("aa")]]);
    assert_eq!(listing(&tree), ["a", "aa", "b", "c/", "c/x"]);
    let all: Vec<_> = tree.children(0, 0).collect();
    for (position, child) in all.iter().enumerate() {
        let rest: Vec<_> = tree.children(0, child.cookie).collect();
        assert_eq!(rest, all[position + 1..]);
        assert_ne!(child.cookie, 0);
    }
    assert_eq!(tree.lookup(0, b"nope"), None);
    assert_eq!(tree.children(99, 0).count(), 0);
    assert_eq!(tree.node(99), None);
}

#[test]
fn a_missing_parent_copies_owner_and_time_from_its_first_child_but_is_root_s_in_an_image() {
    let tree = merged(&[vec![file("a/b/c").at(42)]]);
    assert_eq!(tree.node(find(&tree, "a/b").unwrap()).unwrap().metadata.owner, Some((0, 0)));
    let (tree, _) = merge_as(&[vec![file("a/b/c").at(42)]], &Placing::default());
    let node = tree.node(find(&tree, "a/b").unwrap()).unwrap();
    assert_eq!(node.metadata, Metadata { mode: Some(0o755), owner: Some((5, 6)), mtime: Some((42, 0)), device: (0, 0) });
    assert!(tree.xattrs(find(&tree, "a").unwrap()).is_empty());
    let root = tree.node(0).unwrap();
    assert_eq!(
        (root.metadata, root.links),
        (Metadata { mtime: Some((42, 0)), ..Metadata::default() }, 3),
        "the time is that of its first name"
    );
}

#[test]
fn a_root_entry_describes_the_root() {
    let tree = merged(&[vec![dir("").at(9), file("a")]]);
    assert_eq!(tree.node(0).unwrap().metadata.mtime, Some((9, 0)));
    assert_eq!(tree.node(0).unwrap().metadata.mode, Some(0o640));
}

#[test]
fn a_whiteout_acts_only_on_lower_layers() {
    let tree = merged(&[vec![file("a"), file("d/x"), file("b")], vec![file("a"), file(".wh.a"), file(".wh.d"), file("d/y")]]);
    assert_eq!(listing(&tree), ["a", "b", "d/", "d/y"]);
    assert_eq!(tree.content(find(&tree, "a").unwrap()).unwrap().blob, 1);
    let tree = merged(&[vec![file(".wh.a"), file("a"), file("b")]]);
    assert_eq!(listing(&tree), ["a", "b"]);
}

#[test]
fn an_opaque_mark_hides_lower_children_wherever_it_appears() {
    let lower = vec![dir("d").at(1), file("d/old"), file("d/sub/old"), file("keep")];
    let tree = merged(&[lower.clone(), vec![file("d/new"), file("d/sub/new"), file("d/.wh..wh..opq")]]);
    assert_eq!(listing(&tree), ["d/", "d/new", "d/sub/", "d/sub/new", "keep"]);
    assert_eq!(tree.node(find(&tree, "d").unwrap()).unwrap().metadata.mtime, Some((1, 0)));
    let tree = merged(&[lower, vec![file(".wh..wh..opq"), file("z")], vec![file("keep")]]);
    assert_eq!(listing(&tree), ["keep", "z"]);
}

#[test]
fn aufs_bookkeeping_names_are_hidden() {
    let tree = merged(&[vec![file("a")], vec![file(".wh..wh.aufs"), file(".wh..wh.plnk/1"), file("b"), file(".wh.")]]);
    assert_eq!(listing(&tree), ["a", "b"]);
}

#[test]
fn whiteouts_are_ordinary_names_outside_of_images() {
    let (tree, _) = merge_as(&[vec![file("a"), file(".wh.a"), file("d/.wh..wh..opq")]], &Placing::default());
    assert_eq!(listing(&tree), [".wh.a", "a", "d/", "d/.wh..wh..opq"]);
}

#[test]
fn links_of_other_layers_are_never_followed() {
    let lower = vec![file("real/x"), link("p", "real")];
    let tree = merged(&[lower.clone(), vec![file("p/.wh.x")]]);
    assert_eq!(listing(&tree), ["p", "real/", "real/x"]);
    let tree = merged(&[lower.clone(), vec![file("p/new")]]);
    assert_eq!(listing(&tree), ["p/", "p/new", "real/", "real/x"]);
    let tree = merged(&[vec![file("p/child")], vec![link("p", "/etc"), file("p/.wh.child")]]);
    assert_eq!(listing(&tree), ["p"]);
    assert_eq!(tree.target(find(&tree, "p").unwrap()), Some(&b"/etc"[..]));
    let (tree, warnings) = merge_as(&[lower, vec![hard("h", "p/x")]], &image());
    assert_eq!((listing(&tree).contains(&"h".to_owned()), warnings.len()), (false, 1));
}

#[test]
fn an_entry_below_a_link_of_its_own_layer_follows_the_link() {
    let real = || vec![dir("real"), file("real/v")];
    for target in ["real", "./real/", "/real", "a/../../real", "/a/../real"] {
        let items = [real(), vec![dir("d/a"), dir("a"), link("d/ln", target), link("ln", "real")]].concat();
        let target_of_d = target.starts_with('/') || target.starts_with("a/");
        let tree = merged(&[[items, vec![file("ln/f"), file("d/ln/g"), hard("w", "ln/v")]].concat()]);
        let found = listing(&tree);
        assert!(found.contains(&"ln".to_owned()) && found.contains(&"real/f".to_owned()), "{target}: {found:?}");
        assert_eq!(found.contains(&"real/g".to_owned()), target_of_d, "{target}: {found:?}");
        assert_eq!(find(&tree, "w"), find(&tree, "real/v"), "{target}");
    }
    // A link to a link, and a link of a lower layer in between.
    let lower = vec![dir("usr/lib"), link("lib", "usr/lib")];
    let tree = merged(&[lower, vec![link("x", "lib"), link("y", "x/"), file("y/f"), dir("x/d"), file("y/d/g")]]);
    assert_eq!(listing(&tree), ["lib", "usr/", "usr/lib/", "usr/lib/d/", "usr/lib/d/g", "usr/lib/f", "x", "y"]);
}

#[test]
fn a_dangling_link_is_replaced_by_a_directory() {
    let lower = vec![dir("real"), file("plain"), link("below", "real")];
    for target in ["gone", "real/../../real", "../real", "ln", "loop", "plain", "real/gone", "/../real"] {
        let items = vec![link("loop", "ln"), link("ln", target), file("ln/f")];
        let found = listing(&merged(&[lower.clone(), items]));
        assert!(found.contains(&"ln/f".to_owned()) && !found.contains(&"real/f".to_owned()), "{target}: {found:?}");
    }
    // Links of lower layers, later links, and whiteouts: unaffected.
    assert!(listing(&merged(&[lower.clone(), vec![file("below/f")]])).contains(&"below/f".to_owned()));
    assert_eq!(listing(&merged(&[vec![dir("real"), file("ln/f"), link("ln", "real")]])), ["ln", "real/"]);
    let tree = merged(&[vec![dir("real"), file("real/x")], vec![link("ln", "real"), file("ln/.wh.x")]]);
    assert_eq!(listing(&tree), ["ln", "real/", "real/x"]);
    let bomb = "real/../".repeat(200);
    let found = listing(&merged(&[vec![dir("real"), link("ln", Box::leak(bomb.into_boxed_str())), file("ln/f")]]));
    assert_eq!(found, ["ln/", "ln/f", "real/"]);
}

#[test]
fn links_stay_inside_the_directory_a_layer_is_unpacked_into() {
    let placing = Placing { at: b"at".to_vec(), strip: b"docs".to_vec(), ..Placing::default() };
    let items =
        vec![dir("docs/real"), link("docs/abs", "/docs/real"), file("docs/abs/f"), link("docs/up", "../at/real"), file("docs/up/g")];
    let (tree, _) = merge_as(&[items], &placing);
    assert_eq!(listing(&tree), ["at/", "at/abs", "at/real/", "at/real/f", "at/up/", "at/up/g"]);
}

#[test]
fn links_cannot_exceed_the_depth_limit() {
    let deep: &'static str = Box::leak("d/".repeat(1500).into_boxed_str());
    let path = |start: &str| -> &'static str { Box::leak(format!("{start}/{deep}f").into_boxed_str()) };
    // 256 components in one link would be too many to follow, so links point to each other.
    let mut items = vec![dir(deep.trim_end_matches('/'))];
    let mut at = String::new();
    for number in 0..8 {
        let step = "d/".repeat(200);
        let from: &'static str = Box::leak(format!("{at}l{number}").into_boxed_str());
        items.push(link(from, Box::leak(step.clone().into_boxed_str())));
        at = format!("{from}/");
    }
    items.push(file(path(at.trim_end_matches('/'))));
    let (tree, warnings) = merge_as(&[items], &image());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(tree.node_count() < 2 * DEPTH_LIMIT as u32);
}

#[test]
fn a_later_entry_replaces_an_earlier_one_and_directories_merge() {
    let tree = merged(&[vec![dir("d").at(1), file("d/x"), file("f"), dir("e"), file("e/y")], vec![dir("d").at(2), dir("f"), file("e")]]);
    assert_eq!(listing(&tree), ["d/", "d/x", "e", "f/"]);
    assert_eq!(tree.node(find(&tree, "d").unwrap()).unwrap().metadata.mtime, Some((2, 0)));
    let tree = merged(&[vec![file("a").at(1), file("a").at(2)]]);
    assert_eq!(tree.node(find(&tree, "a").unwrap()).unwrap().metadata.mtime, Some((2, 0)));
}

#[test]
fn hard_links_share_a_node_and_count() {
    let tree = merged(&[vec![file("a"), hard("b", "a")], vec![hard("d/c", "a")], vec![file(".wh.a")]]);
    assert_eq!(listing(&tree), ["b", "d/", "d/c"]);
    let node = find(&tree, "b").unwrap();
    assert_eq!(find(&tree, "d/c"), Some(node));
    assert_eq!(tree.node(node).unwrap().links, 2);
}

#[test]
fn a_hard_link_may_precede_its_target() {
    let (tree, warnings) = merge_as(&[vec![hard("b", "z"), hard("c", "b"), file("z")]], &image());
    assert_eq!((listing(&tree), warnings.len()), (vec!["b".to_owned(), "c".to_owned(), "z".to_owned()], 0));
    assert_eq!(find(&tree, "c"), find(&tree, "z"));
}

#[test]
fn a_hard_link_without_target_or_to_a_directory_is_dropped_with_a_warning() {
    let (tree, warnings) = merge_as(&[vec![dir("d"), hard("x", "gone"), hard("y", "d"), file("z")]], &image());
    assert_eq!(listing(&tree), ["d/", "z"]);
    assert_eq!(warnings.len(), 2);
}

#[test]
fn a_hard_link_finds_what_its_own_layer_whites_out() {
    let tree = merged(&[vec![file("a")], vec![hard("b", "a"), file(".wh.a")]]);
    assert_eq!(listing(&tree), ["b"]);
    assert_eq!(tree.content(find(&tree, "b").unwrap()).unwrap().blob, 0);
}

#[test]
fn a_name_recreated_after_a_whiteout_is_a_new_file() {
    let tree = merged(&[vec![file("a")], vec![file(".wh.a")], vec![file("a")], vec![file(".wh.a")], vec![dir("a")]]);
    assert_eq!(listing(&tree), ["a/"]);
}

#[test]
fn the_files_of_estargz_are_left_out_at_the_root_only() {
    let items = vec![file("stargz.index.json"), file(".prefetch.landmark"), file(".no.prefetch.landmark"), file("d/stargz.index.json")];
    let (tree, _) = merge_as(std::slice::from_ref(&items), &Placing { estargz: true, ..image() });
    assert_eq!(listing(&tree), ["d/", "d/stargz.index.json"]);
    assert_eq!(listing(&merged(&[items])).len(), 5);
}

#[test]
fn a_layer_can_be_placed_in_a_directory_without_its_own_prefix() {
    let placing = Placing { at: b"out/docs".to_vec(), strip: b"docs".to_vec(), ..Placing::default() };
    let items = vec![dir("docs").at(3), file("docs/a"), hard("docs/b", "docs/a"), file("outside")];
    let (tree, _) = merge_as(&[items], &placing);
    assert_eq!(listing(&tree), ["out/", "out/docs/", "out/docs/a", "out/docs/b", "out/docs/outside"]);
    assert_eq!(tree.node(find(&tree, "out/docs").unwrap()).unwrap().metadata.mtime, Some((3, 0)));
    assert_eq!(find(&tree, "out/docs/a"), find(&tree, "out/docs/b"));
}

#[test]
fn invalid_names_are_replaced_by_safe_ones_and_entries_too_deep_are_dropped() {
    let long: &'static str = Box::leak("n".repeat(256).into_boxed_str());
    let deep: &'static str = Box::leak("d/".repeat(3000).into_boxed_str());
    let (tree, warnings) = merge_as(&[vec![file(long), file("nul\0"), file(deep), hard("ok", long)]], &image());
    let names: Vec<Vec<u8>> = tree.children(0, 0).map(|child| child.name.to_vec()).collect();
    // The parent directories of the entry that was too deep stay.
    assert_eq!(names, [b"d".to_vec(), safe_name(long.as_bytes()), safe_name(b"nul\0"), b"ok".to_vec()]);
    assert_eq!((find(&tree, "ok"), warnings.len()), (tree.lookup(0, &safe_name(long.as_bytes())), 1));
}

#[test]
fn archived_attributes_of_ocifs_are_ignored() {
    let tree = merged(&[vec![file("a")]]);
    assert_eq!(tree.xattrs(find(&tree, "a").unwrap()), [(&b"user.a"[..], &b"1"[..])]);
}

#[test]
fn raw_files_have_only_the_attributes_of_the_manifest() {
    let raw = RawFile { size: 4, title: Some("t".to_owned()), ..RawFile::default() };
    let mut merge = Merge::new(&Scratch::memory()).unwrap();
    merge.raw(0, b"d/t").unwrap();
    assert_eq!(merge.occupied(b"d/t"), Occupied::File(0, 0));
    assert_eq!(merge.occupied(b"d/t/x"), Occupied::Blocked);
    assert_eq!(merge.occupied(b"d"), Occupied::Directory);
    assert_eq!(merge.occupied(b"e/f"), Occupied::Free);
    let tree = Tree::open(Arc::new(merge.encode(&[MergeSource::Raw(&raw)]).unwrap())).unwrap();
    let node = tree.node(find(&tree, "d/t").unwrap()).unwrap();
    assert_eq!((node.metadata, node.size, node.links), (Metadata::default(), 4, 1));
    assert_eq!(tree.node(find(&tree, "d").unwrap()).unwrap().metadata.mode, None);
    assert_eq!(tree.content(find(&tree, "d/t").unwrap()).unwrap().extents, [Extent { file: 0, stream: 0, length: 4 }]);
    assert_eq!(tree.xattrs(find(&tree, "d/t").unwrap()), [(&b"user.oci.title"[..], &b"t"[..])]);
}

#[test]
fn a_damaged_tree_is_refused_as_a_whole() {
    let tree = merged(&[vec![file("a"), link("l", "t"), file("d/x")]]);
    let good = tree.as_bytes().to_vec();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(Tree::open(Arc::new(bad)).is_err(), "byte {at}");
        assert!(Tree::open(Arc::new(good[..at].to_vec())).is_err(), "cut at {at}");
    }
}

/// An entry of each kind; the file is sparse, and its SHA-256 is known.
struct OfEachKind;

impl Entries for OfEachKind {
    fn entry_count(&self) -> u32 {
        7
    }
    fn entry(&self, number: u32) -> Option<Entry<'_>> {
        use FileKind::{BlockDevice, CharDevice, Fifo, File, HardLink, Socket, Symlink};
        let (path, kind, link): (&[u8], _, &[u8]) = [
            (&b"implied/file"[..], File, &b""[..]),
            (b"link", Symlink, b"implied/file"),
            (b"again", HardLink, b"implied/file"),
            (b"tty", CharDevice, b""),
            (b"disk", BlockDevice, b""),
            (b"pipe", Fifo, b""),
            (b"socket", Socket, b""),
        ][number as usize];
        let metadata = Metadata { mode: Some(0o4755), owner: Some((1, 70_000)), mtime: Some((-2, 500_000_000)), device: (4, 65) };
        let size = if kind == File { 5000 } else { 0 };
        Some(Entry { path, kind, metadata, size, link, sha256: (kind == File).then_some([7; 32]), number })
    }
    fn extents(&self, _: u32) -> Vec<Extent> {
        vec![Extent { file: 10, stream: 512, length: 100 }, Extent { file: 4000, stream: 1024, length: 1000 }]
    }
    fn xattrs(&self, number: u32) -> Vec<(&[u8], &[u8])> {
        if number < 2 { vec![(b"user.a", b"1"), (b"user.bc", b"22")] } else { Vec::new() }
    }
}

#[test]
fn version_4_is_stable_byte_for_byte() {
    let raw = RawFile { size: 4, title: Some("t".to_owned()), sha256: Some([9; 32]), ..RawFile::default() };
    let mut merge = Merge::new(&Scratch::memory()).unwrap();
    merge.layer(0, &OfEachKind, &image()).unwrap();
    merge.raw(1, b"raw/t").unwrap();
    merge.directory(b"bare").unwrap();
    merge.warn(|| "a\nwarning".to_owned());
    let sources = [MergeSource::Layer { entries: &OfEachKind, image: true }, MergeSource::Raw(&raw)];
    let bytes = merge.encode(&sources).unwrap();
    let digest = crate::oci::Digest::of(&bytes).to_string();
    // If this changes, VERSION must too.
    assert_eq!(
        (crate::artifact::tree::VERSION, bytes.len(), &*digest),
        (4, 1597, "sha256:6d4f587e416401fca3f2a4f8aca2dd3c6895078f8889ee889742f60e373c056b")
    );
}

/// The model: directories as nested maps, everything done in the obvious way.
#[derive(Clone, Debug)]
enum Model {
    File(u32, u32),
    Directory(Box<Folder>),
}

#[derive(Clone, Debug, Default)]
struct Folder {
    names: BTreeMap<String, Model>,
    removed: BTreeMap<String, Model>,
}

impl Folder {
    fn folder(&mut self, path: &[&str], make: bool) -> Option<&mut Folder> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        if make && !matches!(self.names.get(*first), Some(Model::Directory(_))) {
            self.names.insert((*first).to_owned(), Model::Directory(Box::default()));
        }
        match self.names.get_mut(*first) {
            Some(Model::Directory(folder)) => folder.folder(rest, make),
            _ => None,
        }
    }

    fn forget_removed(&mut self) {
        self.removed.clear();
        for child in self.names.values_mut() {
            if let Model::Directory(folder) = child {
                folder.forget_removed();
            }
        }
    }

    fn apply(&mut self, layer: u32, items: &[Item]) {
        self.forget_removed();
        for item in items {
            let (above, name) = parts(item.path);
            if let Some(hidden) = name.strip_prefix(".wh.")
                && let Some(folder) = self.folder(&above, false)
            {
                if hidden == ".wh..opq" {
                    folder.names.clear();
                    folder.removed.clear();
                } else if let Some(child) = folder.names.remove(hidden) {
                    folder.removed.insert(hidden.to_owned(), child);
                }
            }
        }
        let mut late = Vec::new();
        for (number, item) in items.iter().enumerate() {
            if !item.path.contains(".wh.") && !self.put(layer, number as u32, item) {
                late.push(number);
            }
        }
        for number in late {
            self.put(layer, number as u32, &items[number]);
        }
    }

    fn put(&mut self, layer: u32, number: u32, item: &Item) -> bool {
        let (above, name) = parts(item.path);
        let node = match item.kind {
            FileKind::HardLink => {
                let (above, name) = parts(item.link);
                let found = self.folder(&above, false).and_then(|folder| folder.names.get(name).or_else(|| folder.removed.get(name)));
                match found {
                    None => return false,
                    Some(Model::Directory(_)) => return true,
                    Some(file) => file.clone(),
                }
            }
            FileKind::Directory => Model::Directory(Box::default()),
            _ => Model::File(layer, number),
        };
        let folder = self.folder(&above, true).unwrap();
        if !matches!((&node, folder.names.get(name)), (Model::Directory(_), Some(Model::Directory(_)))) {
            folder.names.insert(name.to_owned(), node);
        }
        true
    }

    fn list(&self, above: &str, out: &mut Vec<String>) {
        for (name, child) in &self.names {
            match child {
                Model::File(layer, number) => out.push(format!("{above}{name} {layer} {number}")),
                Model::Directory(folder) => {
                    out.push(format!("{above}{name}/"));
                    folder.list(&format!("{above}{name}/"), out);
                }
            }
        }
    }
}

fn parts(path: &'static str) -> (Vec<&'static str>, &'static str) {
    let mut all: Vec<&str> = path.split('/').collect();
    let name = all.pop().unwrap();
    (all, name)
}

/// Like [`listing`], with layer and entry of each file.
fn origins(tree: &Tree) -> Vec<String> {
    listing(tree)
        .into_iter()
        .map(|path| {
            if path.ends_with('/') {
                return path;
            }
            let content = tree.content(find(tree, &path).unwrap()).unwrap();
            format!("{path} {} {}", content.blob, content.extents[0].stream / 512)
        })
        .collect()
}

fn any_item() -> impl Strategy<Value = Item> {
    const NAMES: [&str; 9] = ["a", "b", "a/b", "a/a", "b/a", "a/b/a", "a/b/b", "b/a/a", "a/a/b"];
    const MARKS: [&str; 8] = [".wh.a", ".wh.b", "a/.wh.a", "a/.wh.b", "b/.wh.a", "a/.wh..wh..opq", ".wh..wh..opq", "a/b/.wh..wh..opq"];
    prop_oneof![
        4 => prop::sample::select(&NAMES[..]).prop_map(file),
        3 => prop::sample::select(&NAMES[..]).prop_map(dir),
        2 => (prop::sample::select(&NAMES[..]), prop::sample::select(&NAMES[..])).prop_map(|(path, target)| hard(path, target)),
        2 => prop::sample::select(&MARKS[..]).prop_map(file),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn random_layers_merge_as_in_the_naive_model(layers in prop::collection::vec(prop::collection::vec(any_item(), 0..10), 0..5)) {
        let mut model = Folder::default();
        for (number, items) in layers.iter().enumerate() {
            model.apply(number as u32, items);
        }
        let mut expected = Vec::new();
        model.list("", &mut expected);
        let tree = merged(&layers);
        prop_assert_eq!(origins(&tree), expected);
        for node in 0..tree.node_count() {
            let found = tree.node(node).unwrap();
            if found.kind == Kind::Directory {
                let inner = tree.children(node, 0).filter(|child| tree.node(child.node).unwrap().kind == Kind::Directory).count();
                prop_assert_eq!(found.links as usize, 2 + inner);
            }
        }
    }
}
