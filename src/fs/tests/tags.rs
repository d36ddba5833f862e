//! Creating, removing and renaming tags and repositories, invisible to other mounts until a sync.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::Lookup;
use super::syncing::published;
use super::test_mount::{Setup, TestMount, add_files, new_name};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::fs::{KernelCache, Root, Selection};
use crate::publish::{Listener, Options, Outcome};
use crate::registry::{Fault, Memory, RequestKind};

fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello"), ("dir/b.txt", "there")]);
    registry
}

fn deleting() -> Setup {
    Setup { allow_delete: true, ..Setup::writable() }
}

#[tokio::test]
async fn a_new_tag_s_name_is_forgotten_only_if_the_kernel_did_not_make_it() {
    struct Forgotten(Mutex<Vec<Vec<u8>>>);
    impl KernelCache for Forgotten {
        fn forget_inode(&self, _inode: u64) {}
        fn hand_over(&self, _inode: u64) {}
        fn forget_name(&self, _directory: u64, name: &[u8]) {
            self.0.lock().push(name.to_owned());
        }
    }
    let mount = TestMount::writable(registry());
    let forgotten = Arc::new(Forgotten(Mutex::default()));
    mount.fs.set_kernel_cache(forgotten.clone());
    mount.mkdir("tools").await;
    mount.mkdir("tools/made").await;
    assert_eq!(*forgotten.0.lock(), Vec::<Vec<u8>>::new(), "it would vanish under a process that has entered it");
    mount.fs.new_tag("reg.io/tools:begun").await.unwrap();
    assert_eq!(*forgotten.0.lock(), [b"begun".to_vec()]);
}

#[tokio::test]
async fn mkdir_creates_a_repository_tag_or_directory_depending_on_its_level() {
    let mount = TestMount::writable(registry());
    mount.mkdir("tools").await;
    mount.mkdir("tools/v1").await;
    mount.mkdir("tools/v1/bin").await;
    mount.mkdir("team/web").await;
    mount.mkdir("team/app/v2").await;
    assert_eq!(mount.list("").await, ["team", "tools"]);
    assert_eq!(mount.list("team").await, ["app", "web"]);
    assert_eq!(mount.list("team/app").await, ["v1", "v2"]);
    assert_eq!(mount.list("tools").await, ["v1"]);
    assert_eq!(mount.list("tools/v1").await, ["bin"]);
    assert_eq!(mount.list("team/web").await, [""; 0]);
    assert_eq!(mount.xattr("tools/v1", "user.oci.reference").await.as_deref(), Some("reg.io/tools:v1"));
    assert_eq!(mount.xattr("tools/v1", "user.oci.digest").await, None, "it is not upstream");
    assert!(mount.registry.tagged("tools").is_empty());
    let staged: Vec<String> = mount.fs.staged().await.into_iter().map(|tag| tag.path).collect();
    assert_eq!(staged, ["team/app/v2", "tools/v1"]);
}

#[tokio::test]
async fn mkdir_of_an_existing_name_fails_and_asks_upstream_only_if_needed() {
    let registry = registry();
    let mount = TestMount::writable(registry);
    assert_eq!(mount.make("team", Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(mount.make("team/app", Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(mount.make("team/app/v1", Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists);
    mount.list("team/app").await;
    add_files(&mount.registry, "team/app", "v2", &[("a.txt", "again")]);
    assert_eq!(mount.make("team/app/v2", Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists, "no list is a negative answer");
    let directory = mount.entry("team/app").await.inode;
    mount.registry.plan(RequestKind::Manifest, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    let new = new_name(directory, b"v3", Kind::Directory, 0o755);
    assert_eq!(mount.fs.make(super::test_mount::CALLER, new).await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn malformed_names_are_invalid() {
    let mount = TestMount::writable(registry());
    for path in ["Upper", "a b", "team/_x", "team/app/-v", "team/app/a b", "team/app/v1:x", "C:", "team/app/.hidden"] {
        assert_eq!(mount.make(path, Kind::Directory).await.unwrap_err().kind, ErrorKind::Invalid, "{path}");
    }
    assert_eq!(mount.make("team/.oci", Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists);
}

#[tokio::test]
async fn an_empty_source_is_a_prefix_and_new_creates_what_mkdir_cannot() {
    let mount =
        TestMount::with(Memory::new(), Setup { root: Root::Prefix(Some(super::test_mount::repository("team/app"))), ..Setup::writable() });
    mount.mkdir("web").await;
    assert_eq!(mount.entry("web").await.attributes.kind, Kind::Directory);
    mount.mkdir("web/v1").await;
    assert_eq!(mount.fs.staged().await[0].reference, "reg.io/team/app/web:v1");
    assert_eq!(mount.fs.new_tag("reg.io/team/app:v1").await.unwrap(), "v1");
    assert_eq!(mount.fs.new_tag("reg.io/team/app/deep/er:v1").await.unwrap(), "deep/er/v1");
    mount.put("v1/file", "text").await;
    mount.put("deep/er/v1/file", "text").await;
    assert_eq!(mount.list("").await, ["v1", "deep", "web"]);
    assert_eq!(mount.fs.new_tag("reg.io/team/app:v1").await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(mount.fs.new_tag("reg.io/other:v1").await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(mount.fs.new_tag("reg.io/team/app").await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn without_a_catalog_a_tag_is_made_in_an_unseen_repository() {
    let registry = registry();
    registry.set_catalog(false);
    let mount = TestMount::writable(registry);
    assert_eq!(mount.make("tools", Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists, "it is found without a request");
    mount.mkdir("tools/v1").await;
    mount.put("tools/v1/file", "text").await;
    assert_eq!(mount.list("tools").await, ["v1"]);
}

#[tokio::test]
async fn an_empty_staged_repository_can_be_removed_and_renamed() {
    let mount = TestMount::writable(registry());
    mount.mkdir("tools").await;
    let before = mount.entry("tools").await.inode;
    mount.rename("tools", "kit").await.unwrap();
    assert_eq!(mount.entry("kit").await.inode, before);
    mount.absent("tools").await;
    mount.mkdir("kit/v1").await;
    assert_eq!(mount.fs.staged().await[0].reference, "reg.io/kit:v1");
    assert_eq!(mount.remove("kit").await.unwrap_err().kind, ErrorKind::NotEmpty);
    assert_eq!(mount.rename("kit", "tools").await.unwrap_err().kind, ErrorKind::NotPermitted);
    mount.remove("kit/v1").await.unwrap();
    assert_eq!(mount.list("").await, ["kit", "team"], "its directory stays");
    mount.remove("kit").await.unwrap();
    mount.absent("kit").await;
    assert_eq!(mount.remove("team").await.unwrap_err().kind, ErrorKind::NotPermitted);
}

#[tokio::test]
async fn rmdir_drops_a_tag_that_is_only_staged() {
    let mount = TestMount::writable(registry());
    mount.mkdir("team/app/v2").await;
    mount.put("team/app/v2/file", "text").await;
    let inside = mount.entry("team/app/v2").await.inode;
    assert_eq!(mount.remove("team/app/v2").await.unwrap_err().kind, ErrorKind::NotEmpty);
    mount.remove("team/app/v2/file").await.unwrap();
    mount.remove("team/app/v2").await.unwrap();
    assert_eq!(mount.list("team/app").await, ["v1"]);
    assert_eq!(mount.fs.staged().await, []);
    assert_eq!(mount.fs.lookup(inside, b"file").await.unwrap_err().kind, ErrorKind::Gone);
    mount.mkdir("team/app/v2").await;
    assert_ne!(mount.entry("team/app/v2").await.inode, inside);
}

#[tokio::test]
async fn an_upstream_tag_is_deleted_only_if_allowed() {
    let mount = TestMount::writable(registry());
    assert_eq!(mount.remove("team/app/v1").await.unwrap_err().kind, ErrorKind::NotPermitted);
    assert_eq!(mount.fs.staged().await, []);
    let mount = TestMount::with(registry(), deleting());
    assert_eq!(mount.remove("team/app/v1").await.unwrap_err().kind, ErrorKind::NotEmpty);
    for path in ["team/app/v1/a.txt", "team/app/v1/dir/b.txt", "team/app/v1/dir", "team/app/v1"] {
        mount.remove(path).await.unwrap();
    }
    mount.absent("team/app/v1").await;
    assert_eq!(mount.list("team/app").await, [""; 0]);
    assert_eq!(mount.list("team/app/.oci/tags").await, [""; 0]);
    let staged = mount.fs.staged().await;
    assert!(staged[0].deleted && staged[0].reference == "reg.io/team/app:v1", "{staged:?}");
    mount.mkdir("team/app/v1").await;
    assert_eq!(mount.list("team/app/v1").await, [""; 0]);
    assert!(!mount.fs.staged().await[0].deleted);
    mount.fs.discard(&Selection::All).await.unwrap();
    assert_eq!(mount.list("team/app/v1").await, ["a.txt", "dir"]);
}

#[tokio::test]
async fn a_renamed_tag_keeps_its_directory_and_edits() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/new.txt", "new").await;
    let inside = mount.entry("team/app/v1/dir").await.inode;
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    let open = mount.fs.open(file, true).await.unwrap().handle;
    mount.rename("team/app/v1", "team/app/v2").await.unwrap();
    assert_eq!(mount.list("team/app").await, ["v2"]);
    mount.absent("team/app/v1").await;
    assert_eq!(mount.entry("team/app/v2/a.txt").await.inode, file);
    assert_eq!(mount.text("team/app/v2/new.txt").await, "new");
    mount.fs.write(open, 0, b"J", false).await.unwrap();
    assert_eq!(mount.text("team/app/v2/a.txt").await, "Jello");
    assert!(mount.fs.lookup(inside, b"b.txt").await.unwrap().found().is_some());
    assert_eq!(mount.xattr("team/app/v2", "user.oci.reference").await.as_deref(), Some("reg.io/team/app:v2"));
    let staged: Vec<(String, bool)> = mount.fs.staged().await.into_iter().map(|tag| (tag.reference, tag.deleted)).collect();
    assert_eq!(staged, [("reg.io/team/app:v1".to_owned(), true), ("reg.io/team/app:v2".to_owned(), false)]);
    mount.fs.release(open);
    mount.rename("team/app/v2", "team/app/v1").await.unwrap();
    assert_eq!(mount.list("team/app").await, ["v1"]);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "Jello");
    assert_eq!(mount.fs.staged().await.len(), 1);
}

#[tokio::test]
async fn a_tag_cannot_be_renamed_to_a_taken_name_or_another_repository() {
    let registry = registry();
    add_files(&registry, "team/app", "v2", &[("a.txt", "again")]);
    add_files(&registry, "team/web", "v1", &[("a.txt", "web")]);
    let mount = TestMount::writable(registry);
    assert_eq!(mount.rename("team/app/v1", "team/app/v2").await.unwrap_err().kind, ErrorKind::NotEmpty);
    assert_eq!(mount.rename("team/app/v1", "team/web/v2").await.unwrap_err().kind, ErrorKind::CrossDevice);
    assert_eq!(mount.rename("team/app/v1", "team/app/not a tag").await.unwrap_err().kind, ErrorKind::Invalid);
    mount.mkdir("team/app/v3").await;
    mount.rename("team/app/v1", "team/app/v3").await.unwrap();
    assert_eq!(mount.text("team/app/v3/a.txt").await, "hello", "an empty one is replaced, as by rename(2)");
}

#[tokio::test]
async fn a_staged_tag_appears_in_the_metadata_directory() {
    let mount = TestMount::writable(registry());
    mount.mkdir("team/app/v2").await;
    assert_eq!(mount.list("team/app/.oci/tags").await, ["v1", "v2"]);
    assert_eq!(mount.list("team/app/.oci/tags/v2").await, ["fs", "reference"]);
    assert_eq!(mount.link("team/app/.oci/tags/v2/fs").await, "../../../v2");
    assert_eq!(mount.text("team/app/.oci/tags/v2/reference").await, "reg.io/team/app:v2\n");
    assert_eq!(mount.link("team/app:v2").await, "app/v2");
}

#[tokio::test]
async fn a_tag_edited_by_another_mount_is_busy_and_its_edits_are_invisible() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "mine").await;
    let other = mount.beside(Setup::writable());
    assert_eq!(other.fs.adopt().await, []);
    assert_eq!(other.write("team/app/v1/a.txt", "theirs").await.unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(other.text("team/app/v1/a.txt").await, "hello");
    assert_eq!(other.fs.staged().await, []);
}

#[tokio::test]
async fn orphaned_edits_are_adopted_by_the_next_mount() {
    let mount = TestMount::with(registry(), deleting());
    add_files(&mount.registry, "team/app", "old", &[]);
    mount.put("team/app/v1/a.txt", "mine").await;
    mount.mkdir("tools").await;
    mount.mkdir("tools/v1").await;
    mount.remove("team/app/old").await.unwrap();
    mount.mkdir("empty").await;
    let mount = mount.again(Setup::writable());
    let mut adopted: Vec<(String, bool)> = mount.fs.adopt().await.into_iter().map(|tag| (tag.path, tag.deleted)).collect();
    adopted.sort();
    let expected = [("team/app/old", true), ("team/app/v1", false), ("tools/v1", false)];
    assert_eq!(adopted, expected.map(|(path, deleted)| (path.to_owned(), deleted)));
    assert_eq!(mount.list("").await, ["team", "tools"], "a repository without a tag is forgotten");
    assert_eq!(mount.list("team/app").await, ["v1"]);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "mine");
    assert_eq!(mount.list("tools/v1").await, [""; 0]);
    assert_eq!(mount.fs.staged().await.len(), 3);
}

#[tokio::test]
async fn a_mount_adopts_only_edits_below_its_source() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "mine").await;
    let mount = mount.again(Setup { root: Root::Prefix(Some(super::test_mount::repository("tea"))), ..Setup::writable() });
    assert_eq!(mount.fs.adopt().await, []);
    assert_eq!(mount.fs.staged().await, []);
}

#[tokio::test]
async fn a_tag_with_edits_stops_following_upstream() {
    let mount = TestMount::with(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::writable() });
    mount.put("team/app/v1/a.txt", "mine").await;
    let edited = mount.entry("team/app/v1").await.inode;
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "moved")]);
    assert_eq!(mount.entry("team/app/v1").await.inode, edited);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "mine");
    mount.fs.discard(&Selection::All).await.unwrap();
    assert_eq!(mount.text("team/app/v1/a.txt").await, "moved");
}

#[tokio::test]
async fn a_moved_tag_cannot_be_edited_through_its_old_directory() {
    let mount = TestMount::with(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::writable() });
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    let directory = mount.entry("team/app/v1").await.inode;
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "moved")]);
    assert_eq!(mount.fs.open(file, true).await.unwrap_err().kind, ErrorKind::Gone);
    assert_eq!(mount.fs.unlink(directory, b"a.txt").await.unwrap_err().kind, ErrorKind::Gone);
    mount.put("team/app/v1/a.txt", "mine").await;
    assert_eq!(mount.text("team/app/v1/a.txt").await, "mine");
    assert!(matches!(mount.fs.lookup(directory, b"a.txt").await.unwrap(), Lookup::Found(_)), "a process inside stays");
}

#[tokio::test]
async fn a_view_with_edits_stays_when_the_kernel_forgets_it() {
    let mount = TestMount::writable(registry());
    let (directory, file) = (mount.entry("team/app/v1").await.inode, mount.entry("team/app/v1/a.txt").await.inode);
    let open = mount.fs.open(file, true).await.unwrap().handle;
    mount.fs.write(open, 0, b"J", false).await.unwrap();
    mount.fs.release(open);
    mount.fs.forget(directory, 2);
    mount.fs.forget(file, 1);
    assert_eq!(mount.entry("team/app/v1").await.inode, directory, "it is the same view");
    assert_eq!(mount.text("team/app/v1/a.txt").await, "Jello");
}

#[tokio::test]
async fn tags_of_a_new_repository_that_refused_a_file_are_published_only_when_named() {
    let mount = TestMount::writable(registry());
    mount.mkdir("copied").await;
    mount.mkdir("copied/sub").await;
    mount.put("copied/sub/file", "text").await;
    assert_eq!(mount.write("copied/file", "text").await.unwrap_err().kind, ErrorKind::NotPermitted);
    // A file refused in an upstream repository is a mistake without consequences.
    assert_eq!(mount.write("team/app/file", "text").await.unwrap_err().kind, ErrorKind::NotPermitted);
    mount.put("team/app/v1/a.txt", "changed").await;
    let reports = mount.sync().await;
    assert_eq!(published(&reports), ["reg.io/team/app:v1"]);
    let skipped = reports.iter().find(|report| report.reference == "reg.io/copied:sub").unwrap();
    assert!(matches!(&skipped.outcome, Outcome::Failed { kind, .. } if kind == ErrorKind::Skipped.name()), "{skipped:?}");
    mount.fs.discard(&Selection::All).await.unwrap();
    mount.mkdir("copied/v1").await;
    mount.put("copied/v1/file", "meant").await;
    assert_eq!(published(&mount.sync().await), ["reg.io/copied:v1"], "a new beginning");

    mount.mkdir("other").await;
    mount.mkdir("other/sub").await;
    mount.put("other/sub/file", "text").await;
    mount.write("other/file", "text").await.unwrap_err();
    let named = Selection::Reference("reg.io/other:sub".to_owned());
    let reports = mount.fs.sync(&named, &Options::default(), &(Arc::new(|_| {}) as Listener)).await.unwrap();
    assert_eq!(published(&reports), ["reg.io/other:sub"]);
}
