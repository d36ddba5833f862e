//! The order in which files are opened: remembered, followed at the next mount, and published for others.

use serde_json::Value;

use crate::support::artifacts::{Draft, digest, noise};
use crate::support::commands::{fails, json, prints};
use crate::support::mounting::{Home, Mount};
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
/// Files fetched ahead after the first open: a mebibyte, in which each small blob counts 64 KiB.
const FIRST: usize = 16;

/// Forty files, each a blob of its own, in an order in which nobody walks.
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn new() -> Self {
        Self((0..40).rev().map(|number| (format!("f{number:02}"), noise(100 + number, 2048))).collect())
    }

    /// A registry with them as `team/app:v1`.
    fn published(&self) -> Registry {
        let registry = Registry::plain();
        let mut draft = Draft::new();
        draft.files("v1", &self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>());
        draft.layout().push(&registry.url(), "team/app");
        registry
    }

    fn read(&self, mount: &Mount<'_>, places: std::ops::Range<usize>) {
        for (name, bytes) in &self.0[places] {
            assert!(mount.cat(name).unwrap() == *bytes, "wrong bytes of {name}");
        }
    }

    fn requested(&self, proxy: &Proxy) -> usize {
        self.0.iter().map(|(_, bytes)| proxy.count("GET", &digest(bytes))).sum()
    }

    fn wait_for(&self, proxy: &Proxy, places: std::ops::Range<usize>) {
        self.0[places].iter().for_each(|(_, bytes)| proxy.wait_for("GET", &digest(bytes)));
    }

    /// Opens the first file, and the others once they were fetched ahead: no reader but the first waits for a request of its own.
    fn follow(&self, mount: &Mount<'_>, proxy: &Proxy) {
        self.read(mount, 0..1);
        self.wait_for(proxy, 1..FIRST + 1);
        assert_eq!(self.requested(proxy), FIRST + 1, "more than the first window");
        // Half of it.
        self.read(mount, 1..FIRST / 2 + 1);
        self.wait_for(proxy, FIRST + 1..self.0.len());
        self.read(mount, 0..self.0.len());
        assert_eq!(self.requested(proxy), self.0.len(), "each once: {:?}", proxy.requests());
    }
}

/// Opens the first files in a mount that then ends, and loses the content: only the order is left of it.
fn leave_order(files: &Files, home: &Home, proxy: &Proxy, reference: &str, flags: &[&str]) {
    let mount = home.mount(reference, flags);
    files.read(&mount, 0..40);
    mount.unmount();
    lose_content(home);
    proxy.forget();
}

/// As an eviction of all content does.
fn lose_content(home: &Home) {
    std::fs::remove_dir_all(home.path("cache/v2/streams")).unwrap();
}

#[test]
fn files_are_fetched_in_the_order_in_which_an_earlier_mount_opened_them() {
    if lacks(&NEEDS) {
        return;
    }
    let files = Files::new();
    let registry = files.published();
    let (proxy, home) = (Proxy::start(registry.url()), Home::new());
    let reference = format!("{}/team/app:v1", proxy.host());
    for (first, second) in [(&[][..], &["--read-only"][..]), (&["--read-only"], &[])] {
        leave_order(&files, &home, &proxy, &reference, first);
        let mount = home.mount(&reference, second);
        files.follow(&mount, &proxy);
        mount.unmount();
        prints(&home, &["cache", "clear", "--cache-dir", home.path("cache").to_str().unwrap()]);
    }
}

#[test]
fn nothing_is_fetched_in_order_offline_or_if_that_is_not_wanted() {
    if lacks(&NEEDS) {
        return;
    }
    let files = Files::new();
    let registry = files.published();
    let (proxy, home) = (Proxy::start(registry.url()), Home::new());
    let reference = format!("{}/team/app:v1", proxy.host());
    for (first, second) in [(&[][..], &["--no-access-order"][..]), (&["--no-access-order"], &[])] {
        leave_order(&files, &home, &proxy, &reference, first);
        let mount = home.mount(&reference, second);
        files.read(&mount, 0..20);
        assert_eq!(files.requested(&proxy), 20);
        mount.unmount();
        prints(&home, &["cache", "clear", "--cache-dir", home.path("cache").to_str().unwrap()]);
    }
    leave_order(&files, &home, &proxy, &reference, &[]);
    let mount = home.mount(&reference, &["--offline"]);
    assert!(mount.cat("f39").is_err());
    mount.unmount();
    assert_eq!(proxy.requests(), []);
}

#[test]
fn a_published_order_is_followed_by_a_mount_that_has_none() {
    if lacks(&NEEDS) {
        return;
    }
    let files = Files::new();
    let registry = files.published();
    let (proxy, home) = (Proxy::start(registry.url()), Home::new());
    let reference = format!("{}/team/app:v1", proxy.host());
    let cache = home.path("cache");
    let cache = ["--cache-dir", cache.to_str().unwrap()];
    let run = |arguments: &[&str]| json(&home, &[arguments, &cache].concat());
    fails(&home, &[&["index", "push", &reference, "--access-order"], &cache[..]].concat(), 10, "no access order");
    assert_eq!(run(&["index", "show", &reference])["access_order"], Value::Null);
    let mount = home.mount(&reference, &[]);
    files.read(&mount, 0..40);
    mount.unmount();
    let pushed = run(&["index", "push", &reference, "--access-order"]);
    assert_eq!((&pushed["access_order"]["files"], &pushed["layers"]), (&40.into(), &Value::Array(Vec::new())));
    assert_eq!(run(&["index", "push", &reference, "--access-order"])["digest"], pushed["digest"], "the same order is the same referrer");
    let file = home.path("order");
    let built = run(&["index", "build", &reference, "--access-order", "--output-file", file.to_str().unwrap()]);
    assert_eq!(built["access_order"], pushed["access_order"]);
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"ocifs access order 1\nf39\0f38\0"));
    assert_eq!(run(&["index", "show", file.to_str().unwrap()])["access_order"]["files"], 40);

    let other = Home::new();
    let shown = json(&other, &["index", "show", &reference]);
    assert_eq!((&shown["access_order"]["from"], &shown["access_order"]["files"]), (&"referrer".into(), &40.into()));
    let mount = other.mount(&reference, &["--read-only"]);
    proxy.forget();
    files.follow(&mount, &proxy);
    mount.unmount();
}
