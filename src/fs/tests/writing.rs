//! Changes inside tags through the file system's own calls: what is visible, what is refused, what open files show.

use std::time::Duration;

use super::super::{Lookup, NAME_TTL, ROOT, Root};
use super::test_mount::{CALLER, Setup, TestMount, add_files, new_name, repository};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::oci::{Tag, Version};
use crate::registry::Memory;
use crate::view::{Replace, SetAttributes};

fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello"), ("dir/b.txt", "there")]);
    add_files(&registry, "team/app", "v2", &[("a.txt", "again")]);
    registry
}

#[tokio::test]
async fn written_bytes_are_read_back_and_other_files_do_not_change() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.put("team/app/v1/new.txt", "new").await;
    assert_eq!(mount.text("team/app/v1/a.txt").await, "changed");
    assert_eq!(mount.text("team/app/v1/new.txt").await, "new");
    assert_eq!(mount.text("team/app/v1/dir/b.txt").await, "there");
    assert_eq!(mount.list("team/app/v1").await, ["a.txt", "dir", "new.txt"]);
    assert_eq!(mount.text("team/app/v2/a.txt").await, "again", "another tag");
}

#[tokio::test]
async fn the_name_of_an_edited_tag_is_cached_although_upstream_is_not_asked() {
    let mount = TestMount::writable(registry());
    mount.text("team/app/v2/a.txt").await;
    mount.put("team/app/v1/new.txt", "new").await;
    mount.mkdir("team/app/v3").await;
    mount.put("team/app/v3/new.txt", "new").await;
    mount.fs.refresh(None);
    let entries = mount.list_entries("team/app").await.unwrap();
    let ttl_of = |tag: &str| entries.iter().find(|(name, _)| name == tag).unwrap().1.name_ttl;
    assert_eq!([ttl_of("v1"), ttl_of("v2"), ttl_of("v3")], [NAME_TTL, Duration::ZERO, NAME_TTL]);
}

#[tokio::test]
async fn a_written_file_keeps_its_inode_and_a_new_file_gets_a_fresh_one() {
    let mount = TestMount::writable(registry());
    let before = mount.entry("team/app/v1/a.txt").await.inode;
    mount.put("team/app/v1/a.txt", "changed").await;
    assert_eq!(mount.entry("team/app/v1/a.txt").await.inode, before);
    mount.put("team/app/v1/new.txt", "new").await;
    let new = mount.entry("team/app/v1/new.txt").await.inode;
    assert!(super::super::Inode::decode(new).is_staged());
    let listed = mount.list_entries("team/app/v1").await.unwrap();
    assert!(listed.iter().any(|(name, entry)| name == "new.txt" && entry.inode == new));
}

#[tokio::test]
async fn open_handles_read_what_others_write() {
    let mount = TestMount::writable(registry());
    let file = mount.entry("team/app/v1/a.txt").await;
    let reader = mount.fs.open(file.inode, false).await.unwrap().handle;
    assert_eq!(mount.fs.read(reader, 0, 100).await.unwrap(), "hello");
    let writer = mount.fs.open(file.inode, true).await.unwrap().handle;
    assert_eq!(mount.fs.read(writer, 0, 100).await.unwrap(), "hello", "a writer must be able to read");
    mount.fs.write(writer, 1, b"u", false).await.unwrap();
    assert_eq!(mount.fs.read(reader, 0, 100).await.unwrap(), "hullo");
    assert_eq!(mount.fs.write(reader, 0, b"x", false).await.unwrap_err().kind, ErrorKind::Invalid);
    mount.fs.fsync(writer).await.unwrap();
    mount.fs.fsync(reader).await.unwrap();
    mount.fs.release(writer);
    assert_eq!(mount.fs.read(reader, 0, 100).await.unwrap(), "hullo");
}

#[tokio::test]
async fn an_unlinked_file_lives_while_it_is_open() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/new.txt", "new").await;
    for path in ["team/app/v1/new.txt", "team/app/v1/a.txt"] {
        let file = mount.entry(path).await;
        let before = mount.text(path).await;
        let (reader, writer) =
            (mount.fs.open(file.inode, false).await.unwrap().handle, mount.fs.open(file.inode, true).await.unwrap().handle);
        mount.remove(path).await.unwrap();
        assert!(matches!(mount.lookup(path).await.unwrap(), Lookup::Absent(_)));
        assert_eq!(mount.fs.getattr(file.inode).await.unwrap().attributes.links, 0);
        mount.fs.write(writer, 0, b"N", false).await.unwrap();
        assert_eq!(mount.fs.read(reader, 0, 100).await.unwrap(), format!("N{}", &before[1..]));
        mount.fs.release(writer);
        mount.fs.release(reader);
        let after = mount.fs.getattr(file.inode).await;
        assert!(after.as_ref().is_ok_and(|entry| entry.attributes.links == 0) || after.is_err(), "{path}: {after:?}");
    }
}

#[tokio::test]
async fn a_file_opened_before_the_first_edit_outlives_its_name() {
    let mount = TestMount::writable(registry());
    let file = mount.entry("team/app/v1/a.txt").await;
    let reader = mount.fs.open(file.inode, false).await.unwrap().handle;
    mount.remove("team/app/v1/a.txt").await.unwrap();
    assert_eq!(mount.fs.read(reader, 0, 100).await.unwrap(), "hello");
    assert_eq!(mount.fs.getattr(file.inode).await.unwrap().attributes.size, 5);
}

#[tokio::test]
async fn every_kind_of_file_can_be_created_renamed_linked_and_removed() {
    let mount = TestMount::writable(registry());
    for (name, kind) in [("d", Kind::Directory), ("l", Kind::Symlink), ("p", Kind::Fifo), ("s", Kind::Socket), ("f", Kind::File)] {
        let path = format!("team/app/v1/{name}");
        let made = mount.make(&path, kind).await.unwrap();
        assert_eq!(made.attributes.kind, kind);
        assert_eq!((made.attributes.uid, made.attributes.gid), (CALLER.uid, CALLER.gid));
        assert_eq!(mount.make(&path, kind).await.unwrap_err().kind, ErrorKind::Exists);
        let moved = format!("{path}2");
        mount.rename(&path, &moved).await.unwrap();
        assert_eq!(mount.entry(&moved).await.inode, made.inode);
        mount.absent(&path).await;
        if kind == Kind::Symlink {
            assert_eq!(mount.link(&moved).await, "target");
        }
        if kind != Kind::Directory {
            let (directory, name) = mount.parent(&path).await;
            let linked = mount.fs.link(made.inode, directory, name).await.unwrap();
            assert_eq!((linked.inode, linked.attributes.links), (made.inode, 2));
            mount.remove(&path).await.unwrap();
        }
        mount.remove(&moved).await.unwrap();
    }
    assert_eq!(mount.list("team/app/v1").await, ["a.txt", "dir"]);
}

#[tokio::test]
async fn files_in_a_setgid_directory_inherit_its_group() {
    let mount = TestMount::writable(registry());
    let directory = mount.make("team/app/v1/shared", Kind::Directory).await.unwrap();
    let set = SetAttributes { mode: Some(0o2770), gid: Some(42), ..SetAttributes::default() };
    mount.fs.setattr(CALLER, directory.inode, set).await.unwrap();
    let file = mount.make("team/app/v1/shared/file", Kind::File).await.unwrap();
    let below = mount.make("team/app/v1/shared/below", Kind::Directory).await.unwrap();
    assert_eq!((file.attributes.gid, below.attributes.gid), (42, 42));
    assert_eq!((file.attributes.mode, below.attributes.mode), (0o644, 0o2755));
}

#[tokio::test]
async fn a_name_of_more_than_255_bytes_is_too_long() {
    let mount = TestMount::writable(registry());
    let (fits, long) = (format!("team/app/v1/{}", "n".repeat(255)), format!("team/app/v1/{}", "n".repeat(256)));
    mount.put(&fits, "").await;
    assert_eq!(mount.trouble(&long).await, ErrorKind::TooLong);
    assert_eq!(mount.make(&long, Kind::Directory).await.unwrap_err().kind, ErrorKind::TooLong);
    assert_eq!(mount.rename(&fits, &long).await.unwrap_err().kind, ErrorKind::TooLong);
}

#[tokio::test]
async fn whiteout_names_cannot_be_created() {
    let mount = TestMount::writable(registry());
    assert_eq!(mount.make("team/app/v1/.wh.a.txt", Kind::Fifo).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(mount.write("team/app/v1/.wh.a.txt", "").await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn renames_and_links_across_tags_are_refused() {
    let mount = TestMount::writable(registry());
    assert_eq!(mount.rename("team/app/v1/a.txt", "team/app/v2/b.txt").await.unwrap_err().kind, ErrorKind::CrossDevice);
    assert_eq!(mount.rename("team/app/v1/dir", "team/app/dir").await.unwrap_err().kind, ErrorKind::CrossDevice);
    let (file, other) = (mount.entry("team/app/v1/a.txt").await, mount.entry("team/app/v2").await);
    assert_eq!(mount.fs.link(file.inode, other.inode, b"b").await.unwrap_err().kind, ErrorKind::CrossDevice);
    let (reader, writer) = (mount.fs.open(file.inode, false).await.unwrap(), mount.entry("team/app/v2/a.txt").await);
    let writer = mount.fs.open(writer.inode, true).await.unwrap();
    let copied = mount.fs.copy_range(CALLER, (reader.handle, 0), (writer.handle, 0), 5).await;
    assert_eq!(copied.unwrap_err().kind, ErrorKind::CrossDevice, "the kernel then reads and writes");
}

#[tokio::test]
async fn a_range_is_copied_within_a_tag() {
    let mount = TestMount::writable(registry());
    let source = mount.entry("team/app/v1/a.txt").await;
    let reader = mount.fs.open(source.inode, false).await.unwrap().handle;
    let (directory, _) = mount.parent("team/app/v1/copy").await;
    let new = new_name(directory, b"copy", Kind::File, 0o600);
    let (copy, open) = mount.fs.create(CALLER, new, true).await.unwrap();
    assert_eq!(mount.fs.copy_range(CALLER, (reader, 0), (open.handle, 0), 5).await.unwrap(), 5);
    assert_eq!(mount.text("team/app/v1/copy").await, "hello");
    mount.fs.write(open.handle, 0, b"j", false).await.unwrap();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "hello");
    assert_eq!(mount.fs.getattr(copy.inode).await.unwrap().attributes.size, 5);
}

#[tokio::test]
async fn digests_metadata_and_layers_are_read_only_and_files_exist_only_in_tags() {
    let mount = TestMount::writable(registry());
    let digest = mount.xattr("team/app/v1", "user.oci.digest").await.unwrap();
    let digest = format!("team/app/@{}", digest.replace(':', "-"));
    for place in [digest.as_str(), "team/app/.oci", "team/app/.oci/tags", "team/app/.oci/tags/v1", ".oci"] {
        for kind in [Kind::File, Kind::Directory, Kind::Symlink] {
            assert_eq!(mount.make(&format!("{place}/new"), kind).await.unwrap_err().kind, ErrorKind::ReadOnly, "{place} {kind:?}");
        }
        assert_eq!(mount.fs.access(mount.entry(place).await.inode, true, false).await.unwrap_err().kind, ErrorKind::ReadOnly, "{place}");
    }
    let file = mount.entry(&format!("{digest}/a.txt")).await;
    assert_eq!(mount.fs.open(file.inode, true).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(mount.fs.setattr(CALLER, file.inode, SetAttributes::default()).await.unwrap_err().kind, ErrorKind::ReadOnly);
    for place in ["", "team/", "team/app/"] {
        for kind in [Kind::File, Kind::Symlink, Kind::Fifo] {
            assert_eq!(mount.make(&format!("{place}new"), kind).await.unwrap_err().kind, ErrorKind::NotPermitted, "{place} {kind:?}");
        }
    }
    let repository = mount.entry("team/app").await;
    let set = SetAttributes { mode: Some(0o700), ..SetAttributes::default() };
    assert_eq!(mount.fs.setattr(CALLER, repository.inode, set).await.unwrap_err().kind, ErrorKind::NotPermitted);
}

#[tokio::test]
async fn extended_attributes_are_set_and_removed_except_ocifs_s_own() {
    let mount = TestMount::writable(registry());
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    mount.fs.setxattr(file, b"user.mine", b"1", true, false).await.unwrap();
    assert_eq!(mount.fs.setxattr(file, b"user.mine", b"2", true, false).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(mount.fs.setxattr(file, b"user.other", b"2", false, true).await.unwrap_err().kind, ErrorKind::NoAttribute);
    assert_eq!(mount.xattr("team/app/v1/a.txt", "user.mine").await.as_deref(), Some("1"));
    assert_eq!(mount.fs.listxattr(file).unwrap(), [b"user.mine".to_vec()]);
    for own in ["user.oci.digest", "user.ocifs.state", "user.ocifs.cached"] {
        assert_eq!(mount.fs.setxattr(file, own.as_bytes(), b"x", false, false).await.unwrap_err().kind, ErrorKind::NotPermitted);
        assert_eq!(mount.fs.removexattr(file, own.as_bytes()).await.unwrap_err().kind, ErrorKind::NotPermitted);
    }
    mount.fs.removexattr(file, b"user.mine").await.unwrap();
    assert_eq!(mount.xattr("team/app/v1/a.txt", "user.mine").await, None);
}

#[tokio::test]
async fn the_state_attribute_says_how_a_file_differs_from_upstream() {
    let mount = TestMount::writable(registry());
    let state = async |path: &str| mount.xattr(path, "user.ocifs.state").await.unwrap();
    assert_eq!(state("team/app/v1/a.txt").await, "clean");
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.put("team/app/v1/new.txt", "new").await;
    assert_eq!(state("team/app/v1/a.txt").await, "changed");
    assert_eq!(state("team/app/v1/new.txt").await, "added");
    assert_eq!(state("team/app/v1/dir/b.txt").await, "clean");
    assert_eq!(state("team").await, "clean");
}

#[tokio::test]
async fn rename_flags_exchange_names_or_refuse_replacement() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/new.txt", "new").await;
    let (from, to) = (mount.parent("team/app/v1/new.txt").await, mount.parent("team/app/v1/a.txt").await);
    assert_eq!(mount.fs.rename(from, to, Replace::No).await.unwrap_err().kind, ErrorKind::Exists);
    mount.fs.rename(from, to, Replace::Exchange).await.unwrap();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "new");
    assert_eq!(mount.text("team/app/v1/new.txt").await, "hello");
}

#[tokio::test]
async fn a_mount_of_one_tag_is_edited_at_its_root() {
    let root = Root::Content(repository("team/app"), Version::Tag(Tag::parse("v1").unwrap()));
    let mount = TestMount::with(registry(), Setup { root, ..Setup::writable() });
    mount.put("a.txt", "changed").await;
    mount.mkdir("new").await;
    assert_eq!(mount.list("").await, ["a.txt", "dir", "new"]);
    assert_eq!(mount.text("a.txt").await, "changed");
    let set = SetAttributes { mode: Some(0o700), ..SetAttributes::default() };
    assert_eq!(mount.fs.setattr(CALLER, ROOT, set).await.unwrap().attributes.mode, 0o700);
    assert_eq!(mount.fs.staged().await[0].path, "");
}

#[tokio::test]
async fn a_mount_by_digest_is_read_only() {
    let registry = registry();
    let digest = add_files(&registry, "team/app", "v3", &[("a.txt", "hello")]);
    let root = Root::Content(repository("team/app"), Version::Digest(digest));
    let mount = TestMount::with(registry, Setup { root, ..Setup::writable() });
    assert_eq!(mount.write("a.txt", "x").await.unwrap_err().kind, ErrorKind::ReadOnly);
}

#[tokio::test]
async fn statfs_shows_the_quota() {
    let mount = TestMount::with(registry(), Setup { quota: Some(1 << 20), ..Setup::writable() });
    mount.put("team/app/v1/new.txt", "0123456789").await;
    let space = mount.fs.statfs().await.unwrap();
    assert_eq!(space.total, 1 << 20);
    assert!(space.free < 1 << 20, "{space:?}");
    let error = mount.write("team/app/v1/large.txt", &"x".repeat(2 << 20)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace);
    assert_eq!(mount.text("team/app/v1/new.txt").await, "0123456789");
}

#[tokio::test]
async fn writing_a_file_clears_its_set_id_bits() {
    let mount = TestMount::writable(registry());
    let (ours, root) = (CALLER, super::super::Caller { uid: 0, gid: 0 });
    let lending = SetAttributes { mode: Some(0o6755), ..SetAttributes::default() };
    let mode = async |path: &str| mount.entry(path).await.attributes.mode;
    mount.put("team/app/v1/tool", "code").await;
    let tool = mount.entry("team/app/v1/tool").await.inode;
    let open = mount.fs.open(tool, true).await.unwrap().handle;
    for (caller, set, expected) in [
        (ours, SetAttributes { size: Some(2), ..SetAttributes::default() }, 0o755),
        (root, SetAttributes { size: Some(2), ..SetAttributes::default() }, 0o6755),
        (root, SetAttributes { uid: Some(1), ..SetAttributes::default() }, 0o755),
    ] {
        mount.fs.setattr(root, tool, lending).await.unwrap();
        mount.fs.setattr(caller, tool, set).await.unwrap();
        assert_eq!(mode("team/app/v1/tool").await, expected, "{set:?}");
    }
    mount.fs.setattr(root, tool, lending).await.unwrap();
    mount.fs.setxattr(tool, b"security.capability", b"some", false, false).await.unwrap();
    mount.fs.write(open, 0, b"x", false).await.unwrap();
    assert_eq!(mode("team/app/v1/tool").await, 0o6755, "the kernel says when they go");
    assert_eq!(mount.xattr("team/app/v1/tool", "security.capability").await, None);
    mount.fs.write(open, 0, b"x", true).await.unwrap();
    assert_eq!(mode("team/app/v1/tool").await, 0o755);
    mount.fs.setattr(root, tool, SetAttributes { mode: Some(0o2644), ..SetAttributes::default() }).await.unwrap();
    mount.fs.write(open, 0, b"x", true).await.unwrap();
    assert_eq!(mode("team/app/v1/tool").await, 0o2644, "its group cannot run it");
}

#[tokio::test]
async fn access_times_are_shown_as_set_and_acls_are_refused() {
    let mount = TestMount::writable(registry());
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    let set = SetAttributes { atime: Some((7, 5)), mtime: Some((8, 0)), ..SetAttributes::default() };
    let shown = mount.fs.setattr(CALLER, file, set).await.unwrap().attributes;
    assert_eq!((shown.atime, shown.time), ((7, 5), (8, 0)));
    mount.text("team/app/v1/a.txt").await;
    assert_eq!(mount.entry("team/app/v1/a.txt").await.attributes.atime, (7, 5));
    let refused = mount.fs.setxattr(file, b"system.posix_acl_access", b"x", false, false).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_handle_from_before_the_first_edit_outlives_all_names_of_its_file() {
    let mount = TestMount::writable(registry());
    let file = mount.entry("team/app/v1/a.txt").await;
    let (used, unused) = (mount.fs.open(file.inode, false).await.unwrap().handle, mount.fs.open(file.inode, false).await.unwrap().handle);
    // No other handle is open when it is written, replaced and published.
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.put("team/app/v1/other.txt", "other").await;
    mount.rename("team/app/v1/other.txt", "team/app/v1/a.txt").await.unwrap();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "other");
    assert_eq!(mount.fs.read(used, 0, 100).await.unwrap(), "changed");
    mount.fs.release(used);
    assert_eq!(mount.fs.read(unused, 0, 100).await.unwrap(), "changed");
    let staged = mount.fs.tags.uppers().unwrap().usage().0;
    mount.fs.release(unused);
    mount.fs.fsyncdir(mount.entry("team/app/v1").await.inode).await.unwrap();
    assert!(mount.fs.tags.uppers().unwrap().usage().0 < staged, "its bytes go with the last handle");
}
