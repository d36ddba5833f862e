//! Artifacts as real tools write them, contrary to what others expect: missing and contradictory values.

use super::*;

/// Adds an image whose config names a platform; returns its digest.
fn image_for(registry: &Memory, name: &str, config: &str) -> Digest {
    registry.add_artifact("r", name, (media_type::OCI_CONFIG, config.as_bytes()), &[(GZIP, &tar_of(&[(name, name)]), &[])], &[])
}

fn index_of(registry: &Memory, entries: &[serde_json::Value]) -> Digest {
    registry.add_manifest("r", json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string())
}

fn entry(digest: Digest) -> serde_json::Value {
    json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": 1})
}

const AMD: &str = r#"{"os":"linux","architecture":"amd64"}"#;

#[tokio::test]
async fn files_of_one_tree_are_found_in_another_if_path_and_bytes_are_the_same() {
    let (registry, cache) = memory();
    let image = |name: &str, files: &[(&str, &str)]| {
        registry.add_artifact("r", name, (media_type::OCI_CONFIG, AMD.as_bytes()), &[(GZIP, &tar_of(files), &[])], &[])
    };
    let digests = [
        image("one", &[("a", "1"), ("b", "2"), ("c/d", "3")]),
        image("other", &[("c/d", "3"), ("b", "4"), ("a", "1")]),
        image("longer", &[("a", "10"), ("b", "2"), ("c/d", "3")]),
        image("renamed", &[("a", "1"), ("b", "2"), ("c/e", "3")]),
        image("more", &[("a", "1"), ("b", "2"), ("c/d", "3"), ("e", "4")]),
    ];
    let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
    let mut trees = Vec::new();
    for digest in digests {
        trees.push(artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.unwrap());
    }
    for (number, unlike) in [&[][..], &["b"], &["a"], &["c/d"], &[]].into_iter().enumerate() {
        let same = trees[0].tree.same_files(&trees[number].tree);
        for path in ["a", "b", "c/d"] {
            let expected = find(&trees[number], path).filter(|_| !unlike.contains(&path));
            assert_eq!(same[find(&trees[0], path).unwrap() as usize], expected, "{path} in {number}");
        }
        assert_eq!(same.len(), trees[0].tree.node_count() as usize);
        assert_eq!(same.iter().flatten().count(), 3 - unlike.len(), "directories are none");
    }
}

#[tokio::test]
async fn the_only_member_without_a_platform_is_the_image_if_its_config_fits() {
    let (registry, cache) = memory();
    let [amd, other, arm] = [("amd", AMD), ("other", AMD), ("arm", r#"{"os":"linux","architecture":"arm64"}"#)]
        .map(|(name, config)| image_for(&registry, name, config));
    let mut attestation = entry(other);
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut windows = entry(arm);
    windows["platform"] = json!({"os": "windows", "architecture": "amd64"});
    let mut said = entry(other);
    said["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let cases = [
        (vec![entry(amd)], Dialect::Image, "amd"),
        (vec![windows, entry(amd), attestation], Dialect::Image, "amd"),
        (vec![entry(amd), said], Dialect::Image, "other"),
        (vec![entry(arm)], Dialect::Members, "amd"),
        (vec![entry(amd), entry(other)], Dialect::Members, "amd"),
    ];
    let cases: Vec<_> = cases.into_iter().map(|(entries, dialect, name)| (index_of(&registry, &entries), dialect, name)).collect();
    let artifacts = artifacts(registry, cache.path(), false, None);
    for (digest, dialect, name) in cases {
        let artifact = artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.unwrap();
        assert_eq!(artifact.dialect, dialect, "{digest}");
        assert_eq!(find(&artifact, name).is_some(), dialect == Dialect::Image, "{digest}");
        assert_eq!(artifact.platform.is_some(), dialect == Dialect::Image);
    }
}

#[tokio::test]
async fn a_layer_of_size_zero_must_have_the_digest_of_empty_content() {
    let (registry, cache) = memory();
    let config = registry.add_blob("r", media_type::OCI_EMPTY, &b"{}"[..]);
    let layer =
        |name: &str, digest: Digest| json!({"mediaType": PLAIN, "digest": digest.to_string(), "size": 0, "annotations": {TITLE: name}});
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": config.media_type, "digest": config.digest.to_string(), "size": config.size},
        "layers": [layer("none", Digest::of(b"")), layer("lie", Digest::of(b"qqq"))],
    });
    registry.add_blob("r", PLAIN, &b"qqq"[..]);
    let digest = registry.add_manifest("r", manifest.to_string());
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = artifacts.artifact(&repository("r"), &digest, ViewMode::Merged, false).await.unwrap();
    let open = |name: &str| artifact.tree.content(find(&artifact, name).unwrap()).unwrap().blob;
    let (none, lie) = (open("none"), open("lie"));
    assert_eq!(artifacts.stream(&repository("r"), &artifact, none, false).await.unwrap().length(), 0);
    assert_eq!(artifacts.stream(&repository("r"), &artifact, lie, false).await.err().unwrap().kind, ErrorKind::Integrity);
}

#[tokio::test]
async fn unsupported_compressions_are_named() {
    let (registry, cache) = memory();
    let xz = [&b"\xfd7zXZ\0\0\x04"[..], &[9; 500]].concat();
    registry.add_artifact("r", "image", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &xz, &[])], &[]);
    registry.add_artifact("r", "files", (media_type::OCI_EMPTY, b"{}"), &[(GZIP, &xz, &[(TITLE, "docs"), UNPACK])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let error = shown(&artifacts, &repository("r"), "image").await.err().unwrap();
    assert!(error.kind == ErrorKind::Unsupported && error.message.contains("compressed with xz"), "{error}");
    // Beside other files it is shown as stored.
    let files = shown(&artifacts, &repository("r"), "files").await.unwrap();
    assert!(find(&files, &format!("docs~{}", Digest::of(&xz).short())).is_some());
}

#[tokio::test]
async fn warnings_are_reported_with_the_artifact_even_from_the_cache() {
    let (registry, cache) = memory();
    let long = "n".repeat(300);
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["good", &long] {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, name, &b""[..]).unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let digest = registry.add_artifact("r", "v1", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &archive, &[])], &[]);
    registry.add_artifact("r", "v2", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &tar_of(&[("good", "x")]), &[])], &[]);
    for _ in 0..2 {
        let artifacts = artifacts(Arc::clone(&registry) as Arc<dyn Pull>, cache.path(), false, None);
        let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
        let warnings: Vec<&str> = artifact.tree.warnings().collect();
        assert!(warnings.len() == 1 && warnings[0].contains("its name is not a valid file name"), "{warnings:?}");
        let names: Vec<Vec<u8>> = artifact.tree.children(0, 0).map(|child| child.name.to_vec()).collect();
        assert_eq!(names, [b"good".to_vec(), crate::layer::safe_name(long.as_bytes())]);
        assert_eq!(artifacts.describe(&repository("r"), &digest).await.unwrap().warnings, warnings);
        assert_eq!(shown(&artifacts, &repository("r"), "v2").await.unwrap().tree.warnings().count(), 0);
    }
}

#[tokio::test]
async fn a_sparse_file_has_the_blocks_of_its_data() {
    let (registry, cache) = memory();
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
        format!("{length}{rest}")
    };
    let records: String = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "8388608")]
        .iter()
        .map(|(key, value)| record(key, value))
        .collect();
    let mut builder = tar::Builder::new(Vec::new());
    let mut extended = tar::Header::new_ustar();
    extended.set_entry_type(tar::EntryType::XHeader);
    extended.set_size(records.len() as u64);
    builder.append_data(&mut extended, "pax", records.as_bytes()).unwrap();
    let mut map = b"1\n4000000\n1000\n".to_vec();
    map.resize(512, 0);
    map.extend([7; 1000]);
    let mut header = tar::Header::new_ustar();
    header.set_size(map.len() as u64);
    builder.append_data(&mut header, "sparse", &map[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    registry.add_artifact("r", "v1", (media_type::OCI_CONFIG, b"{}"), &[(GZIP, &archive, &[])], &[]);
    let artifacts = artifacts(registry, cache.path(), false, None);
    let artifact = shown(&artifacts, &repository("r"), "v1").await.unwrap();
    let node = artifact.tree.node(find(&artifact, "sparse").unwrap()).unwrap();
    assert_eq!((node.size, node.blocks), (8_388_608, 2));
}
