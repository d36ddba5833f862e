//! Which rule reads which manifest, and how the blobs are named.

use serde_json::json;

use super::steps::TITLE;
use super::*;
use crate::layer::Metadata;
use crate::oci::{Digest, Platform, media_type};

const PLAIN: &str = "application/octet-stream";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Media type and annotations.
type Layer<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// A manifest with a config and layers of media type and annotations; every layer has a unique digest.
fn manifest(config: &str, layers: &[Layer<'_>], annotations: &[(&str, &str)]) -> Manifest {
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>();
    let layer = |(number, (media_type, annotations)): (usize, &Layer<'_>)| {
        let digest = Digest::of(&[number as u8]).to_string();
        json!({"mediaType": media_type, "digest": digest, "size": 3, "annotations": map(annotations)})
    };
    let text = json!({
        "schemaVersion": 2,
        "config": {"mediaType": config, "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": layers.iter().enumerate().map(layer).collect::<Vec<_>>(),
        "annotations": map(annotations),
    });
    let text = text.to_string();
    Manifest::parse(text.clone().into(), Digest::of(text.as_bytes())).unwrap()
}

fn plan_of(manifest: &Manifest) -> Plan {
    plan(manifest, None, ViewMode::Merged, b"").unwrap()
}

/// The first choice of each file's path, or the directory of each archive with a slash.
fn places(plan: &Plan) -> Vec<String> {
    let place = |step: &Step| match &step.shape {
        Shape::Archive { placing, .. } => format!("{}/", String::from_utf8_lossy(&placing.at)),
        Shape::File(wanted) => {
            let first = wanted.title.places(&wanted.base, &step.descriptor.digest).next().unwrap();
            String::from_utf8(first).unwrap().replace(&step.descriptor.digest.hex(), "HEX").replace(&step.descriptor.digest.short(), "12")
        }
    };
    plan.steps.iter().map(place).collect()
}

#[test]
fn oci_sync_and_sealed_artifacts_are_recognised_by_their_annotations() {
    let plain =
        plan_of(&manifest(media_type::OCI_CONFIG, &[(PLAIN, &[])], &[("io.oci-sync.version", "1"), ("io.oci-sync.encrypted", "false")]));
    assert_eq!((plain.dialect, plain.steps[0].sealing), (Dialect::OciSync, Sealing::None));
    let sealed =
        plan_of(&manifest(media_type::OCI_CONFIG, &[(PLAIN, &[])], &[("io.oci-sync.version", "1"), ("io.oci-sync.encrypted", "true")]));
    assert_eq!((sealed.steps[0].sealing, places(&sealed)), (Sealing::OciSync, vec!["/".to_owned()]));
}

#[test]
fn an_image_needs_image_media_types_for_its_config_and_every_layer() {
    let image = plan_of(&manifest(media_type::DOCKER_CONFIG, &[(TAR, &[]), (GZIP, &[])], &[]));
    assert_eq!((image.dialect, image.steps.len()), (Dialect::Image, 2));
    assert_eq!(plan_of(&manifest(media_type::OCI_CONFIG, &[], &[])).dialect, Dialect::Image);
    assert_eq!(plan_of(&manifest(media_type::OCI_CONFIG, &[(TAR, &[]), (PLAIN, &[])], &[])).dialect, Dialect::Blobs);
    assert_eq!(plan_of(&manifest(media_type::OCI_EMPTY, &[(TAR, &[])], &[])).dialect, Dialect::Archive);
}

#[test]
fn titled_layers_are_an_image_only_if_the_config_lists_layers() {
    let titled = manifest(media_type::OCI_CONFIG, &[(TAR, &[(TITLE, "a.txt")])], &[]);
    assert!(needs_config(titled.image().unwrap()));
    let by = |config: &str| plan(&titled, Some(config.as_bytes()), ViewMode::Merged, b"").unwrap().dialect;
    assert_eq!(by(r#"{"os":"linux","architecture":"arm"}"#), Dialect::Files);
    assert_eq!(by(r#"{"rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#), Dialect::Image);
    assert_eq!(by(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#), Dialect::Files);
    assert_eq!(by("garbage"), Dialect::Files);
}

#[test]
fn raw_files_have_the_creation_time_of_their_manifest() {
    let said = [("org.cncf.model.filepath", "b"), ("org.cncf.model.file.metadata+json", r#"{"mtime":"2024-01-01T00:00:00Z"}"#)];
    let layers: [Layer<'_>; 2] = [(PLAIN, &[(TITLE, "a")]), (PLAIN, &said)];
    let times = |created: &str, view: ViewMode| -> Vec<Option<(i64, u32)>> {
        let made = manifest(media_type::OCI_EMPTY, &layers, &[(CREATED, created)]);
        let whole = plan(&made, None, view, b"").unwrap();
        let alone = one_layer(&whole, &made.image().unwrap().layers[0]);
        let time = |step: &Step| match &step.shape {
            Shape::File(wanted) => wanted.raw.metadata.mtime,
            Shape::Archive { .. } => panic!("an archive"),
        };
        whole.steps.iter().chain(&alone.steps).map(time).collect()
    };
    let (made, own) = (Some((1_714_979_289, 500_000_000)), Some((1_704_067_200, 0)));
    assert_eq!(times("2024-05-06T07:08:09.5Z", ViewMode::Merged), [made, own, made]);
    assert_eq!(times("2024-05-06T07:08:09.5Z", ViewMode::Blobs), [made; 4], "the config, two layers, one alone");
    assert_eq!(times("yesterday", ViewMode::Merged), [None, own, None]);
}

#[test]
fn estargz_is_recognised_by_its_annotation() {
    let image = plan_of(&manifest(
        media_type::OCI_CONFIG,
        &[(GZIP, &[("containerd.io/snapshot/stargz/toc.digest", "sha256:0")]), (GZIP, &[])],
        &[],
    ));
    let marked: Vec<bool> = image
        .steps
        .iter()
        .map(|step| matches!(&step.shape, Shape::Archive { placing, .. } if placing.estargz && placing.whiteouts))
        .collect();
    assert_eq!(marked.len(), 2);
    assert!(marked[0] && !marked[1]);
}

#[test]
fn a_titled_archive_is_unpacked_only_if_its_annotation_says_so() {
    let unpack: (&str, &str) = ("io.deis.oras.content.unpack", "true");
    let files = plan_of(&manifest(
        media_type::OCI_EMPTY,
        &[
            (GZIP, &[(TITLE, "docs"), unpack]),
            (GZIP, &[(TITLE, "docs.tgz")]),
            (GZIP, &[(TITLE, "."), unpack]),
            ("application/vnd.cncf.model.weight.v1.tar", &[("org.cncf.model.filepath", "w/model.bin")]),
            ("application/vnd.cncf.model.weight.v1.raw", &[("org.cncf.model.filepath", "w/raw.bin")]),
            ("application/vnd.ocifs.index.v1+zstd", &[]),
            (PLAIN, &[]),
            (media_type::OCI_EMPTY, &[]),
        ],
        &[],
    ));
    assert_eq!(files.dialect, Dialect::Files);
    assert_eq!(places(&files), ["docs/", "docs.tgz", "/", "w/model.bin/", "w/raw.bin", "sha256-HEX"]);
}

#[test]
fn a_directory_whose_title_escapes_is_unpacked_beside_the_others() {
    let evil = plan_of(&manifest(PLAIN, &[(GZIP, &[(TITLE, "../../etc"), ("io.deis.oras.content.unpack", "true")])], &[]));
    let Shape::Archive { placing, instead } = &evil.steps[0].shape else { panic!("not unpacked") };
    assert_eq!(placing.at, format!("etc~{}", evil.steps[0].descriptor.digest.short()).into_bytes());
    assert_eq!((placing.strip.as_slice(), instead.is_some()), (&b"etc"[..], true));
}

#[test]
fn model_files_take_their_attributes_from_their_metadata() {
    let metadata = r#"{"mode":416,"uid":7,"gid":8,"mtime":"2024-01-01T00:00:00Z"}"#;
    let layer: &[(&str, &str)] = &[("org.cncf.model.filepath", "a"), ("org.cncf.model.file.metadata+json", metadata)];
    let files = plan_of(&manifest(PLAIN, &[("application/vnd.cncf.model.doc.v1.raw", layer)], &[]));
    let Shape::File(wanted) = &files.steps[0].shape else { panic!("not a file") };
    assert_eq!(wanted.raw.metadata, Metadata { mode: Some(0o640), owner: Some((7, 8)), mtime: Some((1_704_067_200, 0)), device: (0, 0) });
}

#[test]
fn a_chart_keeps_its_provenance_beside_it() {
    let chart = manifest(
        "application/vnd.cncf.helm.config.v1+json",
        &[("application/vnd.cncf.helm.chart.provenance.v1.prov", &[]), ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &[])],
        &[(TITLE, "anchor"), ("org.opencontainers.image.version", "1.2.3")],
    );
    assert_eq!(
        (plan_of(&chart).dialect, places(&plan_of(&chart))),
        (Dialect::Archive, vec!["anchor-1.2.3.tgz.prov".to_owned(), "/".to_owned()])
    );
    let kit = manifest(
        "application/vnd.kitops.modelkit.config.v1+json",
        &[("application/vnd.kitops.modelkit.model.v1.tar+gzip", &[]), ("application/vnd.kitops.modelkit.code.v1.tar", &[])],
        &[],
    );
    assert_eq!((plan_of(&kit).dialect, places(&plan_of(&kit))), (Dialect::Archive, vec!["/".to_owned(), "/".to_owned()]));
}

#[test]
fn blobs_are_named_by_media_type_else_by_digest() {
    let blobs = plan_of(&manifest(
        media_type::OCI_CONFIG,
        &[
            ("application/vnd.dev.cosign.simplesigning.v1+json", &[]),
            ("application/wasm", &[]),
            ("application/vnd.in-toto+json", &[("in-toto.io/predicate-type", "https://slsa.dev/provenance/v1")]),
            ("application/vnd.dsse.envelope.v1+json", &[("predicateType", "https://../../x\u{1b}[31m")]),
            ("application/vnd.in-toto+json; charset=utf-8", &[]),
            (PLAIN, &[]),
        ],
        &[],
    ));
    assert_eq!(blobs.dialect, Dialect::Blobs);
    let names =
        ["signature.json", "module.wasm", "slsa-provenance-v1.intoto.json", "x--31m.intoto.json", "attestation.intoto.json", "sha256-HEX"];
    assert_eq!(places(&blobs), names);
}

#[test]
fn the_views_of_layers_and_blobs_show_every_layer() {
    let image = manifest(media_type::OCI_CONFIG, &[(GZIP, &[]), (TAR, &[])], &[]);
    let layers = plan(&image, None, ViewMode::Layers, b"").unwrap();
    let expected: Vec<String> = (0u8..2).map(|number| format!("{number:02}-{}/", Digest::of(&[number]).short())).collect();
    assert_eq!(places(&layers), expected);
    let blobs = plan(&image, None, ViewMode::Blobs, b"").unwrap();
    assert_eq!((blobs.dialect, places(&blobs)), (Dialect::Blobs, vec!["sha256-HEX".to_owned(); 3]));
    let sealed = manifest(PLAIN, &[(PLAIN, &[])], &[("io.oci-sync.version", "1"), ("io.oci-sync.encrypted", "true")]);
    assert_eq!(plan(&sealed, None, ViewMode::Blobs, b"").unwrap().steps[1].sealing, Sealing::None);
    let one = one_layer(&plan_of(&sealed), &sealed.image().unwrap().layers[0]);
    assert_eq!((one.steps[0].sealing, places(&one)), (Sealing::OciSync, vec!["/".to_owned()]));
}

#[test]
fn an_index_offers_the_best_member_first_and_never_attestations() {
    let member = |name: &str, platform: Option<&str>| {
        let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(name.as_bytes()), 1);
        descriptor.platform = platform.map(|platform| platform.parse().unwrap());
        descriptor
    };
    let mut nested = member("nested", None);
    nested.media_type = media_type::OCI_INDEX.to_owned();
    let manifests = vec![
        nested.clone(),
        member("v6", Some("linux/arm/v6")),
        member("v7", Some("linux/arm/v7")),
        member("att", Some("unknown/unknown")),
        member("x", None),
    ];
    let index = crate::oci::Index { manifests, artifact_type: None, subject: None, annotations: Default::default() };
    let platform: Platform = "linux/arm/v7".parse().unwrap();
    let order: Vec<Digest> = candidates(&index, &platform).into_iter().map(|candidate| candidate.descriptor.digest).collect();
    assert_eq!(order, [Digest::of(b"v7"), Digest::of(b"v6"), nested.digest]);
    assert_eq!(members(&index).count(), 4);
    let v7 = member("v7", Some("linux/arm/v7"));
    assert_eq!(member_name(&v7, |_| false), "linux-arm-v7");
    assert_eq!(member_name(&v7, |name| name == "linux-arm-v7"), format!("linux-arm-v7~{}", v7.digest.short()));
    let mut titled = member("t", None);
    titled.annotations.insert(TITLE.to_owned(), "../x".to_owned());
    assert_eq!(member_name(&titled, |_| false), titled.digest.short());
}

#[test]
fn models_and_compose_files_have_the_names_in_their_annotations() {
    let path = "org.cnai.model.filepath";
    let model = plan_of(&manifest(
        "application/vnd.docker.ai.model.config.v0.2+json",
        &[
            ("application/vnd.docker.ai.gguf.v3", &[("org.cncf.model.filepath", "weights/a.gguf")]),
            ("application/vnd.cnai.model.weight.v1.tar", &[(path, "w")]),
            ("application/vnd.docker.ai.dir.tar", &[(path, "conf")]),
        ],
        &[],
    ));
    assert_eq!(places(&model), ["weights/a.gguf", "w/", "conf/"]);
    let unnamed = ["safetensors", "dduf", "vllm.config.tar"].map(|kind| format!("application/vnd.docker.ai.{kind}"));
    let unnamed = plan_of(&manifest(
        "application/vnd.docker.ai.model.config.v0.1+json",
        &unnamed.each_ref().map(|kind| (kind.as_str(), &[] as &[(&str, &str)])),
        &[],
    ));
    assert_eq!(places(&unnamed), ["model.safetensors", "model.dduf", "config.tar"]);
    let compose = plan_of(&manifest(
        media_type::OCI_EMPTY,
        &[
            ("application/vnd.docker.compose.file+yaml", &[("com.docker.compose.file", "compose.prod.yaml")]),
            ("application/vnd.docker.compose.envfile", &[("com.docker.compose.envfile", ".env")]),
        ],
        &[],
    ));
    assert_eq!(places(&compose), ["compose.prod.yaml", ".env"]);
}
