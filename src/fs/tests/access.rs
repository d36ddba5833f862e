//! Access to the directory of an artifact before it was ever entered, on a mount that admits other users.

use std::time::Duration;

use super::super::{Asker, Credentials, NAME_TTL, Need, Others, ROOT};
use super::test_mount::{CALLER, Setup, TestMount, add_files};
use crate::error::{Error, ErrorKind};
use crate::publish::Options;
use crate::registry::{Memory, RequestKind};
use crate::view::SetAttributes;

fn look(_: u32) -> Option<Credentials> {
    Some(Credentials::default())
}

fn asker(uid: u32) -> Asker {
    Asker { uid, gid: uid, pid: 1, look }
}

/// A registry with the tags `closed` (0700) and `open` (0777) of user 1000 and two tags of others, mounted for all users.
async fn mount_for(others: Others) -> TestMount {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello")]);
    let mount = TestMount::writable(registry);
    for (tag, mode) in [("closed", 0o700), ("open", 0o777)] {
        let path = format!("team/app/{tag}");
        mount.mkdir(&path).await;
        mount.put(&format!("{path}/file"), "text").await;
        let inode = mount.entry(&path).await.inode;
        mount.fs.setattr(CALLER, inode, SetAttributes { mode: Some(mode), ..SetAttributes::default() }).await.unwrap();
    }
    mount.fs.sync(&crate::fs::Selection::All, &Options::default(), &(std::sync::Arc::new(|_| {}) as _)).await.unwrap();
    mount.beside(Setup { others, tag_ttl: Duration::ZERO, ..Setup::writable() })
}

#[tokio::test]
async fn the_first_to_enter_a_tag_is_checked_against_the_artifact_s_mode() {
    let mount = mount_for(Others::Files).await;
    let (closed, open) = (mount.entry("team/app/closed").await.inode, mount.entry("team/app/open").await.inode);
    let kind = |result: Result<(), Error>| result.err().map(|error| error.kind);
    for need in [Need::Search, Need::Read, Need::Write] {
        assert_eq!(kind(mount.fs.admit(&asker(7), closed, need).await), Some(ErrorKind::Denied), "{need:?}");
        assert_eq!(kind(mount.fs.admit(&asker(1000), closed, need).await), None, "{need:?}");
        assert_eq!(kind(mount.fs.admit(&asker(7), open, need).await), None, "{need:?}");
    }
    assert_eq!(kind(mount.fs.admit(&asker(7), open, Need::Own).await), Some(ErrorKind::NotPermitted));
    assert_eq!(mount.fs.getattr(closed).await.unwrap().attributes.mode, 0o700);
}

#[tokio::test]
async fn provisional_refusals_are_checked_upstream_and_names_stay_uncached_until_modes_are_known() {
    let mount = mount_for(Others::Files).await;
    let open = mount.entry("team/app/open").await;
    assert_eq!(open.attributes.mode, 0o755);
    assert_eq!(mount.fs.getattr(open.inode).await.unwrap().attributes.mode, 0o777);
    assert_eq!(mount.entry("team/app/open/file").await.name_ttl, Duration::ZERO);
    let alone = mount_for(Others::None).await;
    assert_eq!(alone.entry("team/app/open/file").await.name_ttl, crate::fs::FOREVER);
}

#[tokio::test]
async fn listing_tags_for_other_users_costs_no_manifest() {
    let mount = mount_for(Others::Files).await;
    mount.list_entries("team/app").await.unwrap();
    mount.requests();
    for (name, entry) in mount.list_entries("team/app").await.unwrap() {
        // The kernel caches name and attributes equally long, so it asks for the name first.
        assert_eq!((entry.attributes.mode, entry.name_ttl, entry.attributes_ttl), (0o755, NAME_TTL, NAME_TTL), "{name}");
        mount.fs.getxattr(entry.inode, b"system.posix_acl_access").await.unwrap();
    }
    let asked = mount.requests();
    assert!(!asked.iter().any(|(kind, _)| matches!(kind, RequestKind::Manifest | RequestKind::Resolve)), "{asked:?}");
}

#[tokio::test]
async fn the_metadata_directory_is_private_to_the_mounting_user_unless_exposed() {
    for (others, mode) in [(Others::None, 0o755), (Others::Files, 0o700), (Others::Everything, 0o755)] {
        let mount = mount_for(others).await;
        for path in [".oci", "team/.oci", "team/app/.oci"] {
            assert_eq!(mount.entry(path).await.attributes.mode, mode, "{path} {others:?}");
        }
        mount.fs.admit(&asker(7), ROOT, Need::Search).await.unwrap();
    }
}
