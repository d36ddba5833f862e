//! Readers of a published artifact fetch ahead.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::fixture::{Edit, PublishFixture, noise};
use crate::artifact::{Artifact, Kind, NodeId, ViewMode};
use crate::oci::{Digest, Repository};
use crate::publish::Sizes;
use crate::registry::RequestKind;

fn repository() -> Repository {
    Repository::parse("app").unwrap()
}

/// The files of an artifact in the order of a walk, and the layer of each.
fn files(artifact: &Artifact) -> Vec<(NodeId, Digest)> {
    let mut files = Vec::new();
    artifact.tree.walk(&mut |_, node| {
        if artifact.tree.node(node).is_some_and(|node| node.kind == Kind::File) {
            let blob = artifact.tree.content(node).unwrap().blob;
            files.push((node, artifact.sources()[blob as usize].descriptor.digest));
        }
    });
    files
}

#[tokio::test]
async fn files_opened_in_order_fetch_the_next_layers_too_and_nothing_twice() {
    let sizes = Sizes { large: 1 << 20, group: 64 << 10, span: NonZeroUsize::new(16 << 10).unwrap() };
    let mut fixture = PublishFixture::new().sized(sizes);
    let overlay = fixture.empty("v1").await;
    for number in 0..400_u64 {
        Edit(&fixture, &overlay).file(&format!("f{number:03}"), &noise(number, 4096)).await;
    }
    let digest = fixture.published(&overlay).await;
    drop(overlay);
    fixture.move_elsewhere().await;
    let artifacts = &fixture.publisher.context.artifacts;
    let artifact = artifacts.artifact(&repository(), &digest, ViewMode::Merged, false).await.unwrap();
    let files = files(&artifact);
    let layers: BTreeSet<Digest> = files.iter().map(|(_, layer)| *layer).collect();
    assert!(layers.len() > 4, "{}", layers.len());
    fixture.registry.forget_requests();
    for (node, _) in files.iter().take(100) {
        artifacts.read_ahead(&repository(), &artifact, *node, false);
    }
    // Nobody reads. The last file of the window is of a layer in which none was opened.
    let opened: BTreeSet<Digest> = files.iter().take(100).map(|(_, layer)| *layer).collect();
    let further = files.iter().find(|(_, layer)| !opened.contains(layer)).unwrap();
    let content = artifact.tree.content(further.0).unwrap();
    let stream = artifacts.stream(&repository(), &artifact, content.blob, false).await.unwrap();
    let range = content.extents[0].stream..content.extents[0].stream + content.extents[0].length;
    tokio::time::timeout(Duration::from_secs(60), async {
        while !stream.holds(&range) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("a file of another layer is fetched");
    for (node, _) in &files {
        artifacts.read_ahead(&repository(), &artifact, *node, false);
        let content = artifact.tree.content(*node).unwrap();
        let stream = artifacts.stream(&repository(), &artifact, content.blob, false).await.unwrap();
        stream.read(content.extents[0].stream..content.extents[0].stream + content.extents[0].length).await.unwrap();
    }
    let fetched: u64 =
        fixture.registry.requests().iter().filter_map(|request| request.range.as_ref()).map(|range| range.end - range.start).sum();
    let stored: u64 = artifact.sources().iter().map(|source| source.descriptor.size).sum();
    assert!(fetched <= stored, "{fetched} of {stored} bytes");
    let requests = fixture.registry.count(RequestKind::Blob);
    assert!(requests < files.len() / 4, "{requests} requests");
}
