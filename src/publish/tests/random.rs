//! Random edits, published repeatedly: another reader always sees what is staged. Layers and spans are small, so that everything crosses their
//! boundaries.

use proptest::prelude::*;

use super::comparing::counts;
use super::fixture::{Edit, PublishFixture, Seen};
use crate::artifact::{Kind, ViewMode};
use crate::layer::FileKind;
use crate::oci::{Digest, media_type};
use crate::publish::{ArtifactKind, Options, Sizes};
use crate::view::{Overlay, Replace, SetAttributes};
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u16),
    Directory(usize),
    Symlink(usize),
    Remove(usize),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    /// A file of this many bytes that is a hole except for the last one.
    Hole(usize, u16),
    Mode(usize, u32),
    Owner(usize, u32),
    Attribute(usize, u8),
    Publish,
}

/// Many share directories, and some have common prefixes.
const PATHS: [&str; 20] = [
    "a", "b", "c", "d", "a/x", "a/y", "b/x", "b/y", "a/x/1", "a/x/2", "b/x/1", "c/z", "a-b", "a.txt", "ab", "ab/x", "a/x-1", "d/e",
    "d/e/f", "d/e/f/g",
];

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    prop_oneof![
        4 => (path(), any::<u16>()).prop_map(|(path, size)| Step::Write(path, size % 5000)),
        3 => path().prop_map(Step::Directory),
        1 => path().prop_map(Step::Symlink),
        3 => path().prop_map(Step::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (path(), path()).prop_map(|(from, to)| Step::Exchange(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => (path(), any::<u16>()).prop_map(|(path, size)| Step::Hole(path, size)),
        1 => (path(), 0..3_u32).prop_map(|(path, owner)| Step::Owner(path, owner)),
        1 => (path(), 0..0o1000_u32).prop_map(|(path, mode)| Step::Mode(path, mode)),
        1 => (path(), any::<u8>()).prop_map(|(path, value)| Step::Attribute(path, value)),
        2 => Just(Step::Publish),
    ]
}

/// An impossible step does nothing.
async fn apply(fixture: &PublishFixture, overlay: &Arc<Overlay>, step: &Step) {
    let edit = Edit(fixture, overlay);
    let find = |path: &str| path.split('/').try_fold(0, |node, name| overlay.lookup(node, name.as_bytes()).ok().flatten());
    let kind = |path: &str| find(path).map(|node| overlay.attributes(&fixture.publisher.context, node).unwrap().kind);
    let above = |path: &str| path.rsplit_once('/').map_or(Some(Kind::Directory), |(above, _)| kind(above)) == Some(Kind::Directory);
    let place = |path: &'static str| {
        let (up, name) = path.rsplit_once('/').unwrap_or(("", path));
        (if up.is_empty() { 0 } else { find(up).unwrap() }, name.as_bytes())
    };
    match *step {
        Step::Write(path, size) => {
            let path = PATHS[path];
            if above(path) && matches!(kind(path), None | Some(Kind::File)) {
                edit.file(path, &vec![size as u8; size.into()]).await;
            }
        }
        Step::Hole(path, size) if above(PATHS[path]) && matches!(kind(PATHS[path]), None | Some(Kind::File)) => {
            edit.file(PATHS[path], b"").await;
            let writer = overlay.open_writer(&fixture.publisher.context, find(PATHS[path]).unwrap(), false).await.unwrap();
            writer.write(size.into(), b"!").await.unwrap();
            drop(writer);
            edit.time(PATHS[path]).await;
        }
        Step::Directory(path) if above(PATHS[path]) && kind(PATHS[path]).is_none() => edit.dir(PATHS[path]),
        Step::Symlink(path) if above(PATHS[path]) && kind(PATHS[path]).is_none() => {
            edit.make(PATHS[path], Kind::Symlink, "a/x");
        }
        Step::Remove(path) if kind(PATHS[path]).is_some() => {
            // A non-empty directory stays.
            let _ = overlay.remove(place(PATHS[path]).0, place(PATHS[path]).1, kind(PATHS[path]) == Some(Kind::Directory));
        }
        Step::Rename(from, to) if above(PATHS[to]) && kind(PATHS[from]).is_some() => {
            let _ = overlay.rename(place(PATHS[from]), place(PATHS[to]), Replace::Yes);
        }
        Step::Exchange(one, other) if kind(PATHS[one]).is_some() && kind(PATHS[other]).is_some() => {
            let _ = overlay.rename(place(PATHS[one]), place(PATHS[other]), Replace::Exchange);
        }
        Step::Link(from, to) if above(PATHS[to]) && kind(PATHS[to]).is_none() => {
            if matches!(kind(PATHS[from]), Some(Kind::File | Kind::Symlink)) {
                edit.link(PATHS[from], PATHS[to]);
            }
        }
        Step::Mode(path, mode) if matches!(kind(PATHS[path]), Some(Kind::File | Kind::Directory)) => {
            edit.set(PATHS[path], SetAttributes { mode: Some(mode), ..SetAttributes::default() }).await;
        }
        Step::Owner(path, owner) if kind(PATHS[path]).is_some() => {
            edit.set(PATHS[path], SetAttributes { uid: Some(owner), gid: Some(owner + 1), ..SetAttributes::default() }).await;
        }
        Step::Attribute(path, value) if matches!(kind(PATHS[path]), Some(Kind::File | Kind::Directory)) => {
            overlay.set_xattr(find(PATHS[path]).unwrap(), b"user.x", &[value], false, false).unwrap();
        }
        _ => {}
    }
}

/// Drops what a version does not preserve, and the tag's own directory.
fn comparable(seen: Vec<Seen>) -> Vec<Seen> {
    let own = |seen: &Seen| !seen.path.is_empty();
    // What was never set is published as the usual defaults.
    let settled = |seen: Seen| {
        let is_directory = seen.kind == Kind::Directory;
        let mode = seen.mode.or((seen.kind != Kind::Symlink).then_some(if is_directory { 0o755 } else { 0o644 }));
        let mtime = if is_directory { None } else { seen.mtime.or(Some((0, 0))) };
        Seen { mode, owner: seen.owner.or(Some((0, 0))), mtime, ..seen }
    };
    seen.into_iter().filter(own).map(settled).collect()
}

fn base_layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for name in ["a/", "a/x/", "a/x/1", "b/", "b/x", "c", "d"] {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1000);
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_size(0);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        } else {
            header.set_size(name.len() as u64);
        }
        archive.append_data(&mut header, name, if name.ends_with('/') { b"" } else { name.as_bytes() }).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The base of the edits.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// A new tag.
    New(ArtifactKind),
    /// An image, titled files, or a single archive, each written by another tool.
    Image,
    Titled,
    Archive,
}

const BASES: [Base; 6] = [
    Base::New(ArtifactKind::Files),
    Base::New(ArtifactKind::Image),
    Base::New(ArtifactKind::OciSync),
    Base::Image,
    Base::Titled,
    Base::Archive,
];

/// Mostly so small that a tree of a few names has many layers, and a layer many spans.
fn sizes() -> impl Strategy<Value = Sizes> {
    let span = |span| NonZeroUsize::new(span).unwrap();
    let small = (prop_oneof![Just(1_u64), 512..6000_u64], 1_u64..100_000, 512..9000_usize).prop_map(move |(large, group, bytes)| Sizes {
        large,
        group,
        span: span(bytes),
    });
    prop_oneof![1 => Just(Sizes::default()), 7 => small]
}

async fn begin(fixture: &PublishFixture, base: Base) -> Arc<Overlay> {
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    const TITLE: &str = "org.opencontainers.image.title";
    let layer = base_layer();
    let (config, layers) = match base {
        Base::New(_) => return fixture.empty("v1").await,
        Base::Image => (media_type::OCI_CONFIG, vec![(LAYER, layer.as_slice(), &[][..])]),
        Base::Archive => ("application/vnd.example.config", vec![(LAYER, layer.as_slice(), &[][..])]),
        Base::Titled => {
            let unpacked = &[(TITLE, "."), ("io.deis.oras.content.unpack", "true")][..];
            let files = [("a/b", &b"inside"[..], &[(TITLE, "a/y")][..]), ("a/b", b"beside", &[(TITLE, "d2/e")])];
            ("application/vnd.example.config", [(LAYER, layer.as_slice(), unpacked)].into_iter().chain(files).collect())
        }
    };
    let digest = fixture.registry.add_artifact("app", "v1", (config, b"{}"), &layers, &[]);
    fixture.over("v1", digest).await
}

/// ORAS unpacks layers in parallel, in any order, and creates no directory: every archive contains parents and link targets first.
async fn archives_stand_alone(fixture: &PublishFixture, digest: &Digest) {
    let artifacts = &fixture.publisher.context.artifacts;
    let repository = super::fixture::repository();
    let artifact = artifacts.artifact(&repository, digest, ViewMode::Merged, false).await.unwrap();
    for layer in artifact.layers().iter().filter(|layer| layer.unpacked && layer.index.is_some()) {
        let index = artifacts.layer_index(&repository, &artifact, layer.number, false).await.unwrap().unwrap();
        let mut named = HashSet::new();
        for entry in index.entries() {
            let path = String::from_utf8(entry.path.to_vec()).unwrap();
            if let Some((above, _)) = path.rsplit_once('/') {
                assert!(named.contains(above), "layer {}: {path} before {above}", layer.number);
            }
            if entry.kind == FileKind::HardLink {
                assert!(named.contains(std::str::from_utf8(entry.link).unwrap()), "layer {}: {path}", layer.number);
            }
            assert!(named.insert(path.clone()), "layer {}: {path} twice", layer.number);
        }
    }
}

async fn check(base: Base, sizes: Sizes, steps: &[Step]) {
    let kind = if let Base::New(kind) = base { kind } else { ArtifactKind::default() };
    let fixture = PublishFixture::with(kind, None).sized(sizes);
    let overlay = begin(&fixture, base).await;
    for step in steps.iter().chain([&Step::Publish]) {
        if !matches!(step, Step::Publish) {
            apply(&fixture, &overlay, step).await;
            continue;
        }
        let staged = fixture.staged(&overlay).await;
        let listed = counts(&overlay.differences().await.unwrap());
        let (report, _) = fixture.publish_with(&overlay, Options { force: true, ..Options::default() }).await.unwrap();
        assert_eq!(report.changes, listed, "`diff` lists what is published");
        let digest = overlay.binding().expected.unwrap_or_else(|| panic!("{report:?}"));
        assert_eq!(comparable(fixture.seen(&digest).await), comparable(staged), "{report:?}");
        archives_stand_alone(&fixture, &digest).await;
    }
}

/// `OCIFS_LONG=1` tries many more.
fn cases() -> u32 {
    if std::env::var_os("OCIFS_LONG").is_some() { 3000 } else { 96 }
}

#[tokio::test]
async fn a_single_write_on_every_base_shows_the_staged_tree() {
    for base in BASES {
        check(base, Sizes::default(), &[Step::Write(0, 0)]).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn every_version_shows_the_staged_tree(steps in proptest::collection::vec(step(), 1..60), base in proptest::sample::select(&BASES[..]), sizes in sizes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(base, sizes, &steps));
    }
}
