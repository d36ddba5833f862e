//! Other tools use `ocifs serve`: they pull through it and push to it, and what they pulled they pull again when the upstream is gone.

use super::interop::client;
use super::serving::Running;
use super::support::artifacts::{Draft, LAYER, gzip, noise, tar, zstandard};
use super::support::commands::prints;
use super::support::layouts::Layout;
use super::support::mounting::Home;
use super::support::registry::Registry;
use super::support::shell::Shell;
use super::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

/// An upstream with the image of a fixture as `app:v1`, and a server in front of it that also has a store.
struct Scene {
    upstream: Registry,
    server: Running,
    shell: Shell,
    home: Home,
}

impl Scene {
    fn new() -> Self {
        let (home, upstream, shell) = (Home::new(), Registry::plain(), Shell::new());
        upstream.writing(|url| Layout::fixture("image-buildah").push(url, "app"));
        let prefix = format!("up={}", upstream.host());
        let store = home.path("store");
        // A short life of tags makes every pull ask the upstream.
        let arguments = ["--listen", "127.0.0.1:0", "--tag-ttl", "0s", "--upstream", &prefix, "--store", store.to_str().unwrap()];
        let server = Running::start(&home, &arguments);
        Self { upstream, server, shell, home }
    }

    /// Address and port of the server.
    fn host(&self) -> &str {
        self.server.base().strip_prefix("http://").unwrap()
    }

    /// Runs a script with the hosts of both.
    fn run(&self, script: &str) -> String {
        self.shell.run(script, &[("S", self.host()), ("UPSTREAM", &self.upstream.host())])
    }

    /// Runs a script that pulls, and again without the upstream. Returns what both printed.
    fn run_twice(&mut self, script: &str) -> String {
        let first = self.run(script);
        self.upstream.stop();
        assert_eq!(self.run(script), first);
        first
    }
}

/// The tag of the fixture that the tests pull.
const TAG: &str = "gzip";

#[test]
fn skopeo_pulls_through_the_server_and_pushes_to_it() {
    if lacks(&NEEDS) || lacks(&[Need::Tool("skopeo")]) {
        return;
    }
    let mut scene = Scene::new();
    let pull = format!(
        "rm -rf pulled; skopeo copy -q --preserve-digests --src-tls-verify=false docker://$S/up/app:{TAG} oci:pulled:v1
        skopeo inspect --raw oci:pulled:v1 | sha256sum"
    );
    let pulled = scene.run_twice(&pull);
    let push = "skopeo copy -q --preserve-digests --dest-tls-verify=false oci:pulled:v1 docker://$S/mine/app:v1
        skopeo inspect --raw --tls-verify=false docker://$S/mine/app:v1 | sha256sum
        skopeo list-tags --tls-verify=false docker://$S/mine/app | jq -c .Tags
        skopeo delete --tls-verify=false docker://$S/mine/app:v1
        skopeo inspect --raw --tls-verify=false docker://$S/mine/app:v1 >/dev/null 2>&1 || echo gone";
    assert_eq!(scene.run(push), format!("{pulled}[\"v1\"]\ngone\n"));
}

/// Runs podman with storage of its own.
const PODMAN: &str = r#"pod() { podman --root $PWD/root --runroot $PWD/runroot --storage-driver vfs --tmpdir $PWD/tmp "$@"; }
"#;

#[test]
fn podman_uses_the_server_as_a_mirror_and_pushes_to_it() {
    if lacks(&NEEDS) || lacks(&[Need::Root, Need::Tool("podman")]) {
        return;
    }
    let mut scene = Scene::new();
    let mirror = "cat >registries.conf <<EOF
[[registry]]
location = \"$UPSTREAM\"
insecure = true
[[registry.mirror]]
location = \"$S/up\"
insecure = true
EOF";
    scene.run(mirror);
    let pull = format!(
        "{PODMAN}export CONTAINERS_REGISTRIES_CONF=$PWD/registries.conf
        pod pull -q $UPSTREAM/app:{TAG}; pod image inspect $UPSTREAM/app:{TAG} | jq -r '.[0].RootFS.Layers[]'; pod rmi -a -f >/dev/null"
    );
    let layers = scene.run_twice(&pull);
    assert!(layers.lines().filter(|line| line.starts_with("sha256:")).count() > 0, "{layers}");
    let push = format!(
        "{PODMAN}pod pull -q --tls-verify=false $S/up/app:{TAG} >/dev/null
        pod push -q --tls-verify=false $S/up/app:{TAG} $S/mine/app:v1; pod rmi -a -f >/dev/null
        pod pull -q --tls-verify=false $S/mine/app:v1 >/dev/null; pod image inspect $S/mine/app:v1 | jq -r '.[0].RootFS.Layers[]'"
    );
    let pushed = scene.run(&push);
    assert!(layers.ends_with(&pushed) && !pushed.is_empty(), "{layers}\n{pushed}");
}

#[test]
fn umoci_unpacks_what_came_through_the_server_and_its_layers_are_pushed_to_it() {
    if lacks(&NEEDS) || lacks(&[Need::Root, Need::Tool("skopeo"), Need::Tool("umoci")]) {
        return;
    }
    let scene = Scene::new();
    let edit = format!(
        "skopeo copy -q --src-tls-verify=false docker://$S/up/app:{TAG} oci:image:v1
        umoci unpack --image image:v1 bundle 2>/dev/null; echo new >bundle/rootfs/added
        umoci repack --image image:v2 bundle 2>/dev/null
        skopeo copy -q --dest-tls-verify=false oci:image:v2 docker://$S/mine/app:v2
        rm -rf image bundle; skopeo copy -q --src-tls-verify=false docker://$S/mine/app:v2 oci:image:v2
        umoci unpack --image image:v2 bundle 2>/dev/null; cat bundle/rootfs/added"
    );
    assert_eq!(scene.run(&edit), "new\n");
}

#[test]
fn the_oras_library_and_an_independent_client_use_the_server() {
    if lacks(&NEEDS) || lacks(&[Need::Tool("interop")]) {
        return;
    }
    let mut scene = Scene::new();
    let upload = "mkdir -p files/sub; echo one >files/one; echo two >files/sub/two; head -c 3000000 /dev/urandom >files/large
        interop push --plain-http $UPSTREAM/files:v1 files; interop push --plain-http $S/mine/files:v1 files";
    let digests = scene.run(upload);
    let (first, second) = digests.trim().split_once('\n').unwrap();
    let pull = "rm -rf pulled; mkdir pulled; interop pull --plain-http $S/up/files:v1 pulled; diff -r files pulled";
    assert_eq!(scene.run_twice(pull).trim(), first);
    assert_eq!(scene.run("rm -rf pulled; interop pull --plain-http $S/mine/files:v1 pulled; diff -r files pulled").trim(), second);
    for (repository, digest) in [("up/files", first), ("mine/files", second)] {
        let read = client::read(scene.host(), repository, "v1");
        assert_eq!((read.digest.as_str(), read.blobs), (digest, 4), "{repository}");
    }
}

#[test]
fn a_mount_reads_through_the_server_and_publishes_to_it() {
    if lacks(&NEEDS) || lacks(&[Need::Fuse]) {
        return;
    }
    let mut scene = Scene::new();
    let user = Home::new();
    let list = |home: &Home, source: &str| {
        let mount = home.mount(source, &[]);
        let listed = scene.shell.at(&mount.path(TAG), "cd $M; find . -type f -print0 | sort -z | xargs -0 sha256sum");
        mount.unmount();
        listed
    };
    let source = format!("{}/up/app", scene.host());
    let first = list(&user, &source);
    assert!(!first.is_empty());
    let mount = user.mount(&format!("{}/mine", scene.host()), &[]);
    mount.write("app/v1/file", b"mine\n");
    assert!(mount.sync(&[]).contains("published"));
    mount.unmount();
    assert_eq!(prints(&user, &["pull", "-q", "-o", "-", &format!("{}/mine/app:v1", scene.host()), "--path", "file"]), "mine\n");
    scene.upstream.stop();
    // A fresh user has no cache of his own.
    assert_eq!(list(&Home::new(), &source), first);
    assert!(scene.home.path("cache").exists());
}

#[test]
fn a_mount_with_the_cache_of_the_server_reads_what_clients_pulled_without_the_upstream() {
    if lacks(&NEEDS) || lacks(&[Need::Fuse]) {
        return;
    }
    let (home, mut upstream, shell) = (Home::new(), Registry::plain(), Shell::new());
    let big = noise(7, 3 << 20);
    let archive = tar(&[("big", &big), ("small", b"packed\n")]);
    let mut draft = Draft::new();
    for (tag, packed, suffix) in [("gzip", gzip(&archive), "+gzip"), ("zstd", zstandard(&archive), "+zstd"), ("tar", archive, "")] {
        let layer = draft.blob(&format!("{LAYER}{suffix}"), &packed);
        draft.image(tag, &[layer]);
    }
    draft.layout().push(&upstream.url(), "team/app");
    let (prefix, cache) = (format!("up={}", upstream.host()), home.path("cache"));
    let flags = ["--listen", "127.0.0.1:0", "--upstream", &prefix, "--cache-dir", cache.to_str().unwrap()];
    let server = Running::start(&home, &flags);
    let pull = "for tag in gzip zstd tar; do
        curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' $S/v2/up/team/app/manifests/$tag >manifest
        for digest in $(jq -r '.config.digest, .layers[].digest' manifest); do
            [ $(curl -fsS $S/v2/up/team/app/blobs/$digest | sha256sum | cut -c1-64) = ${digest#sha256:} ] || echo wrong
        done
    done";
    assert_eq!(shell.run(pull, &[("S", server.base())]), "");
    upstream.stop();
    server.ends_well();
    let mount = home.mount(&format!("{}/team", upstream.host()), &["--offline"]);
    for tag in ["gzip", "zstd", "tar"] {
        assert!(mount.cat(&format!("app/{tag}/big")).unwrap() == big, "{tag}");
        assert_eq!(mount.cat(&format!("app/{tag}/small")).unwrap(), b"packed\n");
    }
    mount.unmount();
}
