//! Every request fails once, in every way: the tag holds the old or the new digest, the edits are intact, the next publish succeeds.

use std::sync::Arc;

use super::fixture::{Edit, PublishFixture, digest_of};
use crate::error::ErrorKind;
use crate::publish::{ArtifactKind, Event, Next, Options};
use crate::registry::{Fault, RequestKind};
use crate::view::{Overlay, SetAttributes};

const KINDS: [RequestKind; 6] = [
    RequestKind::Resolve,
    RequestKind::HasBlob,
    RequestKind::PushBlob,
    RequestKind::PushManifest,
    RequestKind::PushTag,
    RequestKind::LinkReferrer,
];

fn faults() -> [Fault; 5] {
    [
        Fault::Error(ErrorKind::Unreachable),
        Fault::Error(ErrorKind::Denied),
        Fault::Error(ErrorKind::NoSpace),
        Fault::LostAnswer(ErrorKind::TimedOut),
        Fault::Short(3, ErrorKind::Unreachable),
    ]
}

/// An edit of a published tag.
async fn edited(fixture: &PublishFixture) -> Arc<Overlay> {
    let overlay = fixture.empty("v1").await;
    let edit = Edit(fixture, &overlay);
    edit.sample().await;
    fixture.published(&overlay).await;
    edit.file("docs/new.txt", &[7; 3000]).await;
    edit.remove("pipe");
    edit.file("docs/a.txt", b"other").await;
    edit.times().await;
    overlay
}

/// Publishes with one fault; returns whether it occurred.
async fn strike(kind: ArtifactKind, request: RequestKind, skip: u32, fault: Fault) -> bool {
    let fixture = PublishFixture::with(kind, None);
    let overlay = edited(&fixture).await;
    let old = fixture.tagged("v1").unwrap();
    let staged = fixture.staged(&overlay).await;
    fixture.registry.forget_requests();
    fixture.registry.plan(request, skip, 1, fault.clone());
    let result = fixture.publish(&overlay).await;
    let struck = fixture.registry.count(request) > skip as usize;
    fixture.registry.mend();
    let what = format!("{kind:?} {request:?} {skip} {fault:?}: {result:?}");
    let now = fixture.tagged("v1").unwrap();
    match &result {
        Ok((report, _)) => assert_eq!(now, digest_of(report), "{what}"),
        Err(_) => assert!(now == old || matches!(request, RequestKind::PushTag | RequestKind::Resolve), "{what}"),
    }
    // No tag points to something incomplete.
    assert!(now == old || fixture.seen(&now).await == staged, "{what}");
    assert_eq!(fixture.staged(&overlay).await, staged, "{what}");
    // The next process finds what is not published.
    let overlay = if result.is_err() { fixture.again(overlay).await } else { overlay };
    assert_eq!(fixture.staged(&overlay).await, staged, "{what}");
    fixture.publish(&overlay).await.unwrap_or_else(|error| panic!("{what}, and then {error}"));
    let now = fixture.tagged("v1").unwrap();
    assert_eq!(fixture.seen(&now).await, staged, "{what}");
    assert_eq!(overlay.binding().expected, Some(now), "{what}");
    assert_eq!(fixture.publish(&overlay).await.unwrap().0.sent, (0, 0), "{what}");
    struck
}

async fn strike_everywhere(kind: ArtifactKind) {
    let mut struck = 0;
    for request in KINDS {
        for fault in faults() {
            let mut skip = 0;
            while strike(kind, request, skip, fault.clone()).await {
                (skip, struck) = (skip + 1, struck + 1);
                assert!(skip < 40);
            }
        }
    }
    assert!(struck > 40, "{struck}");
}

#[tokio::test]
async fn every_request_of_a_publish_may_fail_once() {
    strike_everywhere(ArtifactKind::Files).await;
}

#[tokio::test]
async fn every_request_of_an_image_s_publish_may_fail_once() {
    strike_everywhere(ArtifactKind::Image).await;
}

#[tokio::test]
async fn a_registry_that_refuses_everything_loses_nothing_and_names_the_tag() {
    for (fault, kind) in [(ErrorKind::Denied, ErrorKind::Denied), (ErrorKind::Unsupported, ErrorKind::Unsupported)] {
        let fixture = PublishFixture::new();
        let overlay = edited(&fixture).await;
        let staged = fixture.staged(&overlay).await;
        fixture.registry.plan(RequestKind::PushBlob, 0, u32::MAX, Fault::Error(fault));
        let error = fixture.publish(&overlay).await.unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(error.message.starts_with("reg.test/app:v1: "), "{error}");
        assert_eq!(fixture.staged(&overlay).await, staged);
        fixture.registry.mend();
        fixture.publish(&overlay).await.unwrap();
    }
}

#[tokio::test]
async fn an_interrupted_publish_resumes_where_it_stopped() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    for number in 0..3_u8 {
        edit.file(&format!("big{number}"), &vec![number; 5 << 20]).await;
    }
    edit.set("", SetAttributes { mode: Some(0o755), uid: Some(7), gid: Some(8), ..SetAttributes::default() }).await;
    edit.times().await;
    let staged = fixture.staged(&overlay).await;
    // The last blob stalls, and its waiter goes away once the others have arrived.
    fixture.registry.plan(RequestKind::PushBlob, 5, 1, Fault::Stall);
    {
        let publish = fixture.publish(&overlay);
        tokio::pin!(publish);
        loop {
            tokio::select! {
                result = &mut publish => panic!("{result:?}"),
                () = tokio::task::yield_now() => {}
            }
            if fixture.registry.count(RequestKind::PushBlob) > 5 && fixture.registry.held("app").len() >= 5 {
                break;
            }
        }
    }
    fixture.registry.mend();
    let overlay = fixture.again(overlay).await;
    assert!(fixture.staged(&overlay).await == staged);
    fixture.registry.forget_requests();
    fixture.events.lock().clear();
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert!(report.reused.1 >= 5, "{report:?}");
    for event in fixture.events.lock().iter() {
        // At most what was being packed at that moment.
        assert!(!matches!(event, Event::Packed { total, .. } if *total > 2 * (5 << 20)), "{event:?}");
    }
    assert!(fixture.seen(&digest_of(&report)).await == staged);
}

#[tokio::test]
async fn a_blob_missing_when_the_manifest_is_put_is_sent_again() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.file("large", &vec![1; 5 << 20]).await;
    edit.file("small", b"1").await;
    edit.set("", SetAttributes { mode: Some(0o755), uid: Some(7), gid: Some(8), ..SetAttributes::default() }).await;
    // An open file stays staged.
    let writer = overlay.open_writer(&fixture.publisher.context, edit.find("large"), false).await.unwrap();
    let (report, next) = fixture.publish(&overlay).await.unwrap();
    assert_eq!(next, Next::Continues { clean: false });
    let (artifact, ..) = fixture.elsewhere(&digest_of(&report)).await;
    let layers = artifact.layers();
    let large = layers.iter().max_by_key(|layer| layer.descriptor.size).unwrap();
    drop(writer);
    fixture.registry.remove_blob("app", &large.descriptor.digest);
    edit.file("small", b"2").await;
    let staged = fixture.staged(&overlay).await;
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert_eq!(fixture.seen(&digest_of(&report)).await, staged);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_names_the_digest() {
    let fixture = PublishFixture::new();
    let overlay = edited(&fixture).await;
    let old = fixture.tagged("v1");
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish_with(&overlay, Options { dry_run: true, ..Options::default() }).await.unwrap();
    let preview = fixture.publisher.preview(&overlay, &Options::default()).await.unwrap();
    assert_eq!(preview, Some(digest_of(&report)));
    assert_eq!((fixture.tagged("v1"), fixture.registry.count(RequestKind::PushBlob), report.sent), (old, 0, (0, 0)));
    assert_eq!(fixture.published(&overlay).await, digest_of(&report));
}

#[tokio::test]
async fn repeatedly_failing_publishes_keep_only_layers_the_next_one_needs() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    fixture.registry.plan(RequestKind::PushTag, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    let blobs = || {
        let packs = std::fs::read_dir(overlay.upper().packs()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut packs: Vec<String> = packs.filter(|name| name.ends_with(".blob") || name.ends_with(".part")).collect();
        packs.sort();
        packs
    };
    edit.file("same", &[1; 5000]).await;
    let mut last = Vec::new();
    for round in 0..4 {
        edit.file("other", &[round; 3000]).await;
        if round.is_multiple_of(2) {
            fixture.registry.plan(RequestKind::PushBlob, 0, 1, Fault::Error(ErrorKind::Unreachable));
        }
        fixture.publish(&overlay).await.unwrap_err();
        let now = blobs();
        assert!(!now.is_empty() && now.len() <= 1 && now != last, "{now:?} after {last:?}");
        last = now;
    }
    // What is needed again was kept.
    let overlay_blobs = last;
    fixture.publish(&overlay).await.unwrap_err();
    assert_eq!(blobs(), overlay_blobs);
    fixture.registry.mend();
    fixture.publish(&overlay).await.unwrap();
    assert!(blobs().is_empty());
}
