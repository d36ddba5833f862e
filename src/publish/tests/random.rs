//! Random edits, published again and again: another reader always sees what is staged.

use proptest::prelude::*;

use super::world::{Edit, Seen, World};
use crate::artifact::Kind;
use crate::oci::media_type;
use crate::publish::{ArtifactKind, Options};
use crate::view::{Overlay, Replace, SetAttributes};
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
    Mode(usize, u32),
    Attribute(usize, u8),
    Publish,
}

const PATHS: [&str; 12] = ["a", "b", "c", "d", "a/x", "a/y", "b/x", "b/y", "a/x/1", "a/x/2", "b/x/1", "c/z"];

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
        1 => (path(), 0..0o1000_u32).prop_map(|(path, mode)| Step::Mode(path, mode)),
        1 => (path(), any::<u8>()).prop_map(|(path, value)| Step::Attribute(path, value)),
        2 => Just(Step::Publish),
    ]
}

/// A step that cannot be done is none.
async fn apply(world: &World, overlay: &Arc<Overlay>, step: &Step) {
    let edit = Edit(world, overlay);
    let find = |path: &str| path.split('/').try_fold(0, |node, name| overlay.lookup(node, name.as_bytes()).ok().flatten());
    let kind = |path: &str| find(path).map(|node| overlay.attributes(&world.publisher.context, node).unwrap().kind);
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
        Step::Directory(path) if above(PATHS[path]) && kind(PATHS[path]).is_none() => edit.dir(PATHS[path]),
        Step::Symlink(path) if above(PATHS[path]) && kind(PATHS[path]).is_none() => {
            edit.make(PATHS[path], Kind::Symlink, "a/x");
        }
        Step::Remove(path) if kind(PATHS[path]).is_some() => {
            // A directory that is not empty stays.
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
        Step::Attribute(path, value) if kind(PATHS[path]) == Some(Kind::File) => {
            overlay.set_xattr(find(PATHS[path]).unwrap(), b"user.x", &[value], false, false).unwrap();
        }
        _ => {}
    }
}

/// Without what a version is not made for, and the tag's own directory.
fn comparable(seen: Vec<Seen>) -> Vec<Seen> {
    let own = |seen: &Seen| !seen.path.is_empty();
    let timeless = |mut seen: Seen| {
        if seen.kind == Kind::Directory {
            seen.mtime = None;
        }
        seen
    };
    seen.into_iter().filter(own).map(timeless).collect()
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

async fn check(kind: Option<ArtifactKind>, steps: &[Step]) {
    let world = World::with(kind.unwrap_or_default(), None);
    let overlay = match kind {
        Some(_) => world.empty("v1").await,
        None => {
            let layer = base_layer();
            let layers = [("application/vnd.oci.image.layer.v1.tar", layer.as_slice(), [].as_slice())];
            let digest = world.registry.add_artifact("app", "v1", (media_type::OCI_CONFIG, b"{}"), &layers, &[]);
            world.over("v1", digest).await
        }
    };
    for step in steps.iter().chain([&Step::Publish]) {
        if !matches!(step, Step::Publish) {
            apply(&world, &overlay, step).await;
            continue;
        }
        let staged = world.staged(&overlay).await;
        let (report, _) = world.publish_with(&overlay, Options { force: true, ..Options::default() }).await.unwrap();
        let digest = overlay.binding().expected.unwrap_or_else(|| panic!("{report:?}"));
        assert_eq!(comparable(world.seen(&digest).await), comparable(staged), "{report:?}");
    }
}

/// `OCIFS_LONG=1` tries many more.
fn cases() -> u32 {
    if std::env::var_os("OCIFS_LONG").is_some() { 1000 } else { 24 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn every_version_shows_what_was_staged(steps in proptest::collection::vec(step(), 1..40), which in 0..4) {
        let kind = [Some(ArtifactKind::Files), Some(ArtifactKind::Image), Some(ArtifactKind::OciSync), None][which as usize];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(kind, &steps));
    }
}
