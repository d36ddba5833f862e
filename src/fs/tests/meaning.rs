//! Edits mean what they meant when they were begun, whichever mount or command takes them over.

use std::sync::Arc;

use super::metadata::add_index;
use super::world::*;
use crate::error::ErrorKind;
use crate::fs::Selection;
use crate::oci::{Digest, media_type};
use crate::publish::{ArtifactKind, Listener, Options, Outcome};
use crate::registry::Memory;
use crate::staging::{Binding, Subject, Uppers};
use crate::view::Meaning;

/// A registry with one tag of titled files.
fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &[("a.txt", "one"), ("b.txt", "two")]);
    registry
}

/// The next mount after one that is gone; what it says of the edits that it takes over.
async fn taken_over(world: World, setup: Setup) -> (World, Vec<Option<String>>) {
    let world = world.again(setup);
    let said = world.fs.adopt().await.into_iter().map(|tag| tag.as_staged).collect();
    (world, said)
}

async fn sync(world: &World) -> Vec<Outcome> {
    let quiet: Listener = Arc::new(|_| {});
    let reports = world.fs.sync(&Selection::All, &Options::default(), &quiet).await.unwrap();
    reports.into_iter().map(|report| report.outcome).collect()
}

async fn json(world: &World, path: &str) -> serde_json::Value {
    serde_json::from_slice(&world.read(path).await.unwrap()).unwrap()
}

fn is_published(done: &[Outcome]) -> bool {
    matches!(done, [Outcome::Published { .. }])
}

#[tokio::test]
async fn edits_of_an_index_change_the_member_that_they_were_made_for() {
    let registry = Memory::new();
    let (_, amd, arm) = add_index(&registry);
    let arm_mount = Setup { platform: "linux/arm64", ..Setup::writable() };
    let world = World::with(registry, arm_mount);
    assert_eq!(world.text("app/multi/arch").await, "arm64");
    world.put("app/multi/new", "edit").await;
    let (world, said) = taken_over(world, Setup::writable()).await;
    assert_eq!(said, [Some("platform linux/arm64, as staged".to_owned())]);
    assert_eq!((world.text("app/multi/arch").await, world.text("app/multi/new").await), ("arm64".to_owned(), "edit".to_owned()));
    assert_eq!(world.text("app/.oci/tags/multi/platforms/linux-amd64/arch").await, "amd64");
    assert_eq!(world.fs.staged().await[0].as_staged.as_deref(), Some("platform linux/arm64, as staged"));
    let done = sync(&world).await;
    assert!(is_published(&done), "{done:?}");
    let index = json(&World::with_shared(Arc::clone(&world.registry)), "app/.oci/tags/multi/index.json").await;
    let of = |architecture: &str| -> Digest {
        let members = index["manifests"].as_array().unwrap();
        let member = members.iter().find(|member| member["platform"]["architecture"] == architecture).unwrap();
        Digest::parse(member["digest"].as_str().unwrap()).unwrap()
    };
    assert!(of("amd64") == amd && of("arm64") != arm);
    // Who is inside stays with that platform.
    world.put("app/multi/more", "edit").await;
    assert!(is_published(&sync(&world).await));
    assert_eq!(world.elsewhere_at("app/.oci/tags/multi/platforms/linux-arm64/more").await, "edit");
}

#[tokio::test]
async fn a_new_tag_becomes_the_kind_that_its_mount_was_told() {
    let world = World::with(registry(), Setup { kind: ArtifactKind::Image, ..Setup::writable() });
    world.mkdir("app/v2").await;
    world.put("app/v2/file", "x").await;
    let (world, said) = taken_over(world, Setup::writable()).await;
    assert_eq!(said, [Some("kind image, as staged".to_owned())]);
    assert!(is_published(&sync(&world).await));
    let manifest = json(&world, "app/.oci/tags/v2/manifest.json").await;
    assert_eq!(manifest["config"]["mediaType"], media_type::OCI_CONFIG);
}

#[tokio::test]
async fn edits_under_strict_verification_stay_strict() {
    let world = World::with(registry(), Setup { strict: true, ..Setup::writable() });
    world.put("app/v1/a.txt", "changed").await;
    let (world, said) = taken_over(world, Setup::writable()).await;
    assert_eq!(said, [Some("verify strict, as staged".to_owned())]);
    world.put("app/v1/a.txt", "again").await;
    let overlay = world.overlay("app", "v1").await;
    assert!(!world.fs.context.meaning.strict && world.fs.context.of_upper(overlay.upper()).unwrap().meaning.strict);
}

#[tokio::test]
async fn layers_and_blobs_take_no_edits_over() {
    let world = World::writable(registry());
    world.put("app/v1/a.txt", "changed").await;
    let layers = Setup { view: crate::artifact::ViewMode::Layers, writable: false, ..Setup::default() };
    let (world, said) = taken_over(world, layers).await;
    assert_eq!((said, world.fs.staged().await.len()), (Vec::new(), 0));
    let (world, said) = taken_over(world, Setup::writable()).await;
    assert_eq!((said, world.text("app/v1/a.txt").await), (vec![None], "changed".to_owned()));
}

#[tokio::test]
async fn a_tag_is_deleted_upstream_if_that_was_allowed_when_it_was_deleted_here() {
    for allowed in [true, false] {
        let world = World::with(registry(), Setup { allow_delete: allowed, ..Setup::writable() });
        world.rename("app/v1", "app/v2").await.unwrap();
        let (world, said) = taken_over(world, Setup { allow_delete: !allowed, ..Setup::writable() }).await;
        let word = if allowed { "deleting allowed, as staged" } else { "deleting not allowed, as staged" };
        assert!(said.contains(&Some(word.to_owned())), "{said:?}");
        sync(&world).await;
        let upstream = World::with_shared(Arc::clone(&world.registry));
        assert_eq!(upstream.list("app").await.contains(&"v1".to_owned()), !allowed);
    }
}

#[tokio::test]
async fn a_tag_that_was_to_be_encrypted_is_not_published_plain() {
    let sealed = Setup { kind: ArtifactKind::OciSync, encrypted: true, ..Setup::writable() };
    let world = World::with(registry(), sealed);
    world.mkdir("app/v2").await;
    world.put("app/v2/file", "secret").await;
    let (world, said) = taken_over(world, Setup { kind: ArtifactKind::OciSync, ..Setup::writable() }).await;
    assert_eq!(said, [Some("encrypted, as staged".to_owned())]);
    let done = sync(&world).await;
    let key_missing = ErrorKind::KeyMissing.name();
    assert!(matches!(done.as_slice(), [Outcome::Failed { kind, .. }] if kind == key_missing), "{done:?}");
}

#[tokio::test]
async fn edits_of_an_older_ocifs_mean_what_the_first_mount_says_and_it_says_so_once() {
    let world = World::writable(registry());
    let subject =
        Subject { origin: world.registry_origin(), authority: "reg.io".to_owned(), repository: "app".to_owned(), tag: "new".to_owned() };
    drop(Uppers::open(&world.state_directory(), None).unwrap().create(&subject, Binding::default(), None).unwrap());
    // A command that only asks settles nothing.
    let world = world.again(Setup::writable());
    assert!(world.fs.adopt_wanted(Some(&Selection::All)).await[0].as_staged.as_ref().unwrap().contains("older"));
    let (world, said) = taken_over(world, Setup { platform: "linux/arm64", kind: ArtifactKind::Image, ..Setup::writable() }).await;
    assert_eq!(said, [Some("staged by an older ocifs, taken for platform linux/arm64, kind image".to_owned())]);
    let (world, said) = taken_over(world, Setup::writable()).await;
    assert_eq!(said, [Some("platform linux/arm64, kind image, as staged".to_owned())]);
    let overlay = world.overlay("app", "new").await;
    let meaning = Meaning::of(overlay.upper()).unwrap().unwrap();
    assert_eq!((meaning.platform.to_string(), meaning.kind), ("linux/arm64".to_owned(), ArtifactKind::Image));
}
