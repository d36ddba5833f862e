//! Readers of a published artifact fetch ahead.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Edit, PublishFixture, noise};
use crate::artifact::{Artifact, Artifacts, Kind, NodeId, ViewMode};
use crate::oci::{Digest, Repository};
use crate::publish::{ArtifactKind, Sizes};
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

/// The names of the files of an artifact in a fixed order that is not that of a walk.
fn shuffled(artifact: &Artifact) -> Vec<NodeId> {
    let mut files = files(artifact);
    files.sort_by_key(|(node, _)| xxhash_rust::xxh3::xxh3_64(&node.to_le_bytes()));
    files.into_iter().map(|(node, _)| node).collect()
}

/// Whether a file is in the cache.
async fn is_cached(artifacts: &Artifacts, artifact: &Artifact, node: NodeId) -> bool {
    let content = artifact.tree.content(node).unwrap();
    let stream = artifacts.stream(&repository(), artifact, content.blob, false).await.unwrap();
    stream.holds(&(content.extents[0].stream..content.extents[0].stream + content.extents[0].length))
}

#[tokio::test]
async fn files_in_layers_are_fetched_in_the_order_in_which_they_were_opened_before_and_not_much_more() {
    let sizes = Sizes { large: 1 << 20, group: 2 << 20, span: NonZeroUsize::new(16 << 10).unwrap() };
    let mut fixture = PublishFixture::new().sized(sizes);
    let overlay = fixture.empty("v1").await;
    for number in 0..400_u64 {
        Edit(&fixture, &overlay).file(&format!("f{number:03}"), &noise(number, 16 << 10)).await;
    }
    let digest = fixture.published(&overlay).await;
    drop(overlay);
    fixture.move_elsewhere().await;
    // Nothing is left to be fetched while the order is remembered.
    fixture.read_here(&digest).await;
    let open = |fixture: &PublishFixture| Arc::clone(&fixture.publisher.context);
    let context = open(&fixture);
    let artifact = context.artifacts.artifact(&repository(), &digest, ViewMode::Merged, false).await.unwrap();
    let order = shuffled(&artifact);
    order.iter().for_each(|node| context.artifacts.read_ahead(&repository(), &artifact, *node, false));
    drop((context, artifact));
    // The next process knows the order and finds no content.
    fixture.restart().await;
    let context = open(&fixture);
    let artifact = context.artifacts.artifact(&repository(), &digest, ViewMode::Merged, false).await.unwrap();
    fixture.forget_content(&artifact);
    fixture.registry.forget_requests();
    context.artifacts.read_ahead(&repository(), &artifact, order[0], false);
    let is_fetched = async |count: usize| {
        for node in &order[1..=count] {
            while !is_cached(&context.artifacts, &artifact, *node).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_fetched(3)).await.expect("the files that followed are fetched");
    let asked = fixture.registry.requests();
    let fetched: u64 = asked.iter().filter_map(|request| request.range.as_ref()).map(|range| range.end - range.start).sum();
    assert!(fetched < (1 << 20) + (64 << 10), "{fetched} bytes for a window of 1 MiB");
}

#[tokio::test]
async fn the_order_of_an_encrypted_artifact_is_remembered_and_names_no_file_on_the_disk() {
    let mut fixture = PublishFixture::with(ArtifactKind::OciSync, Some("correct horse"));
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).file("secret-name", b"secret").await;
    let digest = fixture.published(&overlay).await;
    drop(overlay);
    fixture.move_elsewhere().await;
    for _ in 0..2 {
        let artifacts = &fixture.publisher.context.artifacts;
        let artifact = artifacts.artifact(&repository(), &digest, ViewMode::Merged, false).await.unwrap();
        artifacts.read_ahead(&repository(), &artifact, artifact.tree.find(b"secret-name").unwrap(), false);
        artifacts.flush().await;
        assert!(artifacts.access_order(&digest).await.unwrap().is_none(), "nobody gets it without the key");
        fixture.restart().await;
    }
    let orders: Vec<_> = std::fs::read_dir(fixture.cache().join("v2/documents/order")).unwrap().map(Result::unwrap).collect();
    assert_eq!(orders.len(), 1);
    let bytes = std::fs::read(orders[0].path()).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
}
