//! Changes inside of tags, through the file system's own calls: what is seen of them, what is refused, what open files show.

use super::super::{Lookup, ROOT, Root};
use super::world::{CALLER, Setup, World, add_files, repository};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::fs::NewName;
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
async fn a_file_that_is_written_is_read_back_and_the_others_stay() {
    let world = World::writable(registry());
    world.put("team/app/v1/a.txt", "changed").await;
    world.put("team/app/v1/new.txt", "new").await;
    assert_eq!(world.text("team/app/v1/a.txt").await, "changed");
    assert_eq!(world.text("team/app/v1/new.txt").await, "new");
    assert_eq!(world.text("team/app/v1/dir/b.txt").await, "there");
    assert_eq!(world.list("team/app/v1").await, ["a.txt", "dir", "new.txt"]);
    assert_eq!(world.text("team/app/v2/a.txt").await, "again", "another tag");
}

#[tokio::test]
async fn a_file_keeps_its_inode_when_it_is_written_and_a_new_one_has_one_of_its_own() {
    let world = World::writable(registry());
    let before = world.entry("team/app/v1/a.txt").await.inode;
    world.put("team/app/v1/a.txt", "changed").await;
    assert_eq!(world.entry("team/app/v1/a.txt").await.inode, before);
    world.put("team/app/v1/new.txt", "new").await;
    let new = world.entry("team/app/v1/new.txt").await.inode;
    assert!(super::super::Inode::decode(new).is_staged());
    let listed = world.list_entries("team/app/v1").await.unwrap();
    assert!(listed.iter().any(|(name, entry)| name == "new.txt" && entry.inode == new));
}

#[tokio::test]
async fn who_has_a_file_open_reads_what_is_written_to_it() {
    let world = World::writable(registry());
    let file = world.entry("team/app/v1/a.txt").await;
    let reader = world.fs.open(file.inode, false).await.unwrap().handle;
    assert_eq!(world.fs.read(reader, 0, 100).await.unwrap(), "hello");
    let writer = world.fs.open(file.inode, true).await.unwrap().handle;
    assert_eq!(world.fs.read(writer, 0, 100).await.unwrap(), "hello", "a writer must be able to read");
    world.fs.write(writer, 1, b"u", false).await.unwrap();
    assert_eq!(world.fs.read(reader, 0, 100).await.unwrap(), "hullo");
    assert_eq!(world.fs.write(reader, 0, b"x", false).await.unwrap_err().kind, ErrorKind::Invalid);
    world.fs.fsync(writer).await.unwrap();
    world.fs.fsync(reader).await.unwrap();
    world.fs.release(writer);
    assert_eq!(world.fs.read(reader, 0, 100).await.unwrap(), "hullo");
}

#[tokio::test]
async fn a_file_without_a_name_is_there_as_long_as_it_is_open() {
    let world = World::writable(registry());
    world.put("team/app/v1/new.txt", "new").await;
    for path in ["team/app/v1/new.txt", "team/app/v1/a.txt"] {
        let file = world.entry(path).await;
        let before = world.text(path).await;
        let (reader, writer) =
            (world.fs.open(file.inode, false).await.unwrap().handle, world.fs.open(file.inode, true).await.unwrap().handle);
        world.remove(path).await.unwrap();
        assert!(matches!(world.lookup(path).await.unwrap(), Lookup::Absent(_)));
        assert_eq!(world.fs.getattr(file.inode).await.unwrap().attributes.links, 0);
        world.fs.write(writer, 0, b"N", false).await.unwrap();
        assert_eq!(world.fs.read(reader, 0, 100).await.unwrap(), format!("N{}", &before[1..]));
        world.fs.release(writer);
        world.fs.release(reader);
        let after = world.fs.getattr(file.inode).await;
        assert!(after.as_ref().is_ok_and(|entry| entry.attributes.links == 0) || after.is_err(), "{path}: {after:?}");
    }
}

#[tokio::test]
async fn a_file_that_was_opened_before_anything_was_edited_outlives_its_name() {
    let world = World::writable(registry());
    let file = world.entry("team/app/v1/a.txt").await;
    let reader = world.fs.open(file.inode, false).await.unwrap().handle;
    world.remove("team/app/v1/a.txt").await.unwrap();
    assert_eq!(world.fs.read(reader, 0, 100).await.unwrap(), "hello");
    assert_eq!(world.fs.getattr(file.inode).await.unwrap().attributes.size, 5);
}

#[tokio::test]
async fn every_kind_of_name_can_be_made_renamed_linked_and_removed() {
    let world = World::writable(registry());
    for (name, kind) in [("d", Kind::Directory), ("l", Kind::Symlink), ("p", Kind::Fifo), ("s", Kind::Socket), ("f", Kind::File)] {
        let path = format!("team/app/v1/{name}");
        let made = world.make(&path, kind).await.unwrap();
        assert_eq!(made.attributes.kind, kind);
        assert_eq!((made.attributes.uid, made.attributes.gid), (CALLER.uid, CALLER.gid));
        assert_eq!(world.make(&path, kind).await.unwrap_err().kind, ErrorKind::Exists);
        let moved = format!("{path}2");
        world.rename(&path, &moved).await.unwrap();
        assert_eq!(world.entry(&moved).await.inode, made.inode);
        world.absent(&path).await;
        if kind == Kind::Symlink {
            assert_eq!(world.link(&moved).await, "target");
        }
        if kind != Kind::Directory {
            let (directory, name) = world.parent(&path).await;
            let linked = world.fs.link(made.inode, directory, name).await.unwrap();
            assert_eq!((linked.inode, linked.attributes.links), (made.inode, 2));
            world.remove(&path).await.unwrap();
        }
        world.remove(&moved).await.unwrap();
    }
    assert_eq!(world.list("team/app/v1").await, ["a.txt", "dir"]);
}

#[tokio::test]
async fn what_is_made_in_a_directory_with_set_group_id_gets_its_group() {
    let world = World::writable(registry());
    let directory = world.make("team/app/v1/shared", Kind::Directory).await.unwrap();
    let set = SetAttributes { mode: Some(0o2770), gid: Some(42), ..SetAttributes::default() };
    world.fs.setattr(CALLER, directory.inode, set).await.unwrap();
    let file = world.make("team/app/v1/shared/file", Kind::File).await.unwrap();
    let below = world.make("team/app/v1/shared/below", Kind::Directory).await.unwrap();
    assert_eq!((file.attributes.gid, below.attributes.gid), (42, 42));
    assert_eq!((file.attributes.mode, below.attributes.mode), (0o644, 0o2755));
}

#[tokio::test]
async fn a_name_of_more_than_255_bytes_is_too_long() {
    let world = World::writable(registry());
    let (fits, long) = (format!("team/app/v1/{}", "n".repeat(255)), format!("team/app/v1/{}", "n".repeat(256)));
    world.put(&fits, "").await;
    assert_eq!(world.trouble(&long).await, ErrorKind::TooLong);
    assert_eq!(world.make(&long, Kind::Directory).await.unwrap_err().kind, ErrorKind::TooLong);
    assert_eq!(world.rename(&fits, &long).await.unwrap_err().kind, ErrorKind::TooLong);
}

#[tokio::test]
async fn a_whiteout_s_name_cannot_be_made() {
    let world = World::writable(registry());
    assert_eq!(world.make("team/app/v1/.wh.a.txt", Kind::Fifo).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.write("team/app/v1/.wh.a.txt", "").await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn nothing_is_renamed_or_linked_from_one_tag_to_another() {
    let world = World::writable(registry());
    assert_eq!(world.rename("team/app/v1/a.txt", "team/app/v2/b.txt").await.unwrap_err().kind, ErrorKind::CrossDevice);
    assert_eq!(world.rename("team/app/v1/dir", "team/app/dir").await.unwrap_err().kind, ErrorKind::CrossDevice);
    let (file, other) = (world.entry("team/app/v1/a.txt").await, world.entry("team/app/v2").await);
    assert_eq!(world.fs.link(file.inode, other.inode, b"b").await.unwrap_err().kind, ErrorKind::CrossDevice);
    let (reader, writer) = (world.fs.open(file.inode, false).await.unwrap(), world.entry("team/app/v2/a.txt").await);
    let writer = world.fs.open(writer.inode, true).await.unwrap();
    let copied = world.fs.copy_range(CALLER, (reader.handle, 0), (writer.handle, 0), 5).await;
    assert_eq!(copied.unwrap_err().kind, ErrorKind::CrossDevice, "the kernel then reads and writes");
}

#[tokio::test]
async fn a_range_is_copied_inside_of_a_tag() {
    let world = World::writable(registry());
    let source = world.entry("team/app/v1/a.txt").await;
    let reader = world.fs.open(source.inode, false).await.unwrap().handle;
    let (directory, _) = world.parent("team/app/v1/copy").await;
    let new = NewName { directory, name: b"copy".to_vec(), kind: Kind::File, mode: 0o600, device: (0, 0), target: Vec::new() };
    let (copy, open) = world.fs.create(CALLER, new, true).await.unwrap();
    assert_eq!(world.fs.copy_range(CALLER, (reader, 0), (open.handle, 0), 5).await.unwrap(), 5);
    assert_eq!(world.text("team/app/v1/copy").await, "hello");
    world.fs.write(open.handle, 0, b"j", false).await.unwrap();
    assert_eq!(world.text("team/app/v1/a.txt").await, "hello");
    assert_eq!(world.fs.getattr(copy.inode).await.unwrap().attributes.size, 5);
}

#[tokio::test]
async fn digests_metadata_and_layers_are_read_only_and_there_are_no_files_above_tags() {
    let world = World::writable(registry());
    let digest = world.xattr("team/app/v1", "user.oci.digest").await.unwrap();
    let digest = format!("team/app/@{}", digest.replace(':', "-"));
    for place in [digest.as_str(), "team/app/.oci", "team/app/.oci/tags", "team/app/.oci/tags/v1", ".oci"] {
        for kind in [Kind::File, Kind::Directory, Kind::Symlink] {
            assert_eq!(world.make(&format!("{place}/new"), kind).await.unwrap_err().kind, ErrorKind::ReadOnly, "{place} {kind:?}");
        }
        assert_eq!(world.fs.access(world.entry(place).await.inode, true, false).await.unwrap_err().kind, ErrorKind::ReadOnly, "{place}");
    }
    let file = world.entry(&format!("{digest}/a.txt")).await;
    assert_eq!(world.fs.open(file.inode, true).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(world.fs.setattr(CALLER, file.inode, SetAttributes::default()).await.unwrap_err().kind, ErrorKind::ReadOnly);
    for place in ["", "team/", "team/app/"] {
        for kind in [Kind::File, Kind::Symlink, Kind::Fifo] {
            assert_eq!(world.make(&format!("{place}new"), kind).await.unwrap_err().kind, ErrorKind::NotPermitted, "{place} {kind:?}");
        }
    }
    let repository = world.entry("team/app").await;
    let set = SetAttributes { mode: Some(0o700), ..SetAttributes::default() };
    assert_eq!(world.fs.setattr(CALLER, repository.inode, set).await.unwrap_err().kind, ErrorKind::NotPermitted);
}

#[tokio::test]
async fn extended_attributes_are_set_and_removed_except_ocifs_s_own() {
    let world = World::writable(registry());
    let file = world.entry("team/app/v1/a.txt").await.inode;
    world.fs.setxattr(file, b"user.mine", b"1", true, false).await.unwrap();
    assert_eq!(world.fs.setxattr(file, b"user.mine", b"2", true, false).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(world.fs.setxattr(file, b"user.other", b"2", false, true).await.unwrap_err().kind, ErrorKind::NoAttribute);
    assert_eq!(world.xattr("team/app/v1/a.txt", "user.mine").await.as_deref(), Some("1"));
    assert_eq!(world.fs.listxattr(file).unwrap(), [b"user.mine".to_vec()]);
    for own in ["user.oci.digest", "user.ocifs.state"] {
        assert_eq!(world.fs.setxattr(file, own.as_bytes(), b"x", false, false).await.unwrap_err().kind, ErrorKind::NotPermitted);
        assert_eq!(world.fs.removexattr(file, own.as_bytes()).await.unwrap_err().kind, ErrorKind::NotPermitted);
    }
    world.fs.removexattr(file, b"user.mine").await.unwrap();
    assert_eq!(world.xattr("team/app/v1/a.txt", "user.mine").await, None);
}

#[tokio::test]
async fn the_state_attribute_says_how_a_file_differs_from_upstream() {
    let world = World::writable(registry());
    let state = async |path: &str| world.xattr(path, "user.ocifs.state").await.unwrap();
    assert_eq!(state("team/app/v1/a.txt").await, "clean");
    world.put("team/app/v1/a.txt", "changed").await;
    world.put("team/app/v1/new.txt", "new").await;
    assert_eq!(state("team/app/v1/a.txt").await, "changed");
    assert_eq!(state("team/app/v1/new.txt").await, "added");
    assert_eq!(state("team/app/v1/dir/b.txt").await, "clean");
    assert_eq!(state("team").await, "clean");
}

#[tokio::test]
async fn names_are_exchanged_or_not_replaced_as_asked() {
    let world = World::writable(registry());
    world.put("team/app/v1/new.txt", "new").await;
    let (from, to) = (world.parent("team/app/v1/new.txt").await, world.parent("team/app/v1/a.txt").await);
    assert_eq!(world.fs.rename(from, to, Replace::No).await.unwrap_err().kind, ErrorKind::Exists);
    world.fs.rename(from, to, Replace::Exchange).await.unwrap();
    assert_eq!(world.text("team/app/v1/a.txt").await, "new");
    assert_eq!(world.text("team/app/v1/new.txt").await, "hello");
}

#[tokio::test]
async fn a_mount_of_one_tag_is_edited_at_its_root() {
    let root = Root::Content(repository("team/app"), Version::Tag(Tag::parse("v1").unwrap()));
    let world = World::with(registry(), Setup { root, ..Setup::writable() });
    world.put("a.txt", "changed").await;
    world.mkdir("new").await;
    assert_eq!(world.list("").await, ["a.txt", "dir", "new"]);
    assert_eq!(world.text("a.txt").await, "changed");
    let set = SetAttributes { mode: Some(0o700), ..SetAttributes::default() };
    assert_eq!(world.fs.setattr(CALLER, ROOT, set).await.unwrap().attributes.mode, 0o700);
    assert_eq!(world.fs.staged().await[0].path, "");
}

#[tokio::test]
async fn a_mount_by_digest_is_read_only() {
    let registry = registry();
    let digest = add_files(&registry, "team/app", "v3", &[("a.txt", "hello")]);
    let root = Root::Content(repository("team/app"), Version::Digest(digest));
    let world = World::with(registry, Setup { root, ..Setup::writable() });
    assert_eq!(world.write("a.txt", "x").await.unwrap_err().kind, ErrorKind::ReadOnly);
}

#[tokio::test]
async fn figures_of_the_disk_are_those_of_the_quota() {
    let world = World::with(registry(), Setup { quota: Some(1 << 20), ..Setup::writable() });
    world.put("team/app/v1/new.txt", "0123456789").await;
    let space = world.fs.statfs().await.unwrap();
    assert_eq!(space.total, 1 << 20);
    assert!(space.free < 1 << 20, "{space:?}");
    let error = world.write("team/app/v1/large.txt", &"x".repeat(2 << 20)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace);
    assert_eq!(world.text("team/app/v1/new.txt").await, "0123456789");
}

#[tokio::test]
async fn a_file_that_is_written_lends_nobody_its_owner_s_rights_any_more() {
    let world = World::writable(registry());
    let (ours, root) = (CALLER, super::super::Caller { uid: 0, gid: 0 });
    let lending = SetAttributes { mode: Some(0o6755), ..SetAttributes::default() };
    let mode = async |path: &str| world.entry(path).await.attributes.mode;
    world.put("team/app/v1/tool", "code").await;
    let tool = world.entry("team/app/v1/tool").await.inode;
    let open = world.fs.open(tool, true).await.unwrap().handle;
    for (caller, set, expected) in [
        (ours, SetAttributes { size: Some(2), ..SetAttributes::default() }, 0o755),
        (root, SetAttributes { size: Some(2), ..SetAttributes::default() }, 0o6755),
        (root, SetAttributes { uid: Some(1), ..SetAttributes::default() }, 0o755),
    ] {
        world.fs.setattr(root, tool, lending).await.unwrap();
        world.fs.setattr(caller, tool, set).await.unwrap();
        assert_eq!(mode("team/app/v1/tool").await, expected, "{set:?}");
    }
    world.fs.setattr(root, tool, lending).await.unwrap();
    world.fs.setxattr(tool, b"security.capability", b"some", false, false).await.unwrap();
    world.fs.write(open, 0, b"x", false).await.unwrap();
    assert_eq!(mode("team/app/v1/tool").await, 0o6755, "the kernel says when they go");
    assert_eq!(world.xattr("team/app/v1/tool", "security.capability").await, None);
    world.fs.write(open, 0, b"x", true).await.unwrap();
    assert_eq!(mode("team/app/v1/tool").await, 0o755);
    world.fs.setattr(root, tool, SetAttributes { mode: Some(0o2644), ..SetAttributes::default() }).await.unwrap();
    world.fs.write(open, 0, b"x", true).await.unwrap();
    assert_eq!(mode("team/app/v1/tool").await, 0o2644, "its group cannot run it");
}

#[tokio::test]
async fn times_of_access_are_shown_as_set_and_access_control_lists_are_refused() {
    let world = World::writable(registry());
    let file = world.entry("team/app/v1/a.txt").await.inode;
    let set = SetAttributes { atime: Some((7, 5)), mtime: Some((8, 0)), ..SetAttributes::default() };
    let shown = world.fs.setattr(CALLER, file, set).await.unwrap().attributes;
    assert_eq!((shown.atime, shown.time), ((7, 5), (8, 0)));
    world.text("team/app/v1/a.txt").await;
    assert_eq!(world.entry("team/app/v1/a.txt").await.attributes.atime, (7, 5));
    let refused = world.fs.setxattr(file, b"system.posix_acl_access", b"x", false, false).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_handle_from_before_the_first_edit_outlives_its_file_s_names() {
    let world = World::writable(registry());
    let file = world.entry("team/app/v1/a.txt").await;
    let (used, unused) = (world.fs.open(file.inode, false).await.unwrap().handle, world.fs.open(file.inode, false).await.unwrap().handle);
    // Nobody else has it open when it is written, replaced and published.
    world.put("team/app/v1/a.txt", "changed").await;
    world.put("team/app/v1/other.txt", "other").await;
    world.rename("team/app/v1/other.txt", "team/app/v1/a.txt").await.unwrap();
    assert_eq!(world.text("team/app/v1/a.txt").await, "other");
    assert_eq!(world.fs.read(used, 0, 100).await.unwrap(), "changed");
    world.fs.release(used);
    assert_eq!(world.fs.read(unused, 0, 100).await.unwrap(), "changed");
    let staged = world.fs.uppers().unwrap().usage().0;
    world.fs.release(unused);
    world.fs.fsyncdir(world.entry("team/app/v1").await.inode).await.unwrap();
    assert!(world.fs.uppers().unwrap().usage().0 < staged, "its bytes go with the last handle");
}
