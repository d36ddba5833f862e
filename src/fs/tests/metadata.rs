//! The `.oci` directories and extended attributes.

use super::super::ROOT;
use super::test_mount::{Setup, TestMount, add_files};
use crate::artifact::{Kind, ViewMode};
use crate::error::ErrorKind;
use crate::oci::{Digest, media_type};
use crate::registry::{Memory, RequestKind};

fn registry() -> (Memory, Digest) {
    let registry = Memory::new();
    let digest = add_files(&registry, "app", "v1", &[("a.txt", "one"), ("b.txt", "two")]);
    add_files(&registry, "app/web", "v3", &[("w.txt", "web")]);
    (registry, digest)
}

#[tokio::test]
async fn the_metadata_directory_is_found_by_name_and_never_listed() {
    let (registry, _) = registry();
    let mount = TestMount::new(registry);
    for path in ["", "app", "app/web"] {
        assert_eq!(mount.entry(&format!("{path}/.oci")).await.attributes.kind, Kind::Directory);
        assert!(mount.list(path).await.iter().all(|name| name != ".oci"));
    }
    mount.absent("app/v1/.oci").await;
}

#[tokio::test]
async fn the_root_s_metadata_describes_the_mount() {
    let (registry, _) = registry();
    let mount = TestMount::new(registry);
    assert_eq!(mount.list(".oci").await, ["mount.json", "status.json", "repos"]);
    assert_eq!(mount.text(".oci/mount.json").await, "{\"mount\":true}\n");
    assert_eq!(mount.text(".oci/status.json").await, "{\"status\":true}\n");
    assert_eq!(mount.link(".oci/repos/app").await, "../../app");
}

#[tokio::test]
async fn a_repository_s_metadata_lists_its_tags_and_repositories() {
    let (registry, _) = registry();
    let mount = TestMount::new(registry);
    assert_eq!(mount.list("app/.oci").await, ["repo.json", "tags", "repos"]);
    assert_eq!(mount.list("app/.oci/tags").await, ["v1"]);
    assert_eq!(mount.list("app/.oci/repos").await, ["web"]);
    mount.absent("app/.oci/tags/v9").await;
    let repo: serde_json::Value = serde_json::from_str(&mount.text("app/.oci/repo.json").await).unwrap();
    assert_eq!(repo["repository"], "app");
    assert_eq!(repo["tags"], 1);
}

#[tokio::test]
async fn listing_tags_in_the_metadata_directory_requests_none_of_them() {
    let (registry, digest) = registry();
    for number in 0..100 {
        registry.tag("app", &format!("t{number}"), digest);
    }
    let mount = TestMount::new(registry);
    mount.list("app").await;
    mount.requests();
    assert_eq!(mount.list("app/.oci/tags").await.len(), 101);
    assert_eq!(mount.requests(), []);
}

#[tokio::test]
async fn a_tag_s_metadata_is_the_registry_s_exact_bytes() {
    let (registry, digest) = registry();
    let mount = TestMount::new(registry);
    let tag = "app/.oci/tags/v1";
    assert_eq!(mount.text(&format!("{tag}/digest")).await, format!("{digest}\n"));
    assert_eq!(mount.text(&format!("{tag}/reference")).await, "reg.io/app:v1\n");
    assert_eq!(mount.text(&format!("{tag}/media-type")).await, format!("{}\n", media_type::OCI_MANIFEST));
    assert_eq!(Digest::of(&mount.read(&format!("{tag}/manifest.json")).await.unwrap()), digest);
    assert_eq!(mount.text(&format!("{tag}/config.json")).await, "{}");
    assert_eq!(mount.text(&format!("{tag}/annotations.json")).await, "{}\n");
    assert_eq!(mount.link(&format!("{tag}/fs")).await, "../../../v1");
    mount.absent(&format!("{tag}/index.json")).await;
    mount.absent(&format!("{tag}/platforms")).await;
}

#[tokio::test]
async fn blobs_are_shown_as_stored_and_layers_separately() {
    let (registry, _) = registry();
    let mount = TestMount::new(registry);
    let one = Digest::of(b"one");
    assert_eq!(mount.text(&format!("app/.oci/tags/v1/blobs/{}", one.path_name())).await, "one");
    assert_eq!(mount.list("app/.oci/tags/v1/blobs").await.len(), 3);
    let layers = mount.list("app/.oci/tags/v1/layers").await;
    assert_eq!(layers, [format!("00-{}", one.short()), format!("01-{}", Digest::of(b"two").short())]);
    assert_eq!(mount.text(&format!("app/.oci/tags/v1/layers/{}/a.txt", layers[0])).await, "one");
    mount.absent(&format!("app/.oci/tags/v1/blobs/{}", Digest::of(b"x").path_name())).await;
}

#[tokio::test]
async fn metadata_is_listed_without_reading_a_blob() {
    let (registry, _) = registry();
    let mount = TestMount::new(registry);
    for (name, entry) in mount.list_entries("app/.oci/tags/v1").await.unwrap() {
        if entry.attributes.kind == Kind::File {
            let text = mount.text(&format!("app/.oci/tags/v1/{name}")).await;
            assert_eq!(text.len() as u64, entry.attributes.size, "{name}");
        }
    }
    mount.requests();
    mount.list("app/.oci/tags/v1/blobs").await;
    mount.list("app/.oci/tags/v1/layers").await;
    assert_eq!(mount.requests(), []);
}

pub(super) fn add_index(registry: &Memory) -> (Digest, Digest, Digest) {
    let amd = add_files(registry, "app", "amd", &[("arch", "amd64")]);
    let arm = add_files(registry, "app", "arm", &[("arch", "arm64")]);
    let member = |digest: Digest, architecture: &str| {
        serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": 2,
            "platform": {"os": if architecture == "unknown" { "unknown" } else { "linux" }, "architecture": architecture}})
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [member(arm, "arm64"), member(amd, "amd64"), member(amd, "unknown")]});
    let index = registry.add_manifest("app", index.to_string());
    registry.tag("app", "multi", index);
    (index, amd, arm)
}

#[tokio::test]
async fn every_platform_of_an_index_is_shown_and_the_tag_is_the_chosen_one() {
    let registry = Memory::new();
    let (index, amd, _) = add_index(&registry);
    let mount = TestMount::new(registry);
    let tag = "app/.oci/tags/multi";
    assert_eq!(mount.list(&format!("{tag}/platforms")).await, ["linux-arm64", "linux-amd64"]);
    assert_eq!(mount.text(&format!("{tag}/platforms/linux-arm64/arch")).await, "arm64");
    assert_eq!(mount.text("app/multi/arch").await, "amd64");
    assert_eq!(mount.text(&format!("{tag}/digest")).await, format!("{index}\n"));
    assert_eq!(Digest::of(&mount.read(&format!("{tag}/index.json")).await.unwrap()), index);
    assert_eq!(Digest::of(&mount.read(&format!("{tag}/manifest.json")).await.unwrap()), amd);
    assert_eq!(mount.xattr("app/multi", "user.oci.platform").await.as_deref(), Some("linux/amd64"));
    assert_eq!(mount.xattr("app/multi", "user.oci.digest").await, Some(index.to_string()));
}

#[tokio::test]
async fn an_index_is_edited_through_its_platform_and_not_without_one() {
    let registry = Memory::new();
    let (_, _, arm) = add_index(&registry);
    let other = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests":
        [{"mediaType": media_type::OCI_MANIFEST, "digest": arm.to_string(), "size": 2, "platform": {"os": "linux", "architecture": "arm64"}}]});
    let other = registry.add_manifest("app", other.to_string());
    registry.tag("app", "other", other);
    let mount = TestMount::writable(registry);
    assert_eq!(mount.list("app/other").await, ["linux-arm64"]);
    assert_eq!(mount.write("app/other/linux-arm64/arch", "x").await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(mount.make("app/other/new", Kind::Directory).await.unwrap_err().kind, ErrorKind::ReadOnly);
    mount.put("app/multi/arch", "edited").await;
    assert_eq!(mount.text("app/multi/arch").await, "edited");
    assert_eq!(mount.text("app/.oci/tags/multi/platforms/linux-amd64/arch").await, "amd64");
}

#[tokio::test]
async fn stored_layers_and_blobs_are_read_only() {
    for view in [ViewMode::Layers, ViewMode::Blobs] {
        let registry = Memory::new();
        add_files(&registry, "app", "v1", &[("a.txt", "hello")]);
        let mount = TestMount::with(registry, Setup { view, ..Setup::writable() });
        mount.list("app/v1").await;
        assert_eq!(mount.make("app/v1/new", Kind::Directory).await.unwrap_err().kind, ErrorKind::ReadOnly, "{view:?}");
    }
}

#[tokio::test]
async fn attachments_are_directories_like_those_of_tags() {
    let (registry, digest) = registry();
    let text = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/spdx+json",
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": [], "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": 2}});
    let attached = registry.add_manifest("app", text.to_string());
    let mount = TestMount::new(registry);
    let referrers = "app/.oci/tags/v1/referrers";
    assert_eq!(mount.list(referrers).await, ["application_spdx+json"]);
    assert_eq!(mount.list(&format!("{referrers}/application_spdx+json")).await, [attached.short()]);
    let directory = format!("{referrers}/application_spdx+json/{}", attached.short());
    assert_eq!(mount.text(&format!("{directory}/digest")).await, format!("{attached}\n"));
    assert_eq!(mount.text(&format!("{directory}/artifact-type")).await, "application/spdx+json\n");
    assert_eq!(mount.link(&format!("{directory}/fs")).await, format!("../../../../../../@{}", attached.path_name()));
    assert_eq!(mount.list(&format!("{directory}/referrers")).await, [""; 0]);
}

#[tokio::test]
async fn attachments_are_requested_only_when_listed() {
    let (registry, _) = registry();
    let mount = TestMount::new(registry);
    mount.list("app/.oci/tags/v1").await;
    assert_eq!(mount.registry.count(RequestKind::Referrers), 0);
}

#[tokio::test]
async fn own_attributes_are_readable_everywhere_and_never_listed() {
    let (registry, digest) = registry();
    let mount = TestMount::new(registry);
    for (path, name, value) in [
        ("", "user.oci.reference", "reg.io".to_owned()),
        ("", "user.oci.listing", "complete".to_owned()),
        ("app", "user.oci.reference", "reg.io/app".to_owned()),
        ("app", "user.ocifs.state", "clean".to_owned()),
        ("app/v1", "user.oci.reference", "reg.io/app:v1".to_owned()),
        ("app/v1", "user.oci.digest", digest.to_string()),
        ("app/v1", "user.oci.media-type", media_type::OCI_MANIFEST.to_owned()),
        ("app/v1", "user.oci.size", "8".to_owned()),
        ("app/v1", "user.oci.view", "files".to_owned()),
        ("app/v1/a.txt", "user.oci.digest", digest.to_string()),
        ("app/v1/a.txt", "user.oci.layer", Digest::of(b"one").to_string()),
        ("app/v1/a.txt", "user.oci.verified", "partial".to_owned()),
        ("app/v1/a.txt", "user.ocifs.state", "clean".to_owned()),
        ("app/.oci/tags/v1/digest", "user.oci.digest", digest.to_string()),
    ] {
        assert_eq!(mount.xattr(path, name).await, Some(value), "{path} {name}");
    }
    mount.read("app/v1/a.txt").await.unwrap();
    assert_eq!(mount.xattr("app/v1/a.txt", "user.oci.verified").await.as_deref(), Some("whole"));
    for path in ["app", "app/v1", "app/v1/a.txt", "app/.oci/tags/v1"] {
        let inode = mount.entry(path).await.inode;
        assert_eq!(mount.fs.listxattr(inode).unwrap(), [[0; 0]; 0], "{path}");
    }
    assert_eq!(mount.fs.listxattr(ROOT).unwrap(), [[0; 0]; 0]);
    assert_eq!(mount.xattr("app/v1", "user.oci.nonsense").await, None);
    assert_eq!(mount.xattr("app/v1", "user.mine").await, None);
}

#[tokio::test]
async fn the_digest_of_a_tag_that_was_never_entered_costs_no_layer() {
    let (registry, digest) = registry();
    let mount = TestMount::new(registry);
    assert_eq!(mount.xattr("app/v1", "user.oci.digest").await, Some(digest.to_string()));
    assert_eq!(mount.xattr("app/v1", "user.oci.media-type").await.as_deref(), Some(media_type::OCI_MANIFEST));
    assert_eq!(mount.registry.count(RequestKind::Blob), 0);
}

#[tokio::test]
async fn the_cached_attribute_says_how_much_is_here_and_sends_no_request() {
    let registry = Memory::with_origin("https://reg.test", crate::registry::Trust::Transport);
    add_files(&registry, "app", "v1", &[("a.txt", "hello"), ("dir/b.txt", "world!"), ("empty", "")]);
    let mount = TestMount::with(registry, Setup::writable());
    let cached = async |path: &str| mount.xattr(path, "user.ocifs.cached").await.unwrap_or_default();
    // Nothing is known of a tag that was never entered, and nothing is cached of what is generated.
    for path in ["", "app", "app/v1", "app/.oci/tags/v1/digest"] {
        assert_eq!(cached(path).await, "", "{path}");
    }
    assert_eq!(cached("app/v1/a.txt").await, "0/5");
    mount.requests();
    assert_eq!([cached("app/v1").await, cached("app/v1/dir").await, cached("app/v1/empty").await], ["0/11", "0/6", "0/0"]);
    assert_eq!(mount.requests(), []);
    mount.read("app/v1/a.txt").await.unwrap();
    assert_eq!([cached("app/v1").await, cached("app/v1/a.txt").await, cached("app/v1/dir").await], ["5/11", "5/5", "0/6"]);
    // Staged bytes are here, and names do not matter.
    mount.put("app/v1/dir/new", "12345678").await;
    mount.rename("app/v1/a.txt", "app/v1/dir/c.txt").await.unwrap();
    mount.requests();
    assert_eq!([cached("app/v1").await, cached("app/v1/dir/c.txt").await], ["13/19", "5/5"]);
    assert_eq!([cached("app/v1/dir").await, cached("app/v1/dir/new").await, cached("app/v1/dir/b.txt").await], ["13/19", "8/8", "0/6"]);
    assert_eq!(mount.requests(), []);
}
