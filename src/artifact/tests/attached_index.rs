//! Artifacts whose layers have attached indexes.

use super::*;
use crate::artifact::attached_index;
use crate::content::tests::attached_index::{file, pack_entries};
use crate::layer::tests::encode_attached;
use crate::layer::{FileKind, Metadata, PackEntry, Packed, Packing, Table};

/// A published layer: its blob and its index in the registry.
pub(super) struct Published {
    pub packed: Packed,
    pub descriptor: Descriptor,
    pub index: Descriptor,
}

/// Packs a layer and pushes it to the registry.
pub(super) fn publish(registry: &Memory, packing: Packing, title: &str, entries: &[(PackEntry, &[u8])]) -> Published {
    let (packed, blob) = pack_entries(packing, entries);
    let mut descriptor = registry.add_blob("r", if packing == Packing::Raw { PLAIN } else { GZIP }, blob);
    descriptor.annotations.insert(TITLE.to_owned(), title.to_owned());
    if packing != Packing::Raw {
        descriptor.annotations.insert(UNPACK.0.to_owned(), UNPACK.1.to_owned());
    }
    let bytes = encode_attached(&packed.index).unwrap();
    let stored = registry.add_blob("r", attached_index::INDEX_MEDIA_TYPE, bytes);
    let index = attached_index::index_layer(&descriptor.digest, stored.digest, stored.size);
    Published { packed, descriptor, index }
}

pub(super) fn json_of(descriptor: &Descriptor) -> serde_json::Value {
    json!({
        "mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size,
        "annotations": descriptor.annotations,
    })
}

/// Tags a manifest with these layers.
pub(super) fn tag_layers(registry: &Memory, name: &str, config: &str, layers: &[&Descriptor], annotations: serde_json::Value) -> Digest {
    let config = registry.add_blob("r", config, &b"{}"[..]);
    let layers: Vec<_> = layers.iter().map(|layer| json_of(layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": json_of(&config), "layers": layers, "annotations": annotations,
    });
    let digest = registry.add_manifest("r", manifest.to_string());
    registry.tag("r", name, digest);
    digest
}

fn directory(path: &str) -> PackEntry {
    PackEntry { kind: FileKind::Directory, ..with_mode(file(path, b""), 0o750) }
}

fn with_mode(mut entry: PackEntry, mode: u32) -> PackEntry {
    entry.metadata.mode = Some(mode);
    entry
}

fn with_xattr(mut entry: PackEntry) -> PackEntry {
    entry.xattrs = vec![(b"user.oci.fake".to_vec(), b"no".to_vec()), (b"user.x".to_vec(), b"y".to_vec())];
    entry
}

/// Requested blobs, by digest.
fn asked(registry: &Memory) -> Vec<String> {
    registry.requests().into_iter().filter(|request| request.kind == RequestKind::Blob).map(|request| request.object).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn titled_layers_with_indexes_are_listed_without_fetching_one_of_them() {
    let (registry, cache) = memory();
    let small = publish(&registry, Packing::GzipTar, ".", &[(directory("sub"), b""), (with_xattr(file("sub/x", b"small")), b"small")]);
    let raw = publish(&registry, Packing::Raw, "sub/big.bin", &[(with_xattr(file("sub/big.bin", b"large")), b"large")]);
    let layers = [&small.descriptor, &small.index, &raw.descriptor, &raw.index];
    let digest = tag_layers(&registry, "v1", media_type::OCI_EMPTY, &layers, json!({}));
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let mut expected = vec![small.index.digest.to_string(), raw.index.digest.to_string()];
    let mut found = asked(&registry);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);

    // The indexes are not shown, but the attributes they hold for a raw layer are.
    let names: Vec<String> = contents(&artifacts, &repository("r"), &artifact).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!((names, artifact.dialect), (vec!["sub/big.bin".to_owned(), "sub/x".to_owned()], Dialect::Files));
    for path in ["sub/x", "sub/big.bin"] {
        let number = find(&artifact, path).unwrap();
        let node = artifact.tree.node(number).unwrap();
        assert_eq!(
            node.metadata,
            Metadata { mode: Some(0o640), owner: Some((1, 2)), mtime: Some((1_700_000_000, 5)), device: (0, 0) },
            "{path}"
        );
        assert!(artifact.tree.xattrs(number).contains(&(b"user.x", b"y")), "{path}");
        assert!(artifact.tree.xattrs(number).iter().all(|(name, _)| *name != b"user.oci.fake"), "{path}");
    }
    let layers = artifacts.artifact(&repository("r"), &digest, ViewMode::Layers, false).await.unwrap();
    assert_eq!(layers.tree.children(0, 0).count(), 2);
    let blobs = artifacts.artifact(&repository("r"), &digest, ViewMode::Blobs, false).await.unwrap();
    assert_eq!(blobs.tree.children(0, 0).count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_raw_layers_with_the_same_bytes_keep_their_own_attributes() {
    let (registry, cache) = memory();
    let one = publish(&registry, Packing::Raw, "one", &[(file("one", b"same"), b"same")]);
    let two = publish(&registry, Packing::Raw, "two", &[(with_mode(file("two", b"same"), 0o400), b"same")]);
    assert_eq!(one.descriptor.digest, two.descriptor.digest);
    let layers = [&one.descriptor, &one.index, &two.descriptor, &two.index];
    tag_layers(&registry, "v1", media_type::OCI_EMPTY, &layers, json!({}));
    let artifacts = artifacts(registry, cache.path(), false, None);
    // Whichever was packed here last.
    artifacts.adopt(&two.packed.index, Some(&two.index.digest)).await;
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let mode = |path: &str| artifact.tree.node(find(&artifact, path).unwrap()).unwrap().metadata.mode;
    assert_eq!((mode("one"), mode("two")), (Some(0o640), Some(0o400)));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_images_and_of_oci_sync_name_their_indexes() {
    let (registry, cache) = memory();
    let mut one = publish(&registry, Packing::GzipTar, ".", &[(file("a", b"1"), b"1")]);
    one.descriptor.annotations.clear();
    let plain = one.descriptor.clone();
    attached_index::bind(&mut one.descriptor, one.index.digest, one.index.size);
    let sync = json!({"io.oci-sync.version": "1"});
    let sealed = json!({"io.oci-sync.version": "1", "io.oci-sync.encrypted": "true"});
    for (name, config, layer, annotations, expected) in [
        ("image", media_type::OCI_CONFIG, &one.descriptor, json!({}), Some(&one.index)),
        ("plain", media_type::OCI_CONFIG, &plain, json!({}), None),
        ("sync", media_type::OCI_CONFIG, &one.descriptor, sync, Some(&one.index)),
        ("sealed", media_type::OCI_CONFIG, &one.descriptor, sealed, None),
    ] {
        tag_layers(&registry, name, config, &[layer], annotations);
        std::fs::remove_dir_all(cache.path()).unwrap();
        let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, (name == "sealed").then_some(SECRET));
        registry.forget_requests();
        let shown = shown(&artifacts, &repository("r"), name).await;
        let wanted = expected.map_or(plain.digest, |index| index.digest).to_string();
        assert_eq!(asked(&registry), [wanted], "{name}");
        assert_eq!(shown.is_ok(), name != "sealed", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_index_request_is_an_outage_and_leaves_no_wrong_tree() {
    let (registry, cache) = memory();
    let raw = publish(&registry, Packing::Raw, "a", &[(file("a", b"data"), b"data")]);
    tag_layers(&registry, "v1", media_type::OCI_EMPTY, &[&raw.descriptor, &raw.index], json!({}));
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    registry.plan(RequestKind::Blob, 0, 1, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(shown(&artifacts, &repository("r"), "v1").await.err().unwrap().kind, ErrorKind::Unreachable);
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    assert_eq!(artifact.tree.node(1).unwrap().metadata.mode, Some(0o640));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_layer_with_a_missing_index_is_shown_as_if_it_had_none() {
    let (registry, cache) = memory();
    let raw = publish(&registry, Packing::Raw, "a", &[(file("a", b"data"), b"data")]);
    tag_layers(&registry, "v1", media_type::OCI_EMPTY, &[&raw.descriptor, &raw.index], json!({}));
    let blob = registry.held("r")[&raw.index.digest].clone();
    registry.remove_blob("r", &raw.index.digest);
    let first = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    assert_eq!(shown(&first, &repository("r"), "v1").await.unwrap().tree.node(1).unwrap().metadata.mode, None);
    // This is not remembered.
    registry.add_blob_as("r", raw.index.digest, blob);
    let second = artifacts(registry, cache.path(), false, None);
    assert_eq!(shown(&second, &repository("r"), "v1").await.unwrap().tree.node(1).unwrap().metadata.mode, Some(0o640));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_of_a_lying_index_is_rebuilt_once_a_span_does_not_match() {
    let (registry, cache) = memory();
    let (truth, lie) = (vec![1; 5000], vec![2; 5000]);
    let mut layer = publish(&registry, Packing::Tar, ".", &[(file("a", &truth), &truth)]);
    let (other, _) = pack_entries(Packing::Tar, &[(file("z", &lie), &lie)]);
    let bytes = encode_attached(&other.index.of_blob(layer.descriptor.digest).unwrap()).unwrap();
    let stored = registry.add_blob("r", attached_index::INDEX_MEDIA_TYPE, bytes);
    layer.index = attached_index::index_layer(&layer.descriptor.digest, stored.digest, stored.size);
    tag_layers(&registry, "v1", media_type::OCI_EMPTY, &[&layer.descriptor, &layer.index], json!({}));
    let first = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let before = shown(&first, &repository("r"), "v1").await.unwrap();
    let wrong = find(&before, "z").unwrap();
    assert_eq!(bytes_of(&first, &repository("r"), &before, wrong).await.unwrap_err().kind, ErrorKind::Integrity);
    // Again, here and in the next mount.
    for artifacts in [first, artifacts(registry, cache.path(), false, None)] {
        let after = shown(&artifacts, &repository("r"), "v1").await.unwrap();
        assert_eq!(find(&after, "z"), None);
        assert_eq!(bytes_of(&artifacts, &repository("r"), &after, find(&after, "a").unwrap()).await.unwrap(), truth);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_referred_index_is_used_on_request_only_and_its_tree_is_its_own() {
    let (registry, _) = memory();
    let truth = [(file("a", b"data"), &b"data"[..])];
    let layer = publish(&registry, Packing::Tar, ".", &truth);
    let digest = tag_layers(&registry, "v1", media_type::OCI_EMPTY, &[&layer.descriptor], json!({}));
    let (other, _) = pack_entries(Packing::Tar, &[(file("z", b"data"), b"data")]);
    let lie = encode_attached(&other.index.of_blob(layer.descriptor.digest).unwrap()).unwrap();
    let stored = registry.add_blob("r", attached_index::INDEX_MEDIA_TYPE, lie);
    let index = attached_index::index_layer(&layer.descriptor.digest, stored.digest, stored.size);
    let subject = json!({ "mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": 1 });
    let config = registry.add_blob("r", media_type::OCI_EMPTY, &b"{}"[..]);
    for annotations in [json!({}), json!({ attached_index::INDEX_LIST: attached_index::list(std::slice::from_ref(&index)) })] {
        let cache = tempfile::TempDir::new().unwrap();
        let referrer = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": attached_index::INDEX_ARTIFACT_TYPE,
            "config": json_of(&config), "layers": [json_of(&index)], "subject": subject, "annotations": annotations,
        });
        let referrer = registry.add_manifest("r", referrer.to_string());
        let trusting = artifacts_with(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), |options| options.trust_referrers = true);
        let artifact = shown(&trusting, &repository("r"), "v1").await.unwrap();
        let lie = artifact.tree.content(find(&artifact, "z").unwrap()).unwrap();
        assert!(lie.sha256.is_none() && artifact.is_referred(), "a stranger's digest proves nothing");
        // The same process shows what digests alone say.
        let strict = trusting.artifact(&repository("r"), &digest, ViewMode::Merged, true).await.unwrap();
        assert!(find(&strict, "a").is_some() && !strict.is_referred());
        let careful = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
        let artifact = shown(&careful, &repository("r"), "v1").await.unwrap();
        assert!(find(&artifact, "a").is_some() && find(&artifact, "z").is_none());
        // By now the layer was read whole here, which is better than what others say.
        let again = artifacts_with(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), |options| options.trust_referrers = true);
        assert!(find(&shown(&again, &repository("r"), "v1").await.unwrap(), "a").is_some());
        registry.remove_manifest("r", &referrer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_of_a_lying_table_is_rebuilt_from_the_layer_once_a_chunk_does_not_match() {
    use crate::content::tests::tables::estargz;
    let (registry, cache) = memory();
    let (blob, table) = estargz(&[("a", b"true"), ("b", b"also")], 1 << 20, |entries| {
        entries[0]["name"] = json!("lie");
        let other = entries[1]["offset"].clone();
        entries[1]["offset"] = entries[0]["offset"].clone();
        entries[0]["offset"] = other;
    });
    let Table::Estargz { digest } = table else { unreachable!() };
    let mut layer = registry.add_blob("r", GZIP, blob);
    layer.annotations.insert("containerd.io/snapshot/stargz/toc.digest".to_owned(), digest.to_string());
    tag_layers(&registry, "v1", media_type::OCI_CONFIG, &[&layer], json!({}));
    let first = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let before = shown(&first, &repository("r"), "v1").await.unwrap();
    let wrong = find(&before, "lie").unwrap();
    assert_eq!(bytes_of(&first, &repository("r"), &before, wrong).await.unwrap_err().kind, ErrorKind::Integrity);
    for artifacts in [first, artifacts(registry, cache.path(), false, None)] {
        let after = shown(&artifacts, &repository("r"), "v1").await.unwrap();
        assert_eq!(find(&after, "lie"), None);
        assert_eq!(bytes_of(&artifacts, &repository("r"), &after, find(&after, "a").unwrap()).await.unwrap(), b"true");
    }
}
