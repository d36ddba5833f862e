//! Pushing local files: what arrives, what is sent again, what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::fixture::{PublishFixture, repository};
use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Tag};
use crate::publish::{ArtifactKind, Config, ImageSpec, Input, Metadata, NewKind, Pushed, Pushing};
use crate::registry::RequestKind;

const OWNER: (u32, u32) = (7, 8);

struct Source {
    directory: tempfile::TempDir,
    packs: tempfile::TempDir,
}

impl Source {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), packs: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path)
    }

    /// A path of the directory under the same path in the artifact; `.` is all of it.
    fn input(&self, path: &str) -> Input {
        let named = if path == "." { "" } else { path };
        Input { disk: self.path(path), path: named.as_bytes().to_vec(), media_type: None, bytes_only: false }
    }

    fn pushing(&self, kind: NewKind, inputs: &[&str]) -> Pushing {
        Pushing {
            repository: repository(),
            tags: vec![Tag::parse("v1").unwrap()],
            inputs: inputs.iter().map(|path| self.input(path)).collect(),
            kind,
            metadata: Metadata::default(),
            owner: Some(OWNER),
            newest: Some(1_600_000_000),
            packs: self.packs.path().to_path_buf(),
            concurrency: NonZeroUsize::new(4).unwrap(),
            dry_run: false,
            plaintext: false,
            no_ignore: false,
        }
    }
}

const FILES: NewKind = NewKind::Editable(ArtifactKind::Files);

async fn push(fixture: &PublishFixture, pushing: &Pushing) -> Result<Pushed, Error> {
    fixture.publisher.push(pushing, &fixture.listener()).await
}

async fn pushed(fixture: &PublishFixture, pushing: &Pushing) -> (Digest, Value) {
    let pushed = push(fixture, pushing).await.unwrap();
    for tag in &pushing.tags {
        assert_eq!(fixture.tagged(tag.as_str()), Some(pushed.manifest.digest));
    }
    (pushed.manifest.digest, serde_json::from_slice(&pushed.manifest.raw).unwrap())
}

fn titles(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.filter_map(|layer| layer["annotations"]["org.opencontainers.image.title"].as_str()).collect()
}

/// A tree with everything that a directory can contain.
fn sample() -> Source {
    let source = Source::new();
    source.write("a.txt", "hello").write("sub/run", "#!").write("sub/deep/x", "x").write("big", vec![7; 5 << 20]);
    fs::create_dir(source.path("empty")).unwrap();
    fs::set_permissions(source.path("sub/run"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::hard_link(source.path("a.txt"), source.path("sub/again")).unwrap();
    let deep = fs::File::open(source.path("sub/deep")).unwrap();
    crate::sys::entry::set_xattr(&deep, "user.note".as_ref(), b"kept").unwrap();
    symlink("../a.txt", source.path("sub/link")).unwrap();
    symlink("/nowhere", source.path("dangling")).unwrap();
    source
}

#[tokio::test]
async fn a_pushed_directory_is_shown_as_it_was() {
    for kind in [FILES, NewKind::Editable(ArtifactKind::Image), NewKind::Editable(ArtifactKind::OciSync)] {
        let (fixture, source) = (PublishFixture::new(), sample());
        let (digest, _) = pushed(&fixture, &source.pushing(kind, &["."])).await;
        let seen = fixture.seen(&digest).await;
        let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).filter(|path| !path.is_empty()).collect();
        assert_eq!(
            paths,
            ["a.txt", "big", "dangling", "empty", "sub", "sub/again", "sub/deep", "sub/deep/x", "sub/link", "sub/run"],
            "{kind:?}"
        );
        let at = |path: &str| seen.iter().find(|seen| seen.path == path).unwrap();
        assert_eq!((at("sub/run").mode, at("sub/run").bytes.as_slice()), (Some(0o750), &b"#!"[..]));
        assert_eq!((at("sub/again").first.as_str(), at("sub/again").bytes.as_slice()), ("a.txt", &b"hello"[..]));
        assert_eq!((at("sub/link").kind, at("sub/link").target.as_slice()), (Kind::Symlink, &b"../a.txt"[..]));
        assert!(at("big").bytes == vec![7; 5 << 20]);
        assert_eq!(at("sub/deep").xattrs, [(b"user.note".to_vec(), b"kept".to_vec())]);
        assert_eq!((at("a.txt").owner, at("a.txt").mtime), (Some(OWNER), Some((1_600_000_000, 0))), "no later than what was asked for");
    }
}

#[tokio::test]
async fn a_repeated_push_sends_nothing_and_has_the_same_digest() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let (first, _) = pushed(&fixture, &source.pushing(FILES, &["."])).await;
    fixture.registry.forget_requests();
    let packs = tempfile::tempdir().unwrap();
    let again = Pushing { packs: packs.path().to_path_buf(), ..source.pushing(FILES, &["."]) };
    assert_eq!(pushed(&fixture, &again).await.0, first);
    assert_eq!(fixture.registry.count(RequestKind::PushBlob), 0);
    assert!(fs::read_dir(packs.path()).unwrap().all(|entry| entry.unwrap().path().extension().is_none_or(|ending| ending != "blob")));
    // An edit sends only the layer that contains it.
    source.write("sub/deep/x", "another");
    pushed(&fixture, &source.pushing(FILES, &["."])).await;
    assert!(fixture.registry.count(RequestKind::PushBlob) <= 2, "{:?}", fixture.registry.requests());
}

#[tokio::test]
async fn named_files_are_separate_layers_titled_with_the_given_path() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let mut pushing = source.pushing(FILES, &["a.txt", "sub/deep/x", "sub/run"]);
    pushing.inputs[0].media_type = Some("text/plain".to_owned());
    pushing.inputs[1].bytes_only = true;
    let (digest, manifest) = pushed(&fixture, &pushing).await;
    assert_eq!(titles(&manifest), ["a.txt", "sub/deep/x", "sub/run"]);
    let copies =
        fs::read_dir(source.packs.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".blob"));
    assert_eq!(copies.count(), 0, "they are sent from where they are");
    assert_eq!(manifest["layers"][0]["mediaType"], "text/plain");
    let seen = fixture.seen(&digest).await;
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, ["", "a.txt", "sub", "sub/deep", "sub/deep/x", "sub/run"]);
    let at = |path: &str| seen.iter().find(|seen| seen.path == path).unwrap();
    assert_eq!((at("sub").mode, at("sub").mtime), (None, None), "nobody said anything about a directory that was not pushed");
    assert_eq!((at("sub/deep/x").mode, at("sub/deep/x").mtime, at("sub/deep/x").owner), (None, None, None));
    assert_eq!(at("sub/run").mode, Some(0o750));
}

#[tokio::test]
async fn one_file_pushed_as_oras_has_the_manifest_that_oras_writes() {
    let (fixture, source) = (PublishFixture::new(), Source::new());
    source.write("hello.txt", "hello world\n");
    let mut pushing = source.pushing(NewKind::Oras, &["hello.txt"]);
    pushing.metadata.annotations = BTreeMap::from([("org.opencontainers.image.created".to_owned(), "2024-01-01T00:00:00Z".to_owned())]);
    let pushed = push(&fixture, &pushing).await.unwrap();
    let expected = concat!(
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.unknown.artifact.v1","#,
        r#""config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"#,
        r#""layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447","size":12,"#,
        r#""annotations":{"org.opencontainers.image.title":"hello.txt"}}],"annotations":{"org.opencontainers.image.created":"2024-01-01T00:00:00Z"}}"#
    );
    assert_eq!(std::str::from_utf8(&pushed.manifest.raw).unwrap(), expected);
    // No files: the empty layer.
    let nothing = push(&fixture, &source.pushing(NewKind::Oras, &[])).await.unwrap();
    let manifest: Value = serde_json::from_slice(&nothing.manifest.raw).unwrap();
    assert_eq!(manifest["layers"], json!([manifest["config"]]));
}

#[tokio::test]
async fn a_directory_pushed_as_oras_is_one_archive_titled_with_its_path() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let (digest, manifest) = pushed(&fixture, &source.pushing(NewKind::Oras, &["sub", "a.txt"])).await;
    assert_eq!(titles(&manifest), ["sub", "a.txt"], "in the order of the command line");
    let annotations = &manifest["layers"][0]["annotations"];
    assert_eq!(
        (&annotations["io.deis.oras.content.unpack"], &manifest["layers"][1]["annotations"]["io.deis.oras.content.unpack"]),
        (&json!("true"), &Value::Null)
    );
    let seen = fixture.seen(&digest).await;
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, ["", "a.txt", "sub", "sub/again", "sub/deep", "sub/deep/x", "sub/link", "sub/run"]);
    let again = seen.iter().find(|seen| seen.path == "sub/again").unwrap();
    assert_eq!((again.owner, again.bytes.as_slice()), (Some((0, 0)), &b"hello"[..]));
}

#[tokio::test]
async fn a_manifest_has_the_requested_fields() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let subject = Descriptor::new("application/vnd.oci.image.manifest.v1+json", Digest::of(b"subject"), 7);
    let mut pushing = source.pushing(FILES, &["a.txt"]);
    let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    pushing.metadata = Metadata {
        artifact_type: Some("my/type".to_owned()),
        annotations: pair("k", "v"),
        config_annotations: pair("c", "d"),
        layer_annotations: BTreeMap::from([("a.txt".to_owned(), pair("l", "m"))]),
        config: Some(Config { media_type: Some("my/config".to_owned()), bytes: "{\"x\":1}".into() }),
        subject: Some(subject.clone()),
        image_spec: ImageSpec::V1_1,
    };
    let (_, manifest) = pushed(&fixture, &pushing).await;
    assert_eq!((&manifest["artifactType"], &manifest["annotations"]), (&json!("my/type"), &json!({"k": "v"})));
    assert_eq!((&manifest["config"]["mediaType"], &manifest["config"]["annotations"]), (&json!("my/config"), &json!({"c": "d"})));
    assert_eq!(manifest["config"]["digest"], Digest::of(b"{\"x\":1}").to_string());
    assert_eq!(manifest["layers"][0]["annotations"]["l"], "m");
    assert_eq!(manifest["subject"]["digest"], subject.digest.to_string());
    assert!(fixture.registry.held("app").contains_key(&Digest::of(b"{\"x\":1}")));
    pushing.metadata = Metadata { artifact_type: Some("my/type".to_owned()), image_spec: ImageSpec::V1_0, ..Metadata::default() };
    let (_, manifest) = pushed(&fixture, &pushing).await;
    assert_eq!((&manifest["artifactType"], &manifest["config"]["mediaType"]), (&Value::Null, &json!("my/type")));
    assert_eq!(manifest["config"]["data"], Value::Null);
}

#[tokio::test]
async fn impossible_requests_are_refused_before_a_byte_is_sent() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let refused = async |pushing: &Pushing, word: &str| {
        let error = push(&fixture, pushing).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains(word), "{error}");
    };
    let mut typed = source.pushing(FILES, &["sub"]);
    typed.inputs[0].media_type = Some("a/b".to_owned());
    refused(&typed, "--as-kind oras").await;
    let mut image = source.pushing(NewKind::Editable(ArtifactKind::Image), &["."]);
    image.metadata.artifact_type = Some("my/type".to_owned());
    refused(&image, "an image has one layer").await;
    refused(&source.pushing(NewKind::Editable(ArtifactKind::OciSync), &[]), "nothing to push").await;
    let mut twice = source.pushing(FILES, &["a.txt", "sub"]);
    twice.inputs[1].path = b"a.txt".to_vec();
    refused(&twice, "would both be `a.txt`").await;
    refused(&source.pushing(FILES, &["sub", "sub/run"]), "would both be `sub/run`").await;
    let mut reserved = source.pushing(FILES, &["a.txt"]);
    reserved.metadata.annotations = BTreeMap::from([("io.oci-sync.encrypted".to_owned(), "false".to_owned())]);
    refused(&reserved, "reserved for oci-sync").await;
    let mut stray = source.pushing(FILES, &["a.txt"]);
    stray.metadata.layer_annotations = BTreeMap::from([("b.txt".to_owned(), BTreeMap::new())]);
    refused(&stray, "no layer has that title").await;
    assert!(fixture.tagged("v1").is_none());
}

#[tokio::test]
async fn a_named_symlink_is_followed_but_none_below_it() {
    let (fixture, source) = (PublishFixture::new(), sample());
    symlink("sub", source.path("to-sub")).unwrap();
    symlink("a.txt", source.path("to-file")).unwrap();
    let (digest, _) = pushed(&fixture, &source.pushing(FILES, &["to-sub", "to-file"])).await;
    let seen = fixture.seen(&digest).await;
    let at = |path: &str| seen.iter().find(|seen| seen.path == path).unwrap();
    assert_eq!((at("to-sub").kind, at("to-file").kind, at("to-file").bytes.as_slice()), (Kind::Directory, Kind::File, &b"hello"[..]));
    assert_eq!((at("to-sub/link").kind, at("to-sub/run").bytes.as_slice()), (Kind::Symlink, &b"#!"[..]));
}

#[tokio::test]
async fn ignored_files_are_left_out_unless_requested() {
    let (fixture, source) = (PublishFixture::new(), Source::new());
    source.write("a", "a").write(".a.swp", "x").write("build/x", "x").write(".ocifsignore", "build/\n");
    let first = push(&fixture, &source.pushing(FILES, &["."])).await.unwrap();
    assert_eq!(first.report.ignored, 2);
    let paths: Vec<String> = fixture.seen(&first.manifest.digest).await.into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["", ".ocifsignore", "a"]);
    let all = push(&fixture, &Pushing { no_ignore: true, ..source.pushing(FILES, &["."]) }).await.unwrap();
    assert_eq!((all.report.ignored, fixture.seen(&all.manifest.digest).await.len()), (0, 6));
}

#[tokio::test]
async fn indexes_are_attached_unless_disabled() {
    for (attach_index, manifests) in [(true, 2), (false, 1)] {
        let (mut fixture, source) = (PublishFixture::new(), sample());
        fixture.publisher.attach_index = attach_index;
        pushed(&fixture, &source.pushing(NewKind::Editable(ArtifactKind::Image), &["."])).await;
        assert_eq!(fixture.registry.count(RequestKind::LinkReferrer), manifests - 1, "{attach_index}");
    }
}

#[tokio::test]
async fn a_dry_run_sends_nothing_and_prints_the_digest() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let dry = push(&fixture, &Pushing { dry_run: true, ..source.pushing(FILES, &["."]) }).await.unwrap();
    assert!(fixture.tagged("v1").is_none() && fixture.registry.held("app").is_empty());
    assert_eq!(pushed(&fixture, &source.pushing(FILES, &["."])).await.0, dry.manifest.digest);
}

#[tokio::test]
async fn a_file_that_vanishes_during_a_push_fails_it_and_moves_no_tag() {
    let (fixture, source) = (PublishFixture::new(), sample());
    let gone = source.path("big");
    let listener: crate::publish::Listener = Arc::new(move |_| drop(fs::remove_file(&gone)));
    let error = fixture.publisher.push(&source.pushing(FILES, &["big"]), &listener).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert!(error.message.contains("big") && fixture.tagged("v1").is_none());
    assert!(Path::new(&source.path("a.txt")).exists());
}
