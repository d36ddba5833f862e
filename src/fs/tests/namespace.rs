//! Names above tags: every rule, and what it costs in requests.

use std::time::Duration;

use super::super::{ABSENT_TTL, FOREVER, NAME_TTL, Root};
use super::test_mount::{Setup, TestMount, add_files, repository};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::oci::{Digest, Tag, Version};
use crate::registry::{Fault, Memory, RequestKind};

fn team() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "one")]);
    add_files(&registry, "team/app", "v2", &[("a.txt", "two")]);
    add_files(&registry, "team/app/web", "v3", &[("w.txt", "web")]);
    add_files(&registry, "tea", "v1", &[("t.txt", "tea")]);
    registry
}

#[tokio::test]
async fn a_registry_is_a_tree_of_prefixes_repositories_tags_and_files() {
    let mount = TestMount::new(team());
    assert_eq!(mount.list("").await, ["tea", "team"]);
    assert_eq!(mount.list("team").await, ["app"]);
    assert_eq!(mount.list("team/app").await, ["v1", "v2", "web"]);
    assert_eq!(mount.list("team/app/web").await, ["v3"]);
    assert_eq!(mount.list("team/app/v1").await, ["a.txt"]);
    assert_eq!(mount.text("team/app/v2/a.txt").await, "two");
}

#[tokio::test]
async fn a_prefix_is_mounted_by_whole_components() {
    let mount = TestMount::of_prefix(team(), "team");
    assert_eq!(mount.list("").await, ["app"]);
    let half = TestMount::with(team(), Setup { root: Root::Prefix(Some(repository("tea"))), ..Setup::default() });
    assert_eq!(half.list("").await, ["v1"]);
}

#[tokio::test]
async fn a_source_with_a_tag_or_digest_shows_the_content_itself() {
    let registry = team();
    let digest = add_files(&registry, "team/app", "v9", &[("n.txt", "nine")]);
    let version = Version::Tag(Tag::parse("v1").unwrap());
    let mount = TestMount::with(registry, Setup { root: Root::Content(repository("team/app"), version), ..Setup::default() });
    assert_eq!(mount.list("").await, ["a.txt"]);
    assert_eq!(mount.text("a.txt").await, "one");
    assert_eq!(mount.absent(".oci").await, FOREVER);
    let root = Root::Content(repository("team/app"), Version::Digest(digest));
    let mount = mount.again(Setup { root, ..Setup::default() });
    assert_eq!(mount.text("n.txt").await, "nine");
    assert_eq!(mount.fs.getattr(1).await.unwrap().inode, 1);
}

#[tokio::test]
async fn an_empty_source_is_an_empty_directory() {
    let mount = TestMount::of_prefix(Memory::new(), "new");
    assert_eq!(mount.list("").await, [""; 0]);
}

#[tokio::test]
async fn a_layout_lists_tags_and_full_references() {
    let registry = Memory::new();
    let digest = add_files(&registry, "layout", "v1", &[("a.txt", "one")]);
    let mut descriptor = crate::oci::Descriptor::new(crate::oci::media_type::OCI_MANIFEST, digest, 1);
    descriptor.size = 2;
    registry.add_odd_name("localhost/app:v1", descriptor);
    let mount = TestMount::with(registry, Setup { root: Root::Layout(repository("layout")), ..Setup::default() });
    assert_eq!(mount.list("").await, ["v1", "localhost_app:v1"]);
    assert_eq!(mount.text("localhost_app:v1/a.txt").await, "one");
    assert_eq!(mount.text("v1/a.txt").await, "one");
    mount.absent("nothing").await;
    mount.absent("nothing:v1").await;
    // A layout has no repository name of its own, so no reference shows one.
    let tag = mount.entry("v1").await.inode;
    assert_eq!(mount.fs.getxattr(tag, b"user.oci.reference").await.unwrap().unwrap(), b"oci:/srv/layout:v1");
    assert_eq!(mount.text(".oci/tags/v1/reference").await, "oci:/srv/layout:v1\n");
}

#[tokio::test]
async fn a_moved_full_reference_of_a_layout_is_a_new_directory() {
    let registry = Memory::new();
    let descriptor = |digest| crate::oci::Descriptor::new(crate::oci::media_type::OCI_MANIFEST, digest, 2);
    registry.add_odd_name("localhost/app:v1", descriptor(add_files(&registry, "layout", "v1", &[("a.txt", "one")])));
    let mount = TestMount::with(registry, Setup { root: Root::Layout(repository("layout")), ..Setup::default() });
    assert_eq!(mount.text("localhost_app:v1/a.txt").await, "one");
    mount.registry.add_odd_name("localhost/app:v1", descriptor(add_files(&mount.registry, "layout", "v1", &[("a.txt", "two")])));
    mount.fs.refresh(None);
    assert_eq!(mount.text("localhost_app:v1/a.txt").await, "two");
}

fn collision() -> Memory {
    let registry = team();
    add_files(&registry, "team/app", "web", &[("tag.txt", "tag")]);
    registry
}

#[tokio::test]
async fn a_tag_takes_the_plain_name_and_the_repository_stays_reachable() {
    let mount = TestMount::new(collision());
    assert_eq!(mount.list("team/app").await, ["v1", "v2", "web"]);
    assert_eq!(mount.text("team/app/web/tag.txt").await, "tag");
    assert_eq!(mount.list("team/app/.oci/repos/web").await, ["v3"]);
    assert_eq!(mount.text("team/app/.oci/repos/web/v3/w.txt").await, "web");
    assert_eq!(mount.text("team/app/.oci/tags/web/reference").await, "reg.io/team/app:web\n");
    assert_eq!(mount.link("team/app:web").await, "app/web");
    assert_eq!(mount.link("team/app/web:v3").await, ".oci/repos/web/v3");
}

#[tokio::test]
async fn a_tag_takes_the_plain_name_even_without_a_listing() {
    let mount = TestMount::new(collision());
    assert_eq!(mount.text("team/app/web/tag.txt").await, "tag");
}

#[tokio::test]
async fn repositories_not_hidden_by_a_tag_are_links_in_the_metadata_directory() {
    let mount = TestMount::new(team());
    assert_eq!(mount.list("team/app/.oci/repos").await, ["web"]);
    assert_eq!(mount.link("team/app/.oci/repos/web").await, "../../web");
    mount.absent("team/app/.oci/repos/nothing").await;
}

#[tokio::test]
async fn invalid_names_are_absent_without_a_request() {
    let mount = TestMount::new(team());
    mount.entry("team/app").await;
    mount.requests();
    for name in [".git", "Desktop.ini", ".Trash", ".hidden", "a b", "é", ".Trash-1000", "@x", "@sha256-12", "app:", ":v1", "App:v1"] {
        assert_eq!(mount.absent(name).await, ABSENT_TTL, "{name}");
    }
    assert_eq!(mount.fs.lookup(1, b"\xff\xfe").await.unwrap(), super::super::Lookup::Absent(ABSENT_TTL));
    assert_eq!(mount.requests(), []);
    for name in [".git", ".Trash", ".hidden", "-x", "a b"] {
        let directory = mount.entry("team/app").await.inode;
        mount.requests();
        mount.fs.lookup(directory, name.as_bytes()).await.unwrap();
        assert_eq!(mount.requests(), [], "{name}");
    }
}

#[tokio::test]
async fn invalid_names_from_the_registry_are_hidden() {
    let registry = team();
    registry.tag("team/app", "..", Digest::of(b"x"));
    registry.tag("team/app", "a/b", Digest::of(b"x"));
    registry.add_repository("UPPER/../x");
    let mount = TestMount::new(registry);
    assert_eq!(mount.list("").await, ["tea", "team"]);
    assert_eq!(mount.list("team/app").await, ["v1", "v2", "web"]);
}

fn without_catalog() -> Memory {
    let registry = team();
    registry.set_catalog(false);
    registry
}

#[tokio::test]
async fn without_a_catalog_a_name_below_source_is_found_without_a_request_and_not_cached() {
    let mount = TestMount::new(without_catalog());
    mount.list("").await;
    mount.requests();
    let entry = mount.entry("typo").await;
    assert_eq!(entry.name_ttl, Duration::ZERO);
    assert_eq!(mount.registry.count(RequestKind::Tags) + mount.registry.count(RequestKind::Resolve), 0);
    assert_eq!(mount.list_trouble("typo").await, ErrorKind::NotFound);
}

#[tokio::test]
async fn without_a_catalog_a_deep_path_is_found_by_its_name() {
    let mount = TestMount::new(without_catalog());
    assert_eq!(mount.text("team/app/v1/a.txt").await, "one");
    assert_eq!(mount.text("team/app/web/v3/w.txt").await, "web");
    assert_eq!(mount.absent("team/app/v9").await, NAME_TTL);
    assert_eq!(mount.list("").await, ["team"], "what was found once is listed");
    assert_eq!(mount.xattr("", "user.oci.listing").await.as_deref(), Some("partial"));
}

#[tokio::test]
async fn without_a_catalog_repositories_named_by_the_user_are_listed() {
    let mount = TestMount::with(without_catalog(), Setup { repositories: vec!["team/app", "other"], ..Setup::default() });
    assert_eq!(mount.list("").await, ["other", "team"]);
    assert_eq!(mount.list("team").await, ["app"]);
}

#[tokio::test]
async fn without_a_catalog_a_repository_is_mounted_with_its_tags() {
    let mount = TestMount::of_prefix(without_catalog(), "team/app");
    assert_eq!(mount.list("").await, ["v1", "v2"]);
    assert_eq!(mount.text("v1/a.txt").await, "one");
    assert_eq!(mount.absent("v9").await, NAME_TTL);
    assert_eq!(mount.text("web/v3/w.txt").await, "web");
}

#[tokio::test]
async fn a_list_is_never_a_negative_answer() {
    let mount = TestMount::new(team());
    assert_eq!(mount.list("team/app").await, ["v1", "v2", "web"]);
    add_files(&mount.registry, "team/app", "v3", &[("a.txt", "three")]);
    add_files(&mount.registry, "fresh", "v1", &[("f.txt", "fresh")]);
    assert_eq!(mount.text("team/app/v3/a.txt").await, "three");
    assert_eq!(mount.text("fresh/v1/f.txt").await, "fresh");
}

#[tokio::test]
async fn an_absent_name_is_requested_and_cached_for_at_most_five_seconds() {
    let mount = TestMount::new(team());
    mount.list("team/app").await;
    mount.requests();
    let ttl = mount.absent("team/app/v9").await;
    assert!(ttl <= Duration::from_secs(5));
    assert!(!mount.requests().is_empty());
}

#[tokio::test]
async fn listing_a_thousand_tags_fetches_none_of_them() {
    let registry = Memory::new();
    let digest = add_files(&registry, "app", "v0", &[("a", "a")]);
    for number in 1..1000 {
        registry.tag("app", &format!("v{number}"), digest);
    }
    let mount = TestMount::new(registry);
    mount.entry("app").await;
    mount.requests();
    let entries = mount.list_entries("app").await.unwrap();
    assert_eq!(entries.len(), 1000);
    let directory = mount.entry("app").await.inode;
    for (name, entry) in &entries {
        // The requests `ls -l` makes for every name.
        let again = mount.fs.lookup(directory, name.as_bytes()).await.unwrap().found().unwrap();
        assert_eq!(again.inode, entry.inode);
        assert_eq!(mount.fs.getattr(entry.inode).await.unwrap().attributes, entry.attributes);
        assert_eq!(mount.fs.getxattr(entry.inode, b"system.posix_acl_access").await.unwrap(), None);
        assert_eq!(mount.fs.getxattr(entry.inode, b"security.selinux").await.unwrap(), None);
        assert_eq!(mount.fs.listxattr(entry.inode).unwrap(), [[0; 0]; 0]);
    }
    assert_eq!(mount.requests().iter().filter(|(kind, _)| *kind != RequestKind::Tags).count(), 0);
    assert!(mount.fs.namespace.views.all().is_empty(), "a listed tag is a number");
    assert_eq!(mount.list("app/v7").await, ["a"]);
    assert_eq!(mount.fs.namespace.views.all().len(), 1);
}

#[tokio::test]
async fn a_tag_shows_the_mount_s_start_time_until_entered_then_its_root_s() {
    let mount = TestMount::new(team());
    let tag = mount.entry("team/app/v1").await;
    assert_eq!(tag.attributes.time, super::test_mount::DEFAULTS.time);
    assert_eq!(tag.attributes.kind, Kind::Directory);
    assert!(tag.name_ttl <= NAME_TTL && tag.attributes_ttl <= NAME_TTL);
    mount.list("team/app/v1").await;
    let entered = mount.entry("team/app/v1").await;
    assert_eq!(entered.inode, tag.inode);
    assert_eq!(mount.fs.getattr(tag.inode).await.unwrap().attributes, entered.attributes);
}

#[tokio::test]
async fn the_first_read_of_a_file_costs_one_manifest_and_one_blob_and_the_second_nothing() {
    let mount = TestMount::new(team());
    mount.list("").await;
    mount.requests();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "one");
    let count = |kind| mount.registry.count(kind);
    assert!(count(RequestKind::Resolve) <= 1);
    assert_eq!(count(RequestKind::Manifest), 1);
    assert_eq!(count(RequestKind::Blob), 1);
    mount.requests();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "one");
    assert_eq!(mount.requests(), []);
}

#[tokio::test]
async fn a_moved_tag_is_a_new_directory_and_processes_inside_stay_in_the_old_one() {
    let mount = TestMount::with(team(), Setup { tag_ttl: Duration::ZERO, ..Setup::default() });
    let old = mount.entry("team/app/v1").await;
    let file = mount.entry("team/app/v1/a.txt").await;
    let open = mount.fs.open(file.inode, false).await.unwrap();
    let new_digest = add_files(&mount.registry, "team/app", "v1", &[("a.txt", "moved"), ("b.txt", "new")]);
    let new = mount.entry("team/app/v1").await;
    assert_ne!(new.inode, old.inode);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "moved");
    assert_eq!(mount.xattr("team/app/v1", "user.oci.digest").await, Some(new_digest.to_string()));
    assert_eq!(mount.fs.read(open.handle, 0, 100).await.unwrap(), "one");
    let inside = mount.fs.lookup(old.inode, b"a.txt").await.unwrap().found().unwrap();
    assert_eq!(inside.inode, file.inode);
    assert_eq!(mount.fs.lookup(old.inode, b"b.txt").await.unwrap().found(), None);
}

#[tokio::test]
async fn a_fresh_tag_is_not_requested_again_but_a_refreshed_one_is() {
    let mount = TestMount::new(team());
    let before = mount.entry("team/app/v1/a.txt").await;
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "moved")]);
    assert_eq!(mount.entry("team/app/v1/a.txt").await.inode, before.inode);
    mount.fs.refresh(None);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "moved");
}

#[tokio::test]
async fn a_listing_does_not_extend_the_lifetime_of_an_expired_tag() {
    let mount = TestMount::new(team());
    mount.text("team/app/v1/a.txt").await;
    let ttl_of = async |tag: &str| {
        let entries = mount.list_entries("team/app").await.unwrap();
        entries.into_iter().find(|(name, _)| name == tag).unwrap().1.name_ttl
    };
    assert!(ttl_of("v1").await > Duration::ZERO, "asked for a moment ago");
    mount.fs.refresh(None);
    assert_eq!(ttl_of("v1").await, Duration::ZERO);
    assert!(ttl_of("v2").await > Duration::ZERO, "it was not entered, so a listing of many tags stays cheap");
    assert!(mount.entry("team/app/v1").await.name_ttl > Duration::ZERO, "asked for again");
}

#[tokio::test]
async fn the_last_known_digest_of_a_tag_serves_while_the_registry_is_unreachable() {
    let mount = TestMount::with(team(), Setup { tag_ttl: Duration::ZERO, ..Setup::default() });
    assert_eq!(mount.text("team/app/v1/a.txt").await, "one");
    unreachable(&mount.registry);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "one");
}

fn unreachable(registry: &Memory) {
    for kind in [
        RequestKind::Ping,
        RequestKind::Resolve,
        RequestKind::Manifest,
        RequestKind::Blob,
        RequestKind::Tags,
        RequestKind::Repositories,
        RequestKind::Referrers,
    ] {
        registry.plan(kind, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    }
}

#[tokio::test]
async fn network_errors_are_never_absence() {
    let mount = TestMount::new(team());
    unreachable(&mount.registry);
    assert_eq!(mount.list_trouble("").await, ErrorKind::Unreachable);
    assert_eq!(mount.trouble("team").await, ErrorKind::Unreachable);
    mount.registry.mend();
    mount.list("").await;
    unreachable(&mount.registry);
    assert_eq!(mount.trouble("team/app/v1").await, ErrorKind::Unreachable);
    assert_eq!(mount.trouble("team/app/nothing").await, ErrorKind::Unreachable);
    mount.registry.mend();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "one", "a failure is not remembered");
}

#[tokio::test]
async fn a_registry_that_denies_access_does_not_look_empty() {
    let mount = TestMount::of_prefix(team(), "team/app");
    mount.registry.plan(RequestKind::Resolve, 0, u32::MAX, Fault::Error(ErrorKind::Denied));
    mount.registry.plan(RequestKind::Manifest, 0, u32::MAX, Fault::Error(ErrorKind::Denied));
    mount.registry.plan(RequestKind::Tags, 0, u32::MAX, Fault::Error(ErrorKind::Denied));
    assert_eq!(mount.trouble("v1").await, ErrorKind::Denied);
}

#[tokio::test]
async fn bookkeeping_tags_are_hidden_but_open_by_name() {
    let registry = team();
    let name = format!("sha256-{}", "0".repeat(64));
    add_files(&registry, "team/app", &format!("{name}.sig"), &[("s.txt", "signature")]);
    let mount = TestMount::new(registry);
    assert_eq!(mount.list("team/app").await, ["v1", "v2", "web"]);
    assert_eq!(mount.text(&format!("team/app/{name}.sig/s.txt")).await, "signature");
}

#[tokio::test]
async fn a_digest_path_is_found_by_name_immutable_and_never_listed() {
    let registry = team();
    let digest = add_files(&registry, "team/app", "v1", &[("a.txt", "one")]);
    let mount = TestMount::new(registry);
    let path = format!("team/app/@{}", digest.path_name());
    assert_eq!(mount.text(&format!("{path}/a.txt")).await, "one");
    assert!(mount.entry(&path).await.name_ttl > Duration::from_secs(86_400));
    assert_ne!(mount.entry(&path).await.inode, mount.entry("team/app/v1").await.inode, "two views of one digest");
    mount.absent(&format!("team/app/@{}", Digest::of(b"nothing").path_name())).await;
    mount.absent(&format!("@{}", digest.path_name())).await;
    assert!(mount.list("team/app").await.iter().all(|name| !name.starts_with('@')));
}

#[tokio::test]
async fn pasted_references_are_links_to_the_path_without_a_colon() {
    let mount = TestMount::new(team());
    let digest = Digest::of(b"x");
    assert_eq!(mount.link("team/app:v1").await, "app/v1");
    assert_eq!(mount.link(&format!("team/app@{digest}")).await, format!("app/@{}", digest.path_name()));
    mount.absent("team/nothing:v1").await;
    assert!(mount.list("team").await.iter().all(|name| !name.contains(':')));
}

#[tokio::test]
async fn two_tags_of_one_digest_are_two_directories_with_inodes_of_their_own() {
    let registry = team();
    let digest = add_files(&registry, "team/app", "v1", &[("a.txt", "one")]);
    registry.tag("team/app", "same", digest);
    let mount = TestMount::new(registry);
    assert_ne!(mount.entry("team/app/v1/a.txt").await.inode, mount.entry("team/app/same/a.txt").await.inode);
    assert_eq!(mount.text("team/app/same/a.txt").await, "one");
}

#[tokio::test]
async fn inodes_are_the_same_in_every_listing_and_lookup() {
    let mount = TestMount::new(team());
    for path in ["", "team", "team/app", "team/app/v1", "team/app/.oci", "team/app/.oci/tags/v1"] {
        for (name, entry) in mount.list_entries(path).await.unwrap() {
            assert_eq!(mount.entry(&format!("{path}/{name}")).await.inode, entry.inode, "{path}/{name}");
        }
    }
}

#[tokio::test]
async fn state_is_dropped_when_the_kernel_forgets_it() {
    let mount = TestMount::new(team());
    let entries = mount.list_entries("team/app").await.unwrap();
    for (_, entry) in &entries {
        mount.fs.forget(entry.inode, 1);
    }
    let error = mount.fs.getattr(entries[0].1.inode).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone);
    assert_ne!(mount.entry("team/app/v1").await.inode, entries[0].1.inode, "a number is never used again");
}

#[tokio::test]
async fn an_unknown_tag_is_absent_even_if_lookups_below_it_are_denied() {
    let mount = TestMount::of_prefix(without_catalog(), "team/app");
    mount.list("").await;
    mount.registry.plan(RequestKind::Tags, 0, u32::MAX, Fault::Error(ErrorKind::Denied));
    assert_eq!(mount.absent("v9").await, Duration::ZERO, "absent, and not kept");
}
