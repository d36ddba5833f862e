//! Artifacts as used by a publish: tags, known trees, layers and their entries.

use super::attached_index::{publish, tag_layers};
use super::*;
use crate::content::tests::attached_index::file;
use crate::layer::{FileKind, Metadata, PackEntry, Packing};

const DEFAULTS: IdentityDefaults = IdentityDefaults { owner: (1000, 1000) };

#[tokio::test(flavor = "multi_thread")]
async fn published_artifacts_are_shown_at_once_without_a_request() {
    let (registry, cache) = memory();
    let layer = publish(&registry, Packing::GzipTar, ".", &[(file("a", b"1"), b"1")]);
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let of_r = repository("r");
    registry.tag("r", "old", tag_layers(&registry, "v0", media_type::OCI_EMPTY, &[&layer.descriptor], json!({})));
    assert_eq!(artifacts.tags(&of_r).await.unwrap().names.as_ref(), ["old", "v0"]);
    assert_eq!(artifacts.tag(&of_r, &tag("v1")).await.err().unwrap().kind, ErrorKind::NotFound);

    let digest = tag_layers(&registry, "v1", media_type::OCI_EMPTY, &[&layer.descriptor, &layer.index], json!({}));
    let raw = Pull::manifest(&*registry, &of_r, &crate::oci::Version::Digest(digest)).await.unwrap();
    registry.forget_requests();
    artifacts.adopt(&layer.packed.index, Some(&layer.index.digest)).await;
    artifacts.published(&of_r, &tag("v1"), Arc::new(raw));
    artifacts.deleted(&of_r, &tag("old"));
    assert_eq!(shown(&artifacts, &of_r, "v1").await.unwrap().manifest.digest, digest);
    assert_eq!(artifacts.tags(&of_r).await.unwrap().names.as_ref(), ["v0", "v1"]);
    assert_eq!(artifacts.tag(&of_r, &tag("old")).await.err().unwrap().kind, ErrorKind::NotFound);
    assert_eq!(registry.requests(), []);

    // Also offline, and in the next mount.
    artifacts.flush().await;
    let next = super::artifacts(registry, cache.path(), true, None);
    assert_eq!(next.tags(&of_r).await.unwrap().names.as_ref(), ["v0", "v1"]);
    assert!(find(&shown(&next, &of_r, "v1").await.unwrap(), "a").is_some());
    assert_eq!(next.tag(&of_r, &tag("old")).await.err().unwrap().kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_tree_is_recognised_whatever_its_layers_are() {
    let (registry, cache) = memory();
    let link = PackEntry { kind: FileKind::HardLink, link: b"a".to_vec(), size: 0, ..file("b", b"") };
    let entries: [(PackEntry, &[u8]); 2] = [(file("a", b"1"), b"1"), (link, b"")];
    let one = publish(&registry, Packing::GzipTar, ".", &entries);
    let other = publish(&registry, Packing::Tar, ".", &entries);
    let different = publish(&registry, Packing::GzipTar, ".", &[(file("a", b"1"), b"1"), (file("b", b"1"), b"1")]);
    let digest = tag_layers(&registry, "v1", media_type::OCI_EMPTY, &[&one.descriptor, &one.index], json!({}));
    tag_layers(&registry, "v2", media_type::OCI_EMPTY, &[&other.descriptor, &other.index], json!({}));
    tag_layers(&registry, "v3", media_type::OCI_EMPTY, &[&different.descriptor, &different.index], json!({}));
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let of_r = repository("r");
    let wanted = shown(&artifacts, &of_r, "v2").await.unwrap().tree.identity(&DEFAULTS);
    let unlike = shown(&artifacts, &of_r, "v3").await.unwrap().tree.identity(&DEFAULTS);
    registry.untag("r", "v2");
    artifacts.deleted(&of_r, &tag("v2"));
    assert_eq!(artifacts.find_tree(&of_r, &wanted, &DEFAULTS).await.unwrap().map(|found| found.digest), None);
    shown(&artifacts, &of_r, "v1").await.unwrap();
    registry.forget_requests();
    let found = artifacts.find_tree(&of_r, &wanted, &DEFAULTS).await.unwrap();
    assert_eq!(found.map(|found| found.digest), Some(digest));
    assert_eq!((unlike.names, unlike.bytes), (wanted.names, wanted.bytes));
    assert_ne!(unlike.digest, wanted.digest);
    assert_eq!(artifacts.known_artifacts(&of_r).await.len(), 2);
    assert_eq!(artifacts.find_tree(&repository("other"), &wanted, &DEFAULTS).await.unwrap().map(|found| found.digest), None);
    assert_eq!(registry.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_unset_attributes_is_recognised_by_the_mount_s_defaults() {
    let (registry, cache) = memory();
    registry.add_artifact("r", "v1", (media_type::OCI_EMPTY, b"{}"), &[(PLAIN, b"one", &[(TITLE, "a")])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let of_r = repository("r");
    let tree = shown(&artifacts, &of_r, "v1").await.unwrap().tree.clone();
    let mut copy = TreeIdentity::new(&DEFAULTS);
    let metadata = Metadata { mode: Some(0o755), owner: Some(DEFAULTS.owner), mtime: Some(UNDATED), device: (0, 0) };
    let root = IdentityEntry { path: b"", node: 0, kind: Kind::Directory, metadata, size: 0, links: 2, target: b"", sha256: None };
    let sha256 = Digest::of(b"one").as_bytes().try_into().ok();
    copy.add::<&[u8], &[u8]>(&root, &[]);
    let metadata = Metadata { mode: Some(0o644), ..metadata };
    let file = IdentityEntry { path: b"a", node: 9, kind: Kind::File, metadata, size: 3, links: 1, sha256, ..root };
    copy.add::<&[u8], &[u8]>(&file, &[]);
    let copy = copy.finish();
    assert_eq!(copy.digest, tree.identity(&DEFAULTS).digest);
    assert!(artifacts.find_tree(&of_r, &copy, &DEFAULTS).await.unwrap().is_some());
    let others = IdentityDefaults { owner: (1000, 1001) };
    assert!(artifacts.find_tree(&of_r, &copy, &others).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_report_which_of_their_entries_are_shown_unchanged() {
    let (registry, cache) = memory();
    let files = |names: &[&'static str]| names.iter().map(|name| (file(name, b"1"), &b"1"[..])).collect::<Vec<_>>();
    let below = publish(&registry, Packing::GzipTar, "d", &files(&["d/kept", "d/replaced"]));
    let above = publish(&registry, Packing::GzipTar, ".", &files(&["d/replaced", "e"]));
    let raw = publish(&registry, Packing::Raw, "raw", &files(&["raw"]));
    let layers = [&below.descriptor, &below.index, &above.descriptor, &above.index, &raw.descriptor, &raw.index];
    tag_layers(&registry, "v1", media_type::OCI_EMPTY, &layers, json!({}));
    let artifacts = artifacts(registry, cache.path(), false, None);
    let of_r = repository("r");
    let artifact = shown(&artifacts, &of_r, "v1").await.unwrap();
    let known: Vec<_> = artifact.layers().iter().map(|layer| (layer.blob, layer.unpacked, layer.index.is_some())).collect();
    let none = (None, false, false);
    assert_eq!(known, [(Some(0), true, true), none, (Some(1), true, true), none, (Some(2), false, true), none]);
    let entries = async |number: usize| {
        let index = artifacts.layer_index(&of_r, &artifact, number, false).await.unwrap()?;
        Some(artifact.shown_entries(number, &index))
    };
    assert_eq!(entries(0).await, Some(vec![find(&artifact, "d/kept"), None]));
    assert_eq!(entries(2).await, Some(vec![find(&artifact, "d/replaced"), find(&artifact, "e")]));
    assert_eq!(entries(4).await, Some(vec![find(&artifact, "raw")]));
    assert_eq!((entries(1).await, entries(99).await), (None, None));
    assert_eq!(artifact.entry_path(0, b"d/kept"), Some(b"d/kept".to_vec()));
    assert_eq!(artifact.file_of(4), find(&artifact, "raw").map(|node| (b"raw".to_vec(), node)));
}
