//! `diff` lists exactly the changes that a publish counts and sends.

use std::sync::Arc;

use super::fixture::{Edit, PublishFixture, digest_of};
use crate::publish::{ArtifactKind, Options};
use crate::view::{Difference, Overlay, PathState};

/// Names added, changed, removed.
pub fn counts(differences: &[Difference]) -> (u64, u64, u64) {
    let count = |state| differences.iter().filter(|difference| difference.state == state).count() as u64;
    (count(PathState::Added), count(PathState::Changed), count(PathState::Removed))
}

/// Publishes edits for which `diff` and the publish count this many changes; a reader sees what was staged.
async fn publish(fixture: &PublishFixture, overlay: &Arc<Overlay>, expected: (u64, u64, u64)) {
    Edit(fixture, overlay).times().await;
    let staged = fixture.staged(overlay).await;
    let differences = overlay.differences().await.unwrap();
    assert_eq!(counts(&differences), expected, "{differences:?}");
    let (report, _) = fixture.publish_with(overlay, Options { force: true, ..Options::default() }).await.unwrap();
    assert_eq!(report.changes, expected);
    assert_eq!(fixture.seen(&digest_of(&report)).await, staged);
    assert_eq!(overlay.differences().await.unwrap(), []);
}

#[tokio::test]
async fn diff_and_sync_count_the_same_changes_hard_links_included() {
    for kind in [ArtifactKind::Files, ArtifactKind::Image, ArtifactKind::OciSync] {
        let fixture = PublishFixture::with(kind, None);
        let overlay = fixture.empty("v1").await;
        let edit = Edit(&fixture, &overlay);
        edit.file("m", b"linked").await;
        edit.link("m", "n");
        edit.file("same", b"linked").await;
        publish(&fixture, &overlay, (3, 0, 0)).await;
        // A further name that sorts before all others.
        edit.link("m", "a");
        publish(&fixture, &overlay, (1, 0, 0)).await;
        // The first name is removed.
        edit.remove("a");
        publish(&fixture, &overlay, (0, 0, 1)).await;
        // Two files with the same bytes become one, and two again.
        edit.remove("same");
        edit.link("m", "same");
        publish(&fixture, &overlay, (0, 1, 0)).await;
        edit.remove("n");
        edit.file("n", b"linked").await;
        publish(&fixture, &overlay, (0, 1, 0)).await;
        // Changing a file changes all its names.
        edit.file("m", b"Linked").await;
        publish(&fixture, &overlay, (0, 2, 0)).await;
    }
}
