//! Publishing through a mount's own directories: what survives, what is replaced, what another mount then sees.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Root, Selection};
use super::test_mount::{CALLER, Setup, TestMount, add_files, repository};
use crate::error::ErrorKind;
use crate::oci::{Tag, Version};
use crate::publish::{Listener, Options, Outcome, Report};
use crate::registry::{Fault, Memory, Pull, RequestKind};

pub(super) fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello"), ("dir/b.txt", "there")]);
    registry
}

fn quiet() -> Listener {
    Arc::new(|_| {})
}

impl TestMount {
    async fn sync_with(&self, selection: &Selection, options: &Options) -> Vec<Report> {
        self.fs.sync(selection, options, &quiet()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) async fn sync(&self) -> Vec<Report> {
        self.sync_with(&Selection::All, &Options::default()).await
    }

    /// Reads through another mount without cached state.
    async fn elsewhere(&self, path: &str) -> Result<String, ErrorKind> {
        let other = TestMount::with_shared(Arc::clone(&self.registry));
        match other.read(path).await {
            Ok(bytes) => Ok(String::from_utf8(bytes).unwrap()),
            Err(error) => Err(error.kind),
        }
    }
}

pub(super) fn published(reports: &[Report]) -> Vec<&str> {
    reports.iter().filter(|report| matches!(report.outcome, Outcome::Published { .. })).map(|report| report.reference.as_str()).collect()
}

fn failure(report: &Report) -> (&str, &str) {
    match &report.outcome {
        Outcome::Failed { kind, message } => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_new_tag_is_published_and_read_by_another_mount() {
    let mount = TestMount::writable(registry());
    mount.mkdir("tools").await;
    mount.mkdir("tools/v1").await;
    mount.put("tools/v1/file", "text").await;
    mount.put("team/app/v1/a.txt", "changed").await;
    assert_eq!((mount.fs.staged_count(), mount.fs.staged().await.len()), (2, 2));
    let reports = mount.sync().await;
    assert_eq!(published(&reports), ["reg.io/team/app:v1", "reg.io/tools:v1"], "{reports:?}");
    assert_eq!(mount.elsewhere("tools/v1/file").await.as_deref(), Ok("text"));
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("changed"));
    assert_eq!(mount.elsewhere("team/app/v1/dir/b.txt").await.as_deref(), Ok("there"));
    assert_eq!((mount.fs.staged_count(), mount.fs.staged().await.len()), (0, 0));
    assert_eq!(mount.sync().await, [], "nothing is left");
    assert_eq!(mount.list("").await, ["team", "tools"]);
    assert!(mount.list("tools/.oci/tags/v1").await.contains(&"manifest.json".to_owned()), "it has all its metadata now");
}

#[tokio::test]
async fn a_directory_and_its_open_files_survive_a_sync() {
    let mount = TestMount::with(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::writable() });
    let inside = mount.entry("team/app/v1/dir").await.inode;
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    let open = mount.fs.open(file, true).await.unwrap().handle;
    for text in ["one", "two", "six"] {
        mount.fs.write(open, 0, text.as_bytes(), false).await.unwrap();
        mount.put("team/app/v1/dir/b.txt", text).await;
        assert_eq!(published(&mount.sync().await).len(), 1);
        assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.unwrap(), format!("{text}lo"));
        assert_eq!(mount.elsewhere("team/app/v1/dir/b.txt").await.unwrap(), text);
        assert_eq!(mount.entry("team/app/v1/dir").await.inode, inside);
        assert_eq!(mount.entry("team/app/v1/a.txt").await.inode, file);
    }
    mount.fs.release(open);
    mount.sync().await;
    assert_eq!(mount.xattr("team/app/v1/dir/b.txt", "user.ocifs.state").await.as_deref(), Some("clean"));
    assert_eq!(mount.fs.staged().await, []);
    let now = mount.xattr("team/app/v1", "user.oci.digest").await;
    assert_eq!(now, mount.registry.tagged("team/app").get("v1").map(ToString::to_string));
}

#[tokio::test]
async fn a_failing_tag_keeps_its_edits_and_stops_no_other() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.mkdir("team/app/v2").await;
    mount.put("team/app/v2/file", "text").await;
    let moved = add_files(&mount.registry, "team/app", "v1", &[("a.txt", "theirs")]);
    let reports = mount.sync().await;
    assert_eq!(published(&reports), ["reg.io/team/app:v2"]);
    let (kind, message) = failure(&reports[0]);
    assert_eq!(kind, "conflict");
    assert!(message.contains(&moved.to_string()), "{message}");
    let staged = mount.fs.staged().await;
    assert_eq!(staged.len(), 1);
    assert_eq!(staged[0].conflict.as_deref(), Some(message));
    assert_eq!(mount.text("team/app/v1/a.txt").await, "changed");
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("theirs"));
}

#[tokio::test]
async fn theirs_shows_upstream_in_a_new_directory_and_the_old_one_is_stale() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    let (inside, file) = (mount.entry("team/app/v1").await.inode, mount.entry("team/app/v1/a.txt").await.inode);
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "theirs")]);
    let options = Options { theirs: true, ..Options::default() };
    let reports = mount.sync_with(&Selection::All, &options).await;
    assert_eq!(reports[0].outcome, Outcome::Dropped);
    assert_eq!(mount.fs.lookup(inside, b"a.txt").await.unwrap_err().kind, ErrorKind::Gone);
    assert_eq!(mount.fs.open(file, false).await.unwrap_err().kind, ErrorKind::Gone);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "theirs");
    assert_eq!(mount.fs.staged().await, []);
    mount.put("team/app/v1/a.txt", "again").await;
    assert_eq!(published(&mount.sync().await).len(), 1);
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("again"));
}

#[tokio::test]
async fn edits_are_published_under_another_name_and_the_first_shows_upstream_again() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    let inside = mount.entry("team/app/v1/dir").await.inode;
    let options = Options { as_tag: Some("v2".to_owned()), ..Options::default() };
    let reports = mount.sync_with(&Selection::Path("team/app/v1".to_owned()), &options).await;
    assert_eq!(published(&reports), ["reg.io/team/app:v2"]);
    assert_eq!(mount.list("team/app").await, ["v1", "v2"]);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "hello");
    assert_eq!(mount.text("team/app/v2/a.txt").await, "changed");
    assert_eq!(mount.entry("team/app/v2/dir").await.inode, inside, "the directory went along");
    assert_eq!(mount.elsewhere("team/app/v2/a.txt").await.as_deref(), Ok("changed"));
    mount.put("team/app/v1/a.txt", "mine").await;
    mount.put("team/app/v2/a.txt", "mine too").await;
    let error = mount.fs.sync(&Selection::All, &options, &quiet()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "two tags under one name");
}

#[tokio::test]
async fn renaming_a_tag_sends_no_blob_and_the_old_name_returns_unless_deletion_is_allowed() {
    for allow_delete in [false, true] {
        let mount = TestMount::with(registry(), Setup { allow_delete, ..Setup::writable() });
        let digest = mount.registry.tagged("team/app")["v1"];
        mount.rename("team/app/v1", "team/app/v2").await.unwrap();
        mount.registry.forget_requests();
        mount.sync().await;
        assert_eq!(mount.registry.count(RequestKind::PushBlob), 0);
        let expected: Vec<(String, _)> =
            if allow_delete { vec![("v2".to_owned(), digest)] } else { vec![("v1".to_owned(), digest), ("v2".to_owned(), digest)] };
        assert_eq!(mount.registry.tagged("team/app").into_iter().collect::<Vec<_>>(), expected);
        let names: Vec<String> = expected.into_iter().map(|(name, _)| name).collect();
        assert_eq!(mount.list("team/app").await, names);
        assert_eq!(mount.fs.staged().await, []);
    }
}

#[tokio::test]
async fn an_emptied_tag_is_not_published() {
    let mount = TestMount::writable(registry());
    for path in ["team/app/v1/a.txt", "team/app/v1/dir/b.txt", "team/app/v1/dir"] {
        mount.remove(path).await.unwrap();
    }
    assert_eq!(mount.remove("team/app/v1").await.unwrap_err().kind, ErrorKind::NotPermitted);
    assert_eq!(failure(&mount.sync().await[0]).0, "skipped");
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("hello"));
    assert_eq!(mount.fs.staged().await[0].removed, 3);
}

#[tokio::test]
async fn a_sync_of_one_path_or_reference_leaves_the_others() {
    let mount = TestMount::writable(registry());
    for tag in ["team/app/v2", "team/app/v3", "tools/v1"] {
        if tag.starts_with("tools") {
            mount.mkdir("tools").await;
        }
        mount.mkdir(tag).await;
        mount.put(&format!("{tag}/file"), tag).await;
    }
    let options = Options::default();
    let reports = mount.sync_with(&Selection::Reference("reg.io/tools:v1".to_owned()), &options).await;
    assert_eq!(published(&reports), ["reg.io/tools:v1"]);
    let reports = mount.sync_with(&Selection::Path("team/app/v2/".to_owned()), &options).await;
    assert_eq!(published(&reports), ["reg.io/team/app:v2"]);
    assert_eq!(mount.sync_with(&Selection::Path("team/app/v1".to_owned()), &options).await, [], "nothing to do is no error");
    for unknown in [Selection::Path("team/nothing".to_owned()), Selection::Reference("other.io/app:v1".to_owned())] {
        let error = mount.fs.sync(&unknown, &options, &quiet()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{unknown:?}");
    }
    assert_eq!(published(&mount.sync_with(&Selection::Path("team".to_owned()), &options).await), ["reg.io/team/app:v3"]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    let options = Options { dry_run: true, ..Options::default() };
    assert_eq!(published(&mount.sync_with(&Selection::All, &options).await).len(), 1);
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("hello"));
    assert_eq!(mount.fs.staged().await[0].changed, 1);
}

#[tokio::test]
async fn edits_left_by_a_failed_push_are_published_by_the_next_mount() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.registry.plan(RequestKind::PushManifest, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(failure(&mount.sync().await[0]).0, "unreachable");
    mount.registry.mend();
    let mount = mount.again(Setup::writable());
    assert_eq!(mount.fs.adopt().await.len(), 1);
    assert_eq!(published(&mount.sync().await).len(), 1);
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("changed"));
}

#[tokio::test]
async fn published_edits_leave_nothing_in_the_state_directory() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.sync().await;
    mount.fs.disconnect();
    mount.fs.close().await;
    let mount = mount.again(Setup::writable());
    assert_eq!(mount.fs.adopt().await, []);
    let uppers = mount.state_directory().join("uppers");
    let left: Vec<_> =
        std::fs::read_dir(uppers).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.join("upper.db").exists()).collect();
    assert_eq!(left, [] as [std::path::PathBuf; 0]);
}

#[tokio::test]
async fn a_mount_of_one_tag_survives_a_sync_and_is_replaced_by_theirs() {
    let root = Root::Content(repository("team/app"), Version::Tag(Tag::parse("v1").unwrap()));
    let mount = TestMount::with(registry(), Setup { root, ..Setup::writable() });
    mount.put("a.txt", "changed").await;
    assert_eq!(published(&mount.sync().await).len(), 1);
    mount.put("a.txt", "changed again").await;
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "theirs")]);
    let reports = mount.sync_with(&Selection::All, &Options { theirs: true, ..Options::default() }).await;
    assert_eq!(reports[0].outcome, Outcome::Dropped);
    assert_eq!(mount.text("a.txt").await, "theirs");
    assert_eq!(mount.list("").await, ["a.txt"]);
}

#[tokio::test]
async fn part_of_a_tag_can_be_discarded() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    mount.put("team/app/v1/dir/b.txt", "changed").await;
    mount.put("team/app/v1/dir/.DS_Store", "dropping").await;
    mount.mkdir("team/app/v2").await;
    let staged = mount.fs.staged().await;
    assert_eq!((staged[0].added, staged[0].changed, staged[0].removed, staged[0].ignored), (1, 2, 0, 1));
    assert_eq!(mount.fs.discard(&Selection::Path("team/app/v1/dir".to_owned())).await.unwrap(), ["reg.io/team/app:v1"]);
    assert_eq!(mount.text("team/app/v1/dir/b.txt").await, "there");
    assert_eq!(mount.text("team/app/v1/a.txt").await, "changed");
    let differences = mount.fs.differences(&Selection::All).await.unwrap();
    assert_eq!(differences[0].1.len(), 1, "{differences:?}");
    mount.fs.discard(&Selection::All).await.unwrap();
    assert_eq!(mount.list("team/app").await, ["v1"]);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "hello");
    assert_eq!(mount.fs.staged().await, []);
}

#[tokio::test]
async fn a_published_tag_follows_upstream_again_while_processes_inside_stay() {
    let mount = TestMount::with(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::writable() });
    mount.put("team/app/v1/a.txt", "mine").await;
    mount.sync().await;
    let inside = mount.entry("team/app/v1").await.inode;
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "theirs")]);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "theirs");
    let kept = mount.fs.lookup(inside, b"a.txt").await.unwrap().found().unwrap();
    let handle = mount.fs.open(kept.inode, false).await.unwrap().handle;
    assert_eq!(mount.fs.read(handle, 0, 10).await.unwrap(), "mine");
    assert_eq!(mount.fs.open(kept.inode, true).await.unwrap_err().kind, ErrorKind::Gone);
    mount.put("team/app/v1/a.txt", "after theirs").await;
    assert_eq!(published(&mount.sync().await).len(), 1);
    assert_eq!(mount.elsewhere("team/app/v1/a.txt").await.as_deref(), Ok("after theirs"));
    let set = crate::view::SetAttributes { mode: Some(0o600), ..Default::default() };
    assert_eq!(mount.fs.setattr(CALLER, kept.inode, set).await.unwrap_err().kind, ErrorKind::Gone);
}

#[tokio::test]
async fn late_kernel_timestamp_updates_neither_stage_nor_fail() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    let file = mount.entry("team/app/v1/a.txt").await;
    mount.sync().await;
    let set = crate::view::SetAttributes { mtime: Some(file.attributes.time), ..Default::default() };
    mount.fs.write_back_times(CALLER, file.inode, set).await.unwrap();
    assert_eq!(mount.fs.staged().await, []);
    mount.remove("team/app/v1/a.txt").await.unwrap();
    let later = crate::view::SetAttributes { mtime: Some((5, 0)), ..Default::default() };
    mount.fs.write_back_times(CALLER, file.inode, later).await.unwrap();
}

/// A mount with a tag published here and with an entered directory, which has since moved upstream.
async fn moved_behind_its_directory() -> (TestMount, u64) {
    let mount = TestMount::with(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::writable() });
    mount.put("team/app/v1/a.txt", "one").await;
    mount.sync().await;
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "theirs")]);
    (mount, file)
}

/// Staged tags and contents as the next mount finds them.
async fn adopted(mount: TestMount, path: &str) -> (Vec<String>, String) {
    let again = mount.again(Setup::writable());
    let staged = again.fs.adopt().await.into_iter().map(|tag| tag.reference).collect();
    (staged, again.text(path).await)
}

#[tokio::test]
async fn an_edit_during_a_tag_lookup_is_kept_and_adopted() {
    let (mount, file) = moved_behind_its_directory().await;
    mount.registry.forget_requests();
    mount.registry.plan(RequestKind::Resolve, 0, 1, Fault::Stall);
    let asking = {
        let mount = mount.clone();
        tokio::spawn(async move { mount.lookup("team/app/v1").await.map(|_| ()) })
    };
    while mount.registry.count(RequestKind::Resolve) == 0 {
        tokio::task::yield_now().await;
    }
    let open = mount.fs.open(file, true).await.unwrap().handle;
    mount.fs.write(open, 0, b"two", false).await.unwrap();
    mount.fs.fsync(open).await.unwrap();
    mount.registry.mend();
    mount.registry.release();
    asking.await.unwrap().unwrap();
    mount.fs.release(open);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "two", "a tag with edits follows nothing");
    assert_eq!(adopted(mount, "team/app/v1/a.txt").await, (vec!["reg.io/team/app:v1".to_owned()], "two".to_owned()));
}

#[tokio::test]
async fn edits_under_the_name_of_a_moved_tag_return_to_it() {
    let mount = TestMount::writable(registry());
    mount.put("team/app/v1/a.txt", "changed").await;
    let tag_key = |tag: &str| crate::staging::TagKey {
        origin: mount.registry.origin().to_owned(),
        authority: "reg.io".to_owned(),
        repository: "team/app".to_owned(),
        tag: tag.to_owned(),
    };
    let (tag, moved) = (tag_key("v1"), tag_key("v1@7"));
    let mount = mount.again(Setup::writable());
    {
        let uppers = crate::staging::Uppers::open(&mount.state_directory(), None).unwrap();
        uppers.find(&tag).unwrap().unwrap().move_to(&moved).unwrap();
    }
    assert_eq!(adopted(mount, "team/app/v1/a.txt").await, (vec!["reg.io/team/app:v1".to_owned()], "changed".to_owned()));
}

#[tokio::test]
async fn a_tag_that_is_being_published_keeps_its_name_and_takes_edits() {
    let mount = TestMount::with(registry(), Setup { allow_delete: true, ..Setup::writable() });
    mount.put("team/app/v1/a.txt", "one").await;
    mount.registry.plan(RequestKind::PushTag, 0, 1, Fault::Stall);
    let syncing = {
        let mount = mount.clone();
        tokio::spawn(async move { mount.sync().await })
    };
    while mount.registry.count(RequestKind::PushTag) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(mount.rename("team/app/v1", "team/app/v2").await.unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(mount.remove("team/app/v1").await.unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(mount.fs.discard(&Selection::All).await.unwrap_err().kind, ErrorKind::Busy);
    mount.put("team/app/v1/late", "two").await;
    mount.registry.release();
    assert_eq!(published(&syncing.await.unwrap()), ["reg.io/team/app:v1"]);
    let staged = mount.fs.staged().await;
    assert_eq!((staged[0].reference.as_str(), staged[0].added, staged[0].changed), ("reg.io/team/app:v1", 1, 0));
    mount.rename("team/app/v1", "team/app/v2").await.unwrap();
    assert_eq!(mount.text("team/app/v2/late").await, "two");
}

#[tokio::test]
async fn a_tag_without_net_changes_follows_upstream_again() {
    let mount = TestMount::with(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::writable() });
    let file = mount.entry("team/app/v1/a.txt").await.inode;
    let open = mount.fs.open(file, true).await.unwrap().handle;
    assert_eq!(mount.fs.staged().await.len(), 1, "it may be written at any time");
    mount.fs.release(open);
    assert_eq!(mount.make("team/app/v1/dir", crate::artifact::Kind::Directory).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(mount.fs.staged().await, []);
    add_files(&mount.registry, "team/app", "v1", &[("a.txt", "theirs")]);
    assert_eq!(mount.text("team/app/v1/a.txt").await, "theirs");
    mount.put("team/app/v1/a.txt", "mine").await;
    assert_eq!(published(&mount.sync().await), ["reg.io/team/app:v1"]);
}
