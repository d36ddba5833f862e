//! How a view gets the edits of its tag.

use std::sync::Arc;

use super::{TagFixture, repository, tag_key};
use crate::oci::{Tag, media_type};
use crate::registry::{Fault, RequestKind};
use crate::staging::Binding;
use crate::view::{Begun, Key, Origin, Shown, View};

fn tagged(fixture: &TagFixture) -> (View, Binding) {
    let config = (media_type::OCI_CONFIG, &b"{}"[..]);
    let layer = ("text/plain", &b"upstream"[..], &[("org.opencontainers.image.title", "file")][..]);
    let digest = fixture.registry.add_artifact("app", "v1", config, &[layer], &[]);
    let tag = Tag::parse("v1").unwrap();
    let view = View::new(7, Key::Tag(repository(), tag.clone()), Origin::Tag(repository(), tag));
    (view, Binding { under: Some(digest), expected: Some(digest), deleted: false })
}

#[tokio::test]
async fn edits_are_shown_even_if_nobody_waited_for_the_first_attempt() {
    let fixture = TagFixture::new();
    let (view, binding) = tagged(&fixture);
    view.give(Arc::new(fixture.uppers.create(&tag_key("v1"), binding, None).unwrap()));
    fixture.registry.plan(RequestKind::Manifest, 0, 1, Fault::Stall);
    // A request that is interrupted while the registry hangs.
    tokio::select! {
        biased;
        _ = view.enter(&fixture.context) => panic!("the registry answered"),
        () = async { while fixture.registry.count(RequestKind::Manifest) == 0 { tokio::task::yield_now().await } } => {}
    }
    assert!(view.given().is_some());
    fixture.registry.release();
    assert!(matches!(view.enter(&fixture.context).await.unwrap(), Shown::Tree(_)));
    assert!(view.overlay().is_some() && view.given().is_none(), "the tag is shown with its edits");
}

#[tokio::test]
async fn edits_being_started_are_awaited() {
    let fixture = TagFixture::new();
    let (view, _) = tagged(&fixture);
    assert!(view.begun().await.is_none());
    let (edits, begun) = tokio::join!(view.edit(&fixture.context), async {
        // The tag is entered by now, and its upper is being created.
        while view.shown().is_none() {
            tokio::task::yield_now().await;
        }
        view.begun().await.map(Arc::clone)
    });
    assert!(matches!(edits.unwrap(), Begun::Edits(edits) if begun.is_some_and(|begun| Arc::ptr_eq(&begun, &edits))));
}
