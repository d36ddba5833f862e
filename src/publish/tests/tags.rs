//! Moved tags, other tags, deletion, safety checks.

use super::fixture::{Edit, PublishFixture, digest_of, repository, tag_key};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::publish::{Next, Options, Outcome};
use crate::registry::{Fault, RequestKind, TagDeletion};
use crate::staging::Binding;
use crate::view::Overlay;
use std::sync::Arc;

/// A tag that was published and edited, and then moved by someone else to a tree with other changes.
async fn moved(fixture: &PublishFixture, theirs: impl AsyncFnOnce(&Edit<'_>)) -> (Arc<Overlay>, Digest, Digest) {
    let overlay = fixture.empty("v1").await;
    Edit(fixture, &overlay).sample().await;
    let before = fixture.published(&overlay).await;
    let other = fixture.over("theirs", before).await;
    theirs(&Edit(fixture, &other)).await;
    let (report, _) = fixture.publish_with(&other, Options { as_tag: Some("other".into()), ..Options::default() }).await.unwrap();
    let now = digest_of(&report);
    fixture.registry.tag("app", "v1", now);
    (overlay, before, now)
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

#[tokio::test]
async fn a_moved_tag_is_not_overwritten_and_both_digests_are_named() {
    let fixture = PublishFixture::new();
    let (overlay, before, now) = moved(&fixture, async |edit| edit.file("theirs", b"1").await).await;
    Edit(&fixture, &overlay).file("ours", b"2").await;
    let staged = fixture.staged(&overlay).await;
    fixture.registry.forget_requests();
    let error = fixture.publish(&overlay).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    for text in [before.to_string().as_str(), now.to_string().as_str(), "--force", "--as", "--theirs", "--rebase", "reg.test/app:v1"] {
        assert!(error.message.contains(text), "{text}: {error}");
    }
    assert_eq!(fixture.tagged("v1"), Some(now));
    assert_eq!(fixture.registry.count(RequestKind::PushBlob), 0);
    assert_eq!(fixture.staged(&overlay).await, staged);
}

#[tokio::test]
async fn a_lost_put_is_repeated_while_the_tag_holds_the_old_digest() {
    for (lost, arrives) in [(1, true), (2, true), (3, false)] {
        let fixture = PublishFixture::new();
        let overlay = fixture.empty("v1").await;
        Edit(&fixture, &overlay).sample().await;
        let before = fixture.published(&overlay).await;
        Edit(&fixture, &overlay).file("new", b"1").await;
        fixture.registry.forget_requests();
        fixture.registry.plan(RequestKind::PushTag, 0, lost, Fault::Error(ErrorKind::Unreachable));
        let published = fixture.publish(&overlay).await;
        assert_eq!(fixture.registry.count(RequestKind::PushTag), 3.min(lost as usize + 1));
        match published {
            Ok((report, _)) => assert!(arrives && fixture.tagged("v1") == Some(digest_of(&report))),
            Err(error) => assert!(!arrives && error.kind == ErrorKind::Unreachable && fixture.tagged("v1") == Some(before), "{error}"),
        }
    }
}

#[tokio::test]
async fn an_edit_of_a_manifest_with_a_subject_keeps_the_subject() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let plain = fixture.published(&overlay).await;
    let mut manifest: serde_json::Value = serde_json::from_slice(&fixture.registry.held("app")[&plain]).unwrap();
    let signed = Digest::of(b"what it refers to");
    manifest["subject"] =
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": signed.to_string(), "size": 17});
    let attached = fixture.registry.add_manifest("app", manifest.to_string());
    fixture.registry.tag("app", "v2", attached);
    let overlay = fixture.over("v2", attached).await;
    Edit(&fixture, &overlay).file("new", b"1").await;
    fixture.registry.forget_requests();
    let digest = fixture.published(&overlay).await;
    let held: serde_json::Value = serde_json::from_slice(&fixture.registry.held("app")[&digest]).unwrap();
    assert_eq!(held["subject"], manifest["subject"]);
    let linked: Vec<_> = fixture.registry.requests().into_iter().filter(|request| request.kind == RequestKind::LinkReferrer).collect();
    assert!(linked.iter().any(|request| request.object == signed.to_string()), "{linked:?}");
}

#[tokio::test]
async fn force_overwrites_a_moved_tag() {
    let fixture = PublishFixture::new();
    let (overlay, ..) = moved(&fixture, async |edit| edit.file("theirs", b"1").await).await;
    Edit(&fixture, &overlay).file("ours", b"2").await;
    let staged = fixture.staged(&overlay).await;
    let (report, next) = fixture.publish_with(&overlay, options(|options| options.force = true)).await.unwrap();
    assert_eq!((fixture.tagged("v1"), next), (Some(digest_of(&report)), Next::Continues { clean: true }));
    assert_eq!(fixture.seen(&digest_of(&report)).await, staged);
}

#[tokio::test]
async fn theirs_drops_the_edits_of_a_moved_tag() {
    let fixture = PublishFixture::new();
    let (overlay, _, now) = moved(&fixture, async |edit| edit.file("theirs", b"1").await).await;
    Edit(&fixture, &overlay).file("ours", b"2").await;
    let (report, next) = fixture.publish_with(&overlay, options(|options| options.theirs = true)).await.unwrap();
    assert_eq!((report.outcome, next, fixture.tagged("v1")), (Outcome::Dropped, Next::NewView, Some(now)));
    drop(overlay);
    assert!(fixture.uppers.find(&tag_key("v1")).unwrap().is_none());
    assert_eq!(fixture.publisher.context.artifacts.tag(&repository(), &crate::oci::Tag::parse("v1").unwrap()).await.unwrap(), now);
}

#[tokio::test]
async fn rebase_applies_the_edits_to_the_current_upstream() {
    let fixture = PublishFixture::new();
    let (overlay, _, now) = moved(&fixture, async |edit| {
        edit.file("docs/theirs", b"1").await;
        edit.remove("pipe");
        edit.file("docs/nothing", b"something").await;
    })
    .await;
    let edit = Edit(&fixture, &overlay);
    edit.file("bin/tool", b"ours").await;
    edit.remove("docs/link");
    edit.dir("more");
    edit.file("more/ours", b"2").await;
    let (report, next) = fixture.publish_with(&overlay, options(|options| options.rebase = true)).await.unwrap();
    assert_eq!(next, Next::NewView);
    assert_ne!(digest_of(&report), now);
    let seen = fixture.seen(&digest_of(&report)).await;
    let shown: Vec<(&str, &[u8])> =
        seen.iter().filter(|seen| seen.kind == Kind::File).map(|seen| (seen.path.as_str(), &*seen.bytes)).collect();
    let expected: [(&str, &[u8]); 6] = [
        ("bin/tool", b"ours"),
        ("docs/a.txt", b"hello"),
        ("docs/nothing", b"something"),
        ("docs/same.txt", b"hello"),
        ("docs/theirs", b"1"),
        ("more/ours", b"2"),
    ];
    assert_eq!(shown, expected);
    assert!(!seen.iter().any(|seen| seen.path == "pipe" || seen.path == "docs/link"));
    assert!(seen.iter().any(|seen| seen.path == "docs/same.txt" && seen.first == "docs/a.txt"));
    drop(overlay);
    assert!(fixture.uppers.find(&tag_key("v1")).unwrap().is_none());
}

#[tokio::test]
async fn rebase_names_the_paths_that_both_sides_changed() {
    for (theirs, ours) in [("file", "file"), ("remove", "file"), ("file", "remove"), ("below", "removedir")] {
        let fixture = PublishFixture::new();
        let (overlay, _, now) = moved(&fixture, async |edit| match theirs {
            "file" => edit.file("docs/nothing", b"theirs").await,
            "below" => edit.file("docs/empty/theirs", b"theirs").await,
            _ => edit.remove("docs/nothing"),
        })
        .await;
        let edit = Edit(&fixture, &overlay);
        match ours {
            "file" => edit.file("docs/nothing", b"ours").await,
            "removedir" => edit.remove("docs/empty"),
            _ => edit.remove("docs/nothing"),
        }
        let staged = fixture.staged(&overlay).await;
        let error = fixture.publish_with(&overlay, options(|options| options.rebase = true)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict, "{theirs} {ours}");
        assert!(error.message.contains(if theirs == "below" { "`docs/empty" } else { "`docs/nothing`" }), "{error}");
        assert_eq!((fixture.tagged("v1"), fixture.staged(&overlay).await), (Some(now), staged));
    }
}

#[tokio::test]
async fn the_same_change_on_both_sides_is_no_conflict() {
    let fixture = PublishFixture::new();
    let (overlay, ..) = moved(&fixture, async |edit| edit.file("docs/nothing", b"same").await).await;
    Edit(&fixture, &overlay).file("docs/nothing", b"same").await;
    let (report, next) = fixture.publish_with(&overlay, options(|options| options.rebase = true)).await.unwrap();
    assert_eq!((report.outcome, next), (Outcome::Unchanged, Next::NewView));
}

#[tokio::test]
async fn edits_published_as_another_tag_move_there() {
    let fixture = PublishFixture::new();
    let (overlay, _, now) = moved(&fixture, async |edit| edit.file("theirs", b"1").await).await;
    Edit(&fixture, &overlay).file("ours", b"2").await;
    let staged = fixture.staged(&overlay).await;
    let elsewhere = |tag: &str| options(|options| options.as_tag = Some(tag.to_owned()));
    let error = fixture.publish_with(&overlay, elsewhere("other")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "the tag exists");
    let (report, next) = fixture.publish_with(&overlay, elsewhere("mine")).await.unwrap();
    assert_eq!(next, Next::Moved(crate::oci::Tag::parse("mine").unwrap()));
    assert_eq!((fixture.tagged("v1"), fixture.tagged("mine")), (Some(now), Some(digest_of(&report))));
    assert_eq!(overlay.tag_key(), tag_key("mine"));
    assert_eq!(fixture.seen(&digest_of(&report)).await, staged);
    assert_eq!(fixture.publish(&overlay).await.unwrap().0.outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn without_edits_another_tag_is_a_retag() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let digest = fixture.published(&overlay).await;
    fixture.registry.forget_requests();
    let (report, next) = fixture.publish_with(&overlay, options(|options| options.as_tag = Some("v2".into()))).await.unwrap();
    assert_eq!((digest_of(&report), fixture.tagged("v2")), (digest, Some(digest)));
    assert_eq!((next, fixture.registry.count(RequestKind::HasBlob)), (Next::Continues { clean: true }, 0));
}

#[tokio::test]
async fn a_renamed_tag_is_put_without_a_blob_and_deleted_only_if_allowed() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let digest = fixture.published(&overlay).await;
    let moved = fixture.begin("v2", Binding { under: Some(digest), expected: None, deleted: false }).await;
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish(&moved).await.unwrap();
    assert_eq!((digest_of(&report), fixture.registry.count(RequestKind::PushBlob)), (digest, 0));
    assert_eq!(fixture.tagged("v2"), Some(digest));
}

#[tokio::test]
async fn only_the_deleted_tag_goes_and_only_if_allowed() {
    for deletion in [TagDeletion::Direct, TagDeletion::ByThrowAway] {
        let fixture = PublishFixture::new();
        fixture.registry.set_tag_deletion(deletion);
        let overlay = fixture.empty("v1").await;
        Edit(&fixture, &overlay).sample().await;
        let digest = fixture.published(&overlay).await;
        fixture.registry.tag("app", "sibling", digest);
        drop(overlay);
        let binding = Binding { under: Some(digest), expected: Some(digest), deleted: true };
        let delete = async || {
            if let Some(upper) = fixture.uppers.find(&tag_key("v1")).unwrap() {
                upper.remove().unwrap();
            }
            fixture.begin("v1", binding).await
        };
        let overlay = delete().await;
        let (report, next) = fixture.publish(&overlay).await.unwrap();
        assert_eq!((&report.outcome, next, fixture.tagged("v1")), (&Outcome::Unchanged, Next::NewView, Some(digest)));
        assert!(report.notes.iter().any(|note| note.contains("--allow-delete")), "{report:?}");
        drop(overlay);
        let overlay = delete().await;
        let allowed = options(|options| options.allow_delete = true);
        let (report, next) = fixture.publish_with(&overlay, allowed).await.unwrap();
        assert_eq!((report.outcome, next), (Outcome::Deleted { before: digest.to_string() }, Next::NewView));
        assert_eq!((fixture.tagged("v1"), fixture.tagged("sibling")), (None, Some(digest)));
        drop(overlay);
        assert!(fixture.uppers.find(&tag_key("v1")).unwrap().is_none());
    }
}

/// Publishes while the answer to a request is lost and the tag cannot be queried afterwards. The next process tries again.
async fn answer_is_lost(fixture: &PublishFixture, overlay: Arc<Overlay>, request: RequestKind, options: &Options) -> Arc<Overlay> {
    fixture.registry.forget_requests();
    fixture.registry.plan(request, 0, 1, Fault::LostAnswer(ErrorKind::TimedOut));
    // Queries made before: to compare, right before a put, and what another tag holds. None of these fails.
    let before = if request == RequestKind::DeleteTag { 1 } else { 2 + u32::from(options.as_tag.is_some()) };
    fixture.registry.plan(RequestKind::Resolve, before, 1, Fault::Error(ErrorKind::Unreachable));
    let error = fixture.publish_with(&overlay, options.clone()).await.unwrap_err();
    assert_eq!((error.kind, fixture.registry.count(request)), (ErrorKind::TimedOut, 1), "{error}");
    fixture.registry.mend();
    // Without edits there is nothing for the next process to find.
    if overlay.is_edited() { fixture.again(overlay).await } else { overlay }
}

#[tokio::test]
async fn a_retag_with_a_lost_answer_succeeds_without_conflict() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let old = fixture.published(&overlay).await;
    Edit(&fixture, &overlay).file("more", b"1").await;
    let digest = fixture.published(&overlay).await;
    fixture.registry.tag("app", "replaced", old);
    for (tag, expected) in [("new", None), ("replaced", Some(old))] {
        let retag = fixture.begin(tag, Binding { under: Some(digest), expected, deleted: false }).await;
        let retag = answer_is_lost(&fixture, retag, RequestKind::PushTag, &Options::default()).await;
        assert_eq!(fixture.tagged(tag), Some(digest));
        let (report, next) = fixture.publish(&retag).await.unwrap();
        assert_eq!((digest_of(&report), next, retag.is_edited()), (digest, Next::Continues { clean: true }, false), "{tag}");
        assert_eq!(fixture.publish(&retag).await.unwrap().0.outcome, Outcome::Unchanged);
    }
    let elsewhere = options(|options| options.as_tag = Some("copy".into()));
    let overlay = answer_is_lost(&fixture, overlay, RequestKind::PushTag, &elsewhere).await;
    let (report, _) = fixture.publish_with(&overlay, elsewhere).await.unwrap();
    assert_eq!((digest_of(&report), fixture.tagged("copy")), (digest, Some(digest)));
}

#[tokio::test]
async fn a_tag_that_already_holds_the_staged_tree_is_not_a_conflict() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let digest = fixture.published(&overlay).await;
    let copy = fixture.empty("v2").await;
    Edit(&fixture, &copy).sample().await;
    fixture.registry.tag("app", "v2", digest);
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish(&copy).await.unwrap();
    assert_eq!((digest_of(&report), fixture.registry.count(RequestKind::PushTag)), (digest, 0));
    let other = fixture.empty("v3").await;
    Edit(&fixture, &other).file("other", b"1").await;
    fixture.registry.tag("app", "v3", digest);
    assert_eq!(fixture.publish(&other).await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_deletion_with_a_lost_answer_succeeds_without_conflict() {
    for deletion in [TagDeletion::Direct, TagDeletion::ByThrowAway] {
        let fixture = PublishFixture::new();
        fixture.registry.set_tag_deletion(deletion);
        let overlay = fixture.empty("v1").await;
        Edit(&fixture, &overlay).sample().await;
        let digest = fixture.published(&overlay).await;
        overlay.upper().remove().unwrap();
        drop(overlay);
        let allowed = options(|options| options.allow_delete = true);
        let overlay = fixture.begin("v1", Binding { under: Some(digest), expected: Some(digest), deleted: true }).await;
        let overlay = answer_is_lost(&fixture, overlay, RequestKind::DeleteTag, &allowed).await;
        assert_eq!(fixture.tagged("v1"), None);
        let (report, next) = fixture.publish_with(&overlay, allowed).await.unwrap();
        assert_eq!((report.outcome, next), (Outcome::Deleted { before: digest.to_string() }, Next::NewView));
    }
}

#[tokio::test]
async fn a_moved_tag_is_not_deleted() {
    let fixture = PublishFixture::new();
    let (overlay, before, now) = moved(&fixture, async |edit| edit.file("theirs", b"1").await).await;
    overlay.upper().remove().unwrap();
    drop(overlay);
    let overlay = fixture.begin("v1", Binding { under: Some(before), expected: Some(before), deleted: true }).await;
    let allowed = options(|options| options.allow_delete = true);
    let error = fixture.publish_with(&overlay, allowed).await.unwrap_err();
    assert_eq!((error.kind, fixture.tagged("v1")), (ErrorKind::Conflict, Some(now)));
}

#[tokio::test]
async fn the_safety_check_skips_a_publish_that_would_lose_most_of_a_tag() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    for number in 0..5 {
        edit.file(&format!("f{number}"), b"x").await;
    }
    let digest = fixture.published(&overlay).await;
    for number in 0..3 {
        edit.remove(&format!("f{number}"));
    }
    let error = fixture.publish(&overlay).await.unwrap_err();
    assert_eq!((error.kind, fixture.tagged("v1")), (ErrorKind::Skipped, Some(digest)));
    assert!(error.message.contains("--force"), "{error}");
    for number in 3..5 {
        edit.remove(&format!("f{number}"));
    }
    let error = fixture.publish(&overlay).await.unwrap_err();
    assert!(error.kind == ErrorKind::Skipped && error.message.contains("emptied"), "{error}");
    let (report, _) = fixture.publish_with(&overlay, options(|options| options.force = true)).await.unwrap();
    assert_eq!(fixture.seen(&digest_of(&report)).await.iter().filter(|seen| !seen.path.is_empty()).count(), 0);
    assert_eq!(fixture.publish(&fixture.empty("new").await).await.unwrap_err().kind, ErrorKind::Skipped);
}

#[tokio::test]
async fn ignored_files_stay_local_unless_the_tag_already_has_them() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.file(".ocifsignore", b"*.log\n/build/\n").await;
    for path in ["a.txt", "b.swp", ".DS_Store", "x.log"] {
        edit.file(path, b"1").await;
    }
    edit.dir("build");
    edit.file("build/out", b"1").await;
    edit.make("socket", Kind::Socket, "");
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    let names = async |digest: &Digest| -> Vec<String> {
        fixture.seen(digest).await.into_iter().map(|seen| seen.path).filter(|path| !path.is_empty()).collect()
    };
    assert_eq!(report.ignored, 5, "the socket too");
    assert!(report.notes.iter().any(|note| note.contains("sockets")), "{report:?}");
    assert_eq!(names(&digest_of(&report)).await, [".ocifsignore", "a.txt"]);
    assert_eq!(fixture.publish(&overlay).await.unwrap().0.outcome, Outcome::Unchanged);
    let (report, _) = fixture.publish_with(&overlay, options(|options| options.no_ignore = true)).await.unwrap();
    assert_eq!(names(&digest_of(&report)).await.len(), 7);
    edit.file("b.swp", b"2").await;
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert_eq!(report.changes, (0, 1, 0));
    assert_eq!(names(&digest_of(&report)).await.len(), 7);
}

#[tokio::test]
async fn container_runtime_leftovers_are_published_only_if_copied_with_the_whole_tree() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.dir("etc");
    edit.file("etc/hosts", b"").await;
    edit.file(".dockerenv", b"").await;
    let digest = fixture.published(&overlay).await;
    let names: Vec<String> = fixture.seen(&digest).await.into_iter().map(|seen| seen.path).collect();
    assert_eq!(names, ["", "etc", "etc/hosts"]);
    edit.dir("run");
    edit.file("a", b"1").await;
    let digest = fixture.published(&overlay).await;
    for path in ["etc/hostname", "etc/resolv.conf", "run/.containerenv"] {
        edit.file(path, b"").await;
    }
    edit.make("etc/mtab", Kind::Symlink, "/proc/mounts");
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert_eq!((report.outcome, report.ignored, fixture.tagged("v1")), (Outcome::Unchanged, 5, Some(digest)));
    edit.file("etc/resolv.conf", b"nameserver ::1\n").await;
    let digest = fixture.published(&overlay).await;
    let names: Vec<String> = fixture.seen(&digest).await.into_iter().map(|seen| seen.path).collect();
    assert_eq!(names, ["", "a", "etc", "etc/hosts", "etc/resolv.conf", "run"]);
}

#[tokio::test]
async fn files_possibly_damaged_by_a_power_cut_are_published_only_with_force() {
    let fixture = PublishFixture::new();
    for force in [false, true] {
        let tag = if force { "forced" } else { "mended" };
        let overlay = fixture.empty(tag).await;
        Edit(&fixture, &overlay).file("whole", b"all of it").await;
        Edit(&fixture, &overlay).file("torn", b"lost bytes").await;
        let overlay = fixture.after_losing(overlay, b"lost bytes").await;
        assert_eq!(overlay.suspects().unwrap(), [b"torn".to_vec()]);
        let error = fixture.publish(&overlay).await.unwrap_err();
        assert_eq!((error.kind, fixture.tagged(tag)), (ErrorKind::Skipped, None));
        assert!(error.message.contains("`torn`") && !error.message.contains("whole") && error.message.contains("--force"), "{error}");
        if !force {
            Edit(&fixture, &overlay).file("torn", b"written again").await;
        }
        fixture.publish_with(&overlay, Options { force, ..Options::default() }).await.unwrap();
        let seen = fixture.seen(&fixture.tagged(tag).unwrap()).await;
        assert_eq!(seen.iter().find(|seen| seen.path == "torn").unwrap().bytes, if force { &b""[..] } else { b"written again" });
        assert!(overlay.suspects().unwrap().is_empty(), "what is published is not asked for again");
    }
}
