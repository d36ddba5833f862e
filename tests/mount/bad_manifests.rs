//! Untrustworthy manifests: EBADMSG for the tag, readable neighbours, and a clear message from the command that names it.

use crate::support::artifacts::{CONFIG, Draft, LAYER, MANIFEST, tar};
use crate::support::mounting::{Home, Mount};
use crate::support::proxy::{Fault, Proxy};
use crate::support::refusal::{refused, refused_with};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const EBADMSG: i32 = 74;
const EOPNOTSUPP: i32 = 95;

/// Malformed manifests, each with a word its error must contain. The good one is the basis of some.
fn hostile(good: &Value) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.to_string().into_bytes()
    };
    let layer_digest = |digest: &str| with(&|manifest| manifest["layers"][0]["digest"] = json!(digest));
    let upper = format!("sha256:{}", "AB".repeat(32));
    vec![
        ("html", b"<html>\x1b[2Jlogin here</html>".to_vec(), "not valid"),
        ("cut", good.to_string().into_bytes()[..40].to_vec(), "not valid"),
        ("empty", Vec::new(), "not valid"),
        ("list", b"[1, 2]".to_vec(), "not a JSON object"),
        ("deep", "[".repeat(100_000).into_bytes(), "not valid"),
        ("both", with(&|manifest| manifest["manifests"] = json!([])), "both an image and an index"),
        ("neither", b"{\"schemaVersion\": 2}".to_vec(), "unknown media type"),
        ("schema1", br#"{"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": []}"#.to_vec(), "Docker schema 1"),
        ("unknown", with(&|manifest| manifest["mediaType"] = json!("application/x\u{1b}]0;evil")), "unknown media type"),
        ("large", with(&|manifest| manifest["annotations"] = json!({ "padding": "x".repeat(5 << 20) })), "larger than 4 MiB"),
        ("climbing", layer_digest("sha256:../../x"), "not a digest"),
        ("upper", layer_digest(&upper), "not a digest"),
        ("md5", layer_digest("md5:d41d8cd98f00b204e9800998ecf8427e"), "not a digest"),
        ("negative", with(&|manifest| manifest["layers"][0]["size"] = json!(-1)), "not valid"),
        ("huge", with(&|manifest| manifest["layers"][0]["size"] = json!(1e30)), "not valid"),
        ("text-size", with(&|manifest| manifest["layers"][0]["size"] = json!("12")), "not valid"),
        (
            "no-config",
            with(&|manifest| {
                manifest.as_object_mut().unwrap().remove("config");
            }),
            "not valid",
        ),
    ]
}

/// The errno of reading one of them: one is known but unsupported.
fn errno(name: &str) -> i32 {
    if name == "schema1" { EOPNOTSUPP } else { EBADMSG }
}

/// A manifest of files.
fn example() -> Value {
    let mut draft = Draft::new();
    draft.files("good", &[("file", b"content\n")]);
    draft.layout().manifest("good")
}

/// A good manifest as tag `good`, and the same under each of the names, so that a registry lists them.
fn repository(registry: &Registry, names: &[&str]) -> Value {
    let mut draft = Draft::new();
    draft.files("good", &[("file", b"content\n")]);
    let manifest = draft.layout().manifest("good");
    for name in names {
        draft.tag(name, &manifest);
    }
    draft.layout().push(&registry.url(), "app");
    manifest
}

fn digest_of(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The proxy answers requests for this tag, and for the digest of the body, with the body.
fn answer(proxy: &Proxy, name: &str, media_type: &str, body: &[u8]) {
    for path in [format!("manifests/{name}"), format!("manifests/sha256:{}", digest_of(body))] {
        proxy.spoil(&path, usize::MAX, Fault::Answer(media_type.to_owned(), body.to_vec().into()));
    }
}

#[track_caller]
fn good_is_readable(mount: &Mount<'_>, folder: &str) {
    assert_eq!(mount.cat(&format!("{folder}good/file")).unwrap(), b"content\n");
}

#[test]
fn a_malformed_manifest_is_ebadmsg_and_hides_no_neighbour() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let names: Vec<&str> = hostile(&example()).iter().map(|(name, ..)| *name).collect();
    let good = repository(&registry, &names);
    let proxy = Proxy::start(registry.url());
    for (name, body, _) in hostile(&good) {
        answer(&proxy, name, MANIFEST, &body);
    }
    let home = Home::new();
    let mount = home.mount(&proxy.host(), &[]);
    let listed = mount.ls("app").unwrap();
    assert_eq!(listed.len(), names.len() + 1, "{listed:?}");
    for (name, body, reason) in hostile(&good) {
        let error = mount.ls(&format!("app/{name}")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno(name)), "{name}: {error}");
        let error = std::fs::metadata(mount.path(format!("app/@sha256-{}/file", digest_of(&body)))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno(name)), "{name} by digest: {error}");
        good_is_readable(&mount, "app/");
        let log = mount.log();
        let told =
            log.lines().any(|line| line.contains(reason) && (line.contains(&digest_of(&body)) || line.contains(&format!("app:{name}"))));
        assert!(told, "{name}: the log does not say `{reason}`:\n{log}");
    }
    assert_eq!(mount.ls("app").unwrap(), listed);
    assert!(!mount.log().contains('\x1b') && !mount.log().contains("panick"), "{}", mount.log());
    // `ls -l` of them all succeeds, since nothing is requested.
    let output = std::process::Command::new("ls").arg("-l").arg(mount.path("app")).output().unwrap();
    assert!(output.status.success());
    mount.unmount();
    for (name, _, reason) in hostile(&good) {
        let source = format!("{}/app:{name}", proxy.host());
        refused_with(&home.run(&["inspect", &source]), 1, &[reason]);
        refused_with(&home.try_mount(&source, &[]).err().unwrap_or_else(|| panic!("{name} mounts")), 1, &[reason]);
    }
    // Once repaired upstream, each of them is readable: nothing bad was cached.
    proxy.mend();
    let mount = home.mount(&proxy.host(), &[]);
    for name in names {
        assert_eq!(mount.cat(&format!("app/{name}/file")).unwrap(), b"content\n", "{name}");
    }
    mount.unmount();
}

#[test]
fn response_headers_must_agree_with_the_manifest_s_bytes() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let good = repository(&registry, &["index", "other"]);
    let proxy = Proxy::start(registry.url());
    // An image labelled as an index, and a body with one flipped bit under the right digest.
    answer(&proxy, "index", "application/vnd.oci.image.index.v1+json", &good.to_string().into_bytes());
    let home = Home::new();
    let mount = home.mount(&format!("{}/app", proxy.host()), &[]);
    assert_eq!(mount.ls("index").unwrap_err().raw_os_error(), Some(EBADMSG));
    proxy.mend();
    proxy.spoil("manifests/other", usize::MAX, Fault::Flip(30));
    proxy.spoil("manifests/sha256", usize::MAX, Fault::Flip(30));
    assert_eq!(mount.ls("other").unwrap_err().raw_os_error(), Some(EBADMSG));
    proxy.mend();
    good_is_readable(&mount, "");
    assert_eq!(mount.ls("other").unwrap(), ["file"]);
    mount.unmount();
}

#[test]
fn broken_manifests_of_a_layout_hide_no_neighbour() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    draft.files("good", &[("file", b"content\n")]);
    let good = draft.layout().manifest("good");
    let all = hostile(&good);
    let mut entries = draft.layout().entries();
    for (name, body, _) in &all {
        let mut entry = draft.blob(MANIFEST, body);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        entries.push(entry);
    }
    // Malformed entries, a missing one, one of another length, one with other bytes.
    entries.push(json!({ "digest": "sha256:../../x", "size": 1, "mediaType": MANIFEST }));
    entries.push(json!(7));
    let named = |name: &str, hex: &str, size: usize| json!({ "mediaType": MANIFEST, "digest": format!("sha256:{hex}"), "size": size, "annotations": { "org.opencontainers.image.ref.name": name } });
    entries.push(named("missing", &"a".repeat(64), 10));
    entries.push(named("flipped", &"b".repeat(64), good.to_string().len()));
    std::fs::write(draft.path().join("blobs/sha256").join("b".repeat(64)), good.to_string()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", draft.path().join("blobs/sha256").join("c".repeat(64))).unwrap();
    entries.push(named("outside", &"c".repeat(64), 10));
    std::fs::write(draft.path().join("index.json"), json!({ "schemaVersion": 2, "manifests": entries }).to_string()).unwrap();
    let home = Home::new();
    let source = format!("oci:{}", draft.path().display());
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.ls("").unwrap().len(), all.len() + 4);
    for name in all.iter().map(|(name, ..)| *name).chain(["flipped"]) {
        assert_eq!(mount.ls(name).unwrap_err().raw_os_error(), Some(errno(name)), "{name}");
        good_is_readable(&mount, "");
    }
    for name in ["missing", "outside"] {
        let error = mount.ls(name).unwrap_err();
        assert!(error.raw_os_error() != Some(0) && mount.log().lines().any(|line| line.contains("sha256:")), "{name}: {error}");
        good_is_readable(&mount, "");
    }
    mount.unmount();
    let sound = |entry: &Value| entry.get("annotations").is_some();
    entries.retain(sound);
    std::fs::write(draft.path().join("index.json"), json!({ "schemaVersion": 2, "manifests": entries }).to_string()).unwrap();
    for (name, ..) in all {
        refused(&home.run(&["inspect", &format!("{source}:{name}")]), 1);
    }
}

#[test]
fn an_index_with_bad_members_shows_the_good_one() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    let layer = draft.blob(LAYER, &tar(&[("file", b"content\n")]));
    draft.image("image", &[layer]);
    let image = draft.layout().entries()[0].clone();
    let member = |digest: &str, os: &str| json!({ "mediaType": MANIFEST, "digest": digest, "size": image["size"], "platform": { "os": os, "architecture": "amd64" } });
    let missing = format!("sha256:{}", "d".repeat(64));
    let config = draft.blob(CONFIG, b"{}");
    let index =
        |members: Value| json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": members });
    let (broken, nothing) = (member("md5:d41d8cd98f00b204e9800998ecf8427e", "linux"), json!(7));
    draft.tag("fits", &index(json!([broken, nothing, member(&missing, "windows"), member(image["digest"].as_str().unwrap(), "linux")])));
    // The platform's member is missing, is not a manifest, or is the index itself.
    draft.tag("gone", &index(json!([member(&missing, "linux")])));
    draft.tag("config", &index(json!([member(config["digest"].as_str().unwrap(), "linux")])));
    draft.tag("none", &index(json!([])));
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", draft.path().display()), &["--platform", "linux/amd64"]);
    assert_eq!(mount.cat("fits/file").unwrap(), b"content\n");
    assert_eq!(mount.ls("gone").unwrap_err().raw_os_error(), Some(116), "ESTALE: what the index names is gone");
    assert_eq!(mount.ls("config").unwrap_err().raw_os_error(), Some(EBADMSG));
    assert_eq!(mount.ls("none").unwrap(), Vec::<String>::new());
    assert_eq!(mount.cat("image/file").unwrap(), b"content\n");
    mount.unmount();
}

#[test]
fn nested_indexes_and_thousands_of_layers_hit_a_limit() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut draft = Draft::new();
    let layer = draft.blob(LAYER, &tar(&[("file", b"content\n")]));
    draft.image("image", std::slice::from_ref(&layer));
    let mut inner = draft.layout().entries()[0].clone();
    inner.as_object_mut().unwrap().remove("annotations");
    for depth in 0..300 {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] });
        inner = draft.blob(INDEX, index.to_string().as_bytes());
        if depth == 299 {
            draft.tag("deep", &index);
        }
    }
    draft.image("same-layer", &vec![layer; 5000]);
    let titled = |number: u32| {
        let mut layer = draft.blob("application/octet-stream", b"same");
        layer["annotations"] = json!({ "org.opencontainers.image.title": format!("f{number}") });
        layer
    };
    let layers: Vec<Value> = (0..5000).map(titled).collect();
    let config = draft.blob("application/vnd.oci.empty.v1+json", b"{}");
    draft.tag("many", &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }));
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", draft.path().display()), &["--platform", "linux/amd64"]);
    let ((), peak) = mount.peak_of(|| {
        // However deep, it is either shown or refused, and its neighbours are present.
        match mount.ls("deep") {
            Ok(names) => assert!(!names.is_empty()),
            Err(error) => assert!([Some(EBADMSG), Some(95)].contains(&error.raw_os_error()), "{error}"),
        }
        match mount.cat("same-layer/file") {
            Ok(content) => assert_eq!(content, b"content\n"),
            Err(error) => assert!([Some(EBADMSG), Some(95)].contains(&error.raw_os_error()), "{error}"),
        }
        assert_eq!(mount.ls("many").unwrap().len(), 5000);
        assert_eq!(mount.cat("many/f4999").unwrap(), b"same");
        assert_eq!(mount.cat("image/file").unwrap(), b"content\n");
    });
    assert!(peak < 128 << 20, "{peak} bytes");
    mount.unmount();
}
