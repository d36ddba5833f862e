//! Edits keep the meaning they had when they were begun, whichever mount or command takes them over.

use std::sync::Arc;

use super::metadata::add_index;
use super::test_mount::*;
use crate::error::ErrorKind;
use crate::fs::Selection;
use crate::oci::{Digest, media_type};
use crate::publish::{ArtifactKind, Listener, Options, Outcome};
use crate::registry::Memory;
use crate::staging::{Binding, TagKey, Uppers};
use crate::view::Meaning;

/// A registry with one tag of titled files.
fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "app", "v1", &[("a.txt", "one"), ("b.txt", "two")]);
    registry
}

/// The next mount after the previous one ended, and its report about the edits it adopts.
async fn taken_over(mount: TestMount, setup: Setup) -> (TestMount, Vec<Option<String>>) {
    let mount = mount.again(setup);
    let said = mount.fs.adopt().await.into_iter().map(|tag| tag.as_staged).collect();
    (mount, said)
}

async fn sync(mount: &TestMount) -> Vec<Outcome> {
    let quiet: Listener = Arc::new(|_| {});
    let reports = mount.fs.sync(&Selection::All, &Options::default(), &quiet).await.unwrap();
    reports.into_iter().map(|report| report.outcome).collect()
}

async fn json(mount: &TestMount, path: &str) -> serde_json::Value {
    serde_json::from_slice(&mount.read(path).await.unwrap()).unwrap()
}

fn is_published(done: &[Outcome]) -> bool {
    matches!(done, [Outcome::Published { .. }])
}

#[tokio::test]
async fn edits_of_an_index_change_the_member_that_they_were_made_for() {
    let registry = Memory::new();
    let (_, amd, arm) = add_index(&registry);
    let arm_mount = Setup { platform: "linux/arm64", ..Setup::writable() };
    let mount = TestMount::with(registry, arm_mount);
    assert_eq!(mount.text("app/multi/arch").await, "arm64");
    mount.put("app/multi/new", "edit").await;
    let (mount, said) = taken_over(mount, Setup::writable()).await;
    assert_eq!(said, [Some("platform linux/arm64, as staged".to_owned())]);
    assert_eq!((mount.text("app/multi/arch").await, mount.text("app/multi/new").await), ("arm64".to_owned(), "edit".to_owned()));
    assert_eq!(mount.text("app/.oci/tags/multi/platforms/linux-amd64/arch").await, "amd64");
    assert_eq!(mount.fs.staged().await[0].as_staged.as_deref(), Some("platform linux/arm64, as staged"));
    let done = sync(&mount).await;
    assert!(is_published(&done), "{done:?}");
    let index = json(&TestMount::with_shared(Arc::clone(&mount.registry)), "app/.oci/tags/multi/index.json").await;
    let of = |architecture: &str| -> Digest {
        let members = index["manifests"].as_array().unwrap();
        let member = members.iter().find(|member| member["platform"]["architecture"] == architecture).unwrap();
        Digest::parse(member["digest"].as_str().unwrap()).unwrap()
    };
    assert!(of("amd64") == amd && of("arm64") != arm);
    // Processes inside keep that platform.
    mount.put("app/multi/more", "edit").await;
    assert!(is_published(&sync(&mount).await));
    assert_eq!(mount.elsewhere_at("app/.oci/tags/multi/platforms/linux-arm64/more").await, "edit");
}

#[tokio::test]
async fn a_new_tag_gets_the_kind_its_mount_was_told() {
    let mount = TestMount::with(registry(), Setup { kind: ArtifactKind::Image, ..Setup::writable() });
    mount.mkdir("app/v2").await;
    mount.put("app/v2/file", "x").await;
    let (mount, said) = taken_over(mount, Setup::writable()).await;
    assert_eq!(said, [Some("kind image, as staged".to_owned())]);
    assert!(is_published(&sync(&mount).await));
    let manifest = json(&mount, "app/.oci/tags/v2/manifest.json").await;
    assert_eq!(manifest["config"]["mediaType"], media_type::OCI_CONFIG);
}

#[tokio::test]
async fn edits_under_strict_verification_stay_strict() {
    let mount = TestMount::with(registry(), Setup { strict: true, ..Setup::writable() });
    mount.put("app/v1/a.txt", "changed").await;
    let (mount, said) = taken_over(mount, Setup::writable()).await;
    assert_eq!(said, [Some("verify strict, as staged".to_owned())]);
    mount.put("app/v1/a.txt", "again").await;
    let overlay = mount.overlay("app", "v1").await;
    assert!(!mount.fs.namespace.context.meaning.strict && mount.fs.namespace.context.of_upper(overlay.upper()).unwrap().meaning.strict);
}

#[tokio::test]
async fn the_layers_and_blobs_views_adopt_no_edits() {
    let mount = TestMount::writable(registry());
    mount.put("app/v1/a.txt", "changed").await;
    let layers = Setup { view: crate::artifact::ViewMode::Layers, writable: false, ..Setup::default() };
    let (mount, said) = taken_over(mount, layers).await;
    assert_eq!((said, mount.fs.staged().await.len()), (Vec::new(), 0));
    let (mount, said) = taken_over(mount, Setup::writable()).await;
    assert_eq!((said, mount.text("app/v1/a.txt").await), (vec![None], "changed".to_owned()));
}

#[tokio::test]
async fn a_tag_is_deleted_upstream_if_that_was_allowed_when_it_was_deleted_here() {
    for allowed in [true, false] {
        let mount = TestMount::with(registry(), Setup { allow_delete: allowed, ..Setup::writable() });
        mount.rename("app/v1", "app/v2").await.unwrap();
        let (mount, said) = taken_over(mount, Setup { allow_delete: !allowed, ..Setup::writable() }).await;
        let word = if allowed { "deleting allowed, as staged" } else { "deleting not allowed, as staged" };
        assert!(said.contains(&Some(word.to_owned())), "{said:?}");
        sync(&mount).await;
        let upstream = TestMount::with_shared(Arc::clone(&mount.registry));
        assert_eq!(upstream.list("app").await.contains(&"v1".to_owned()), !allowed);
    }
}

#[tokio::test]
async fn a_tag_meant_to_be_encrypted_is_not_published_plain() {
    let sealed = Setup { kind: ArtifactKind::OciSync, encrypted: true, ..Setup::writable() };
    let mount = TestMount::with(registry(), sealed);
    mount.mkdir("app/v2").await;
    mount.put("app/v2/file", "secret").await;
    let (mount, said) = taken_over(mount, Setup { kind: ArtifactKind::OciSync, ..Setup::writable() }).await;
    assert_eq!(said, [Some("encrypted, as staged".to_owned())]);
    let done = sync(&mount).await;
    let key_missing = ErrorKind::KeyMissing.name();
    assert!(matches!(done.as_slice(), [Outcome::Failed { kind, .. }] if kind == key_missing), "{done:?}");
}

#[tokio::test]
async fn edits_of_an_older_ocifs_take_their_meaning_from_the_first_mount_which_reports_it_once() {
    let mount = TestMount::writable(registry());
    let tag_key =
        TagKey { origin: mount.registry_origin(), authority: "reg.io".to_owned(), repository: "app".to_owned(), tag: "new".to_owned() };
    drop(Uppers::open(&mount.state_directory(), None).unwrap().create(&tag_key, Binding::default(), None).unwrap());
    // A read-only command does not decide the meaning.
    let mount = mount.again(Setup::writable());
    assert!(mount.fs.adopt_wanted(Some(&Selection::All)).await[0].as_staged.as_ref().unwrap().contains("older"));
    let (mount, said) = taken_over(mount, Setup { platform: "linux/arm64", kind: ArtifactKind::Image, ..Setup::writable() }).await;
    assert_eq!(said, [Some("staged by an older ocifs, taken for platform linux/arm64, kind image".to_owned())]);
    let (mount, said) = taken_over(mount, Setup::writable()).await;
    assert_eq!(said, [Some("platform linux/arm64, kind image, as staged".to_owned())]);
    let overlay = mount.overlay("app", "new").await;
    let meaning = Meaning::of(overlay.upper()).unwrap().unwrap();
    assert_eq!((meaning.platform.to_string(), meaning.kind), ("linux/arm64".to_owned(), ArtifactKind::Image));
}
