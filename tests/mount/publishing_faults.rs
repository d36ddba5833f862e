//! Registries that refuse, fail or change during a publish: a clear message and exit code, no lost edit, and success with a later sync.

use crate::support::artifacts::{Draft, noise};
use crate::support::mounting::{Home, Mount, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{Registry, Variant};
use crate::support::skip::{Need, lacks};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Command, Output};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// A registry with `team/app:v1` (`one`, `two`, `three`), a proxy in front of it, and a second writer.
pub struct ProxiedRegistry {
    pub registry: Registry,
    pub proxy: Proxy,
    pub home: Home,
}

impl ProxiedRegistry {
    pub fn new() -> Self {
        Self::of(Variant::default())
    }

    fn of(variant: Variant) -> Self {
        let registry = Registry::start(variant);
        registry.writing(|url| artifact(&[("one", b"1\n"), ("two", b"2\n"), ("three", b"3\n")]).layout().push(url, "team/app"));
        let proxy = Proxy::start(registry.url());
        Self { registry, proxy, home: Home::new() }
    }

    pub fn mount(&self, flags: &[&str]) -> Mount<'_> {
        self.home.mount(&format!("{}/team", self.proxy.host()), flags)
    }

    /// Mounts and edits: a file of v1, and a new tag.
    pub fn edited(&self, flags: &[&str]) -> Mount<'_> {
        let mount = self.mount(flags);
        mount.write("app/v1/one", "edited\n");
        mount.write("app/v2/sub/new", "new\n");
        mount
    }

    /// A file as read by another user directly from the registry.
    pub fn upstream(&self, name: &str) -> Option<Vec<u8>> {
        let home = Home::new();
        let mount = home.mount(&format!("{}/team", self.registry.host()), &["--read-only"]);
        let bytes = mount.cat(name);
        mount.unmount();
        match bytes {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// The digest of a tag.
    pub fn digest(&self, tag: &str) -> Option<String> {
        let url = format!("{}/v2/team/app/manifests/{tag}", self.registry.url());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        crate::support::runtime().block_on(async {
            let answer = client.head(url).header("accept", crate::support::artifacts::MANIFEST).send().await.unwrap();
            answer.status().is_success().then(|| answer.headers()["docker-content-digest"].to_str().unwrap().to_owned())
        })
    }

    /// Publishes this as a tag, as another writer.
    fn somebody_pushes(&self, tag: &str, files: &[(&str, &[u8])]) {
        let mut draft = Draft::new();
        draft.files(tag, files);
        draft.layout().push(&self.registry.url(), "team/app");
    }
}

fn artifact(files: &[(&str, &[u8])]) -> Draft {
    let mut draft = Draft::new();
    draft.files("v1", files);
    draft
}

/// The edits of [`ProxiedRegistry::edited`] are read through the mount.
#[track_caller]
pub fn shows_edits(mount: &Mount) {
    assert_eq!(mount.cat("app/v1/one").unwrap(), b"edited\n");
    assert_eq!(mount.cat("app/v2/sub/new").unwrap(), b"new\n");
}

/// The edits of [`ProxiedRegistry::edited`] are in the mount and in the next one, and are published once the registry takes them.
#[track_caller]
pub fn nothing_is_lost(proxied: &ProxiedRegistry, mount: Mount) {
    shows_edits(&mount);
    mount.leave();
    let again = proxied.mount(&[]);
    shows_edits(&again);
    again.sync(&[]);
    again.unmount();
    assert_eq!(proxied.upstream("app/v1/one").as_deref(), Some(&b"edited\n"[..]));
    assert_eq!(proxied.upstream("app/v2/sub/new").as_deref(), Some(&b"new\n"[..]));
}

/// A sync that fails: the exit code, words of one of the lines, and one line per reason.
#[track_caller]
pub fn fails(mount: &Mount, flags: &[&str], code: i32, words: &[&str]) -> String {
    let output = mount.run("sync", flags);
    told(&output, code, words)
}

#[track_caller]
pub fn told(output: &Output, code: i32, words: &[&str]) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(said.lines().all(|line| line.starts_with("ocifs: ") && !line.contains("panicked")), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing: {said}");
    }
    said
}

#[test]
fn a_read_only_registry_refuses_and_edits_stay_staged() {
    if lacks(&NEEDS) {
        return;
    }
    let mut proxied = ProxiedRegistry::of(Variant { read_only: true, ..Variant::default() });
    let mount = proxied.edited(&[]);
    fails(&mount, &[], 1, &["app:v1", "app:v2", "2 of 2 tags were not published"]);
    shows_edits(&mount);
    mount.leave();
    proxied.registry.become_variant(Variant::default());
    nothing_is_lost(&proxied, proxied.mount(&[]));
}

#[test]
fn a_denied_push_is_reported_and_succeeds_once_allowed() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::of(Variant { tokens: true, ..Variant::default() });
    proxied.registry.tokens().set_anonymous(true);
    let mount = proxied.home.mount(&format!("{}/team/app", proxied.registry.host()), &[]);
    mount.write("v1/one", "edited\n");
    fails(&mount, &[], 11, &["app:v1"]);
    assert_eq!(mount.cat("v1/one").unwrap(), b"edited\n");
    proxied.registry.tokens().set_pushes(true);
    mount.sync(&[]);
    mount.unmount();
}

/// Refusals of a push by the registry: method, part of the path, response, exit code, words.
const REFUSALS: [(&str, &str, u16, &str, i32, &str); 7] = [
    ("POST", "/blobs/uploads/", 401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}"#, 11, "app:v1"),
    ("POST", "/blobs/uploads/", 403, r#"{"errors":[{"code":"DENIED","message":"no push here"}]}"#, 11, "no push here"),
    ("PUT", "/manifests/", 403, r#"{"errors":[{"code":"DENIED","message":"tags are immutable"}]}"#, 11, "tags are immutable"),
    ("PUT", "/blobs/", 413, "", 1, "413"),
    ("PUT", "/manifests/", 413, "", 1, "413"),
    ("PUT", "/manifests/", 403, r#"{"errors":[{"code":"DENIED","message":"storage quota exceeded"}]}"#, 1, "quota"),
    ("PUT", "/manifests/", 400, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no \u001b[2J artifacts"}]}"#, 1, "artifacts"),
];

#[test]
fn every_refusal_has_its_exit_code_and_message_and_loses_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&[]);
    for (method, path, status, body, code, word) in REFUSALS {
        proxied.proxy.spoil_method(method, path, 1000, Fault::Refuse(status, body));
        // A blob that arrived in an earlier round is not sent again.
        let content = format!("{method} {path} {status} {body}");
        mount.write("app/v1/one", &content);
        mount.write("app/v2/sub/new", &content);
        fails(&mount, &[], code, &["app:v1", "app:v2", word]);
        proxied.proxy.mend();
        assert_eq!(mount.cat("app/v1/one").unwrap(), content.as_bytes());
        assert_eq!(mount.cat("app/v2/sub/new").unwrap(), content.as_bytes());
    }
    mount.write("app/v1/one", "edited\n");
    mount.write("app/v2/sub/new", "new\n");
    nothing_is_lost(&proxied, mount);
}

#[test]
fn a_lost_upload_session_restarts() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&[]);
    const UNKNOWN: &str = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}"#;
    mount.write("app/v2/big", noise(2, 12 << 20));
    proxied.proxy.spoil_method("PATCH", "/blobs/uploads/", 1, Fault::Refuse(404, UNKNOWN));
    mount.sync(&[]);
    // A session that accepts no chunk may mean the registry accepts none: the next one gets the blob in a single request.
    assert_eq!(proxied.proxy.count("PATCH", "/blobs/uploads/"), 1, "{:?}", proxied.proxy.requests());
    mount.write("app/v2/big", noise(3, 12 << 20));
    proxied.proxy.spoil_method("PUT", "/blobs/uploads/", 1, Fault::Refuse(404, UNKNOWN));
    mount.sync(&[]);
    nothing_is_lost(&proxied, mount);
}

#[test]
fn an_upload_session_lost_every_time_fails_without_loss() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&[]);
    proxied.proxy.spoil_method("PUT", "/blobs/uploads/", 1000, Fault::Status(404));
    fails(&mount, &[], 14, &["app:v1", "app:v2", "lost the upload"]);
    proxied.proxy.mend();
    nothing_is_lost(&proxied, mount);
}

#[test]
fn a_tag_put_with_a_lost_answer_is_checked_not_repeated() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&[]);
    proxied.proxy.spoil_method("PUT", "/manifests/v1", 1, Fault::LoseAnswer);
    mount.sync(&[]);
    assert_eq!(proxied.proxy.count("PUT", "/manifests/v1"), 1);
    nothing_is_lost(&proxied, mount);
}

/// v1 edited here after another writer has moved it; the two digests.
fn moved(proxied: &ProxiedRegistry) -> (Mount<'_>, String, String) {
    let mount = proxied.mount(&[]);
    mount.write("app/v1/one", "edited\n");
    let expected = proxied.digest("v1").unwrap();
    proxied.somebody_pushes("v1", &[("one", b"1\n"), ("two", b"theirs\n"), ("three", b"3\n")]);
    let now = proxied.digest("v1").unwrap();
    let said = fails(&mount, &[], 13, &[&expected, &now, "--as TAG", "--rebase", "--theirs", "--force"]);
    assert!(said.contains("app:v1"), "{said}");
    assert_eq!(proxied.digest("v1").as_ref(), Some(&now), "nothing is overwritten");
    assert_eq!(mount.cat("app/v1/one").unwrap(), b"edited\n");
    let umount = mount.run("umount", &[]);
    told(&umount, 16, &[&now, "stays mounted"]);
    assert!(String::from_utf8(mount.run("status", &[]).stdout).unwrap().contains("conflict"));
    (mount, expected, now)
}

/// `one` and `two` as another user sees them.
#[track_caller]
fn holds(proxied: &ProxiedRegistry, tag: &str, one: &str, two: &str) {
    assert_eq!(proxied.upstream(&format!("app/{tag}/one")).as_deref(), Some(one.as_bytes()));
    assert_eq!(proxied.upstream(&format!("app/{tag}/two")).as_deref(), Some(two.as_bytes()));
}

#[test]
fn edits_of_a_moved_tag_go_to_another_tag() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    proxied.somebody_pushes("taken", &[("x", b"x")]);
    let (mount, _, now) = moved(&proxied);
    let taken = proxied.digest("taken").unwrap();
    fails(&mount, &["--as", "taken"], 13, &[&taken]);
    assert_eq!(mount.cat("app/v1/one").unwrap(), b"edited\n");
    mount.sync(&["--as", "mine"]);
    assert_eq!(proxied.digest("v1"), Some(now));
    assert_eq!(mount.cat("app/mine/one").unwrap(), b"edited\n");
    mount.unmount();
    holds(&proxied, "mine", "edited\n", "2\n");
    holds(&proxied, "v1", "1\n", "theirs\n");
}

#[test]
fn edits_of_a_moved_tag_overwrite_it_with_force() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let (mount, ..) = moved(&proxied);
    mount.sync(&["--force"]);
    assert_eq!(mount.cat("app/v1/one").unwrap(), b"edited\n");
    mount.unmount();
    holds(&proxied, "v1", "edited\n", "2\n");
}

#[test]
fn edits_of_a_moved_tag_are_dropped_with_theirs() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let (mount, _, now) = moved(&proxied);
    mount.sync(&["--theirs"]);
    assert_eq!(mount.cat("app/v1/one").unwrap(), b"1\n");
    assert_eq!(mount.cat("app/v1/two").unwrap(), b"theirs\n");
    mount.unmount();
    assert_eq!(proxied.digest("v1"), Some(now));
}

#[test]
fn edits_of_a_moved_tag_are_applied_with_rebase() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let (mount, ..) = moved(&proxied);
    mount.sync(&["--rebase"]);
    assert_eq!(mount.cat("app/v1/one").unwrap(), b"edited\n");
    assert_eq!(mount.cat("app/v1/two").unwrap(), b"theirs\n");
    mount.unmount();
    holds(&proxied, "v1", "edited\n", "theirs\n");
}

#[test]
fn paths_changed_on_both_sides_are_not_rebased() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let (mount, ..) = moved(&proxied);
    mount.write("app/v1/two", "mine\n");
    fails(&mount, &["--rebase"], 13, &["two"]);
    assert_eq!(mount.cat("app/v1/two").unwrap(), b"mine\n");
    mount.sync(&["--force"]);
    mount.unmount();
    holds(&proxied, "v1", "edited\n", "mine\n");
}

#[test]
fn a_tag_that_lost_most_of_its_files_is_published_only_with_force() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let before = proxied.digest("v1").unwrap();
    let mount = proxied.mount(&[]);
    for names in [&["one", "two"][..], &["one", "two", "three"]] {
        for name in names {
            let _ = std::fs::remove_file(mount.path(format!("app/v1/{name}")));
        }
        fails(&mount, &[], 16, &["app:v1", "--force"]);
        assert_eq!(proxied.digest("v1").as_ref(), Some(&before));
        assert_eq!(mount.ls("app/v1").unwrap().len(), 3 - names.len());
    }
    mount.leave();
    let again = proxied.mount(&[]);
    assert_eq!(again.ls("app/v1").unwrap().len(), 0);
    again.sync(&["--force"]);
    again.unmount();
    assert_ne!(proxied.digest("v1"), Some(before));
    assert_eq!(proxied.upstream("app/v1/one"), None);
}

#[test]
fn a_tag_is_deleted_only_if_allowed_and_its_sibling_stays() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let same: [(&str, &[u8]); 3] = [("one", b"1\n"), ("two", b"2\n"), ("three", b"3\n")];
    proxied.somebody_pushes("sibling", &same);
    let digest = proxied.digest("v1").unwrap();
    assert_eq!(proxied.digest("sibling").as_ref(), Some(&digest), "one manifest, two tags");
    let remove = |mount: &Mount| {
        for (name, _) in same {
            std::fs::remove_file(mount.path(format!("app/v1/{name}"))).unwrap();
        }
        std::fs::remove_dir(mount.path("app/v1"))
    };
    let careful = proxied.mount(&[]);
    let refused = remove(&careful).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
    fails(&careful, &[], 16, &["app:v1"]);
    let discarded = careful.run("discard", &["--yes"]);
    assert!(discarded.status.success(), "{}", text(&discarded));
    std::fs::rename(careful.path("app/v1"), careful.path("app/renamed")).unwrap();
    careful.sync(&[]);
    assert_eq!(careful.ls("app").unwrap(), ["renamed", "sibling", "v1"], "the old name shows again");
    careful.unmount();
    assert_eq!(proxied.digest("v1").as_ref(), Some(&digest));
    assert_eq!(proxied.digest("renamed").as_ref(), Some(&digest));

    let bold = proxied.mount(&["--allow-delete"]);
    remove(&bold).unwrap();
    assert_eq!(bold.ls("app").unwrap(), ["renamed", "sibling"]);
    bold.sync(&[]);
    bold.unmount();
    assert_eq!(proxied.digest("v1"), None);
    for sibling in ["sibling", "renamed"] {
        assert_eq!(proxied.digest(sibling).as_ref(), Some(&digest), "{sibling}");
    }
    assert_eq!(proxied.upstream("app/sibling/two").as_deref(), Some(&b"2\n"[..]));
}

#[test]
fn files_written_during_syncs_are_complete_in_every_version() {
    if lacks(&NEEDS) {
        return;
    }
    use std::sync::atomic::{AtomicBool, Ordering};
    let proxied = ProxiedRegistry::new();
    let mount = proxied.mount(&[]);
    mount.write("app/live/steady", "steady\n");
    let stop = AtomicBool::new(false);
    let target = mount.path("app/live/counter");
    let fresh = mount.path("app/live/counter.new");
    let (mut syncs, mut versions) = (Vec::new(), Vec::new());
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0u64;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                std::fs::write(&fresh, version(round)).unwrap();
                std::fs::rename(&fresh, &target).unwrap();
            }
            round
        });
        for _ in 0..4 {
            syncs.push(mount.run("sync", &[]));
            versions.extend(proxied.digest("live"));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    for output in &syncs {
        assert!(output.status.success(), "{}", text(output));
    }
    mount.sync(&[]);
    mount.unmount();
    assert_eq!(proxied.upstream("app/live/counter").unwrap(), version(last));
    assert_eq!(proxied.upstream("app/live/steady").unwrap(), b"steady\n");
    for digest in versions {
        let Some(bytes) = proxied.upstream(&format!("app/@{}/counter", digest.replace(':', "-"))) else { continue };
        let text = String::from_utf8(bytes).unwrap();
        let round: u64 = text.lines().next().unwrap().parse().unwrap();
        assert_eq!(text, version_text(round), "{digest}");
    }
}

/// Many lines with the same number: a mixture of two versions is detected.
fn version_text(round: u64) -> String {
    format!("{round}\n").repeat(5000)
}

fn version(round: u64) -> Vec<u8> {
    version_text(round).into_bytes()
}

#[test]
fn two_mounts_of_one_tag_have_one_writer_whose_process_the_log_names() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let (first, second) = (proxied.mount(&[]), proxied.mount(&[]));
    first.write("app/v1/one", "edited\n");
    let busy = std::fs::write(second.path("app/v1/two"), "mine\n").unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(rustix::io::Errno::BUSY.raw_os_error()));
    let pid = first.daemon().as_raw_nonzero().to_string();
    assert!(second.log().contains(&pid), "{}", second.log());
    assert_eq!(second.cat("app/v1/one").unwrap(), b"1\n", "upstream shows there");
    second.write("app/other/file", "other\n");
    second.unmount();
    assert_eq!(first.cat("app/v1/one").unwrap(), b"edited\n");
    first.unmount();
    assert_eq!(proxied.upstream("app/v1/one").as_deref(), Some(&b"edited\n"[..]));
    assert_eq!(proxied.upstream("app/other/file").as_deref(), Some(&b"other\n"[..]));
}

#[test]
fn edits_a_daemon_could_not_push_at_exit_are_announced_by_the_next_mount() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&["--io-timeout", "2s"]);
    proxied.proxy.spoil("/", usize::MAX, Fault::Break);
    let daemon = mount.daemon();
    take_away(&mount);
    ended(daemon);
    let state = proxied.home.path("state");
    let flags = ["--state-dir", state.to_str().unwrap()];
    let status = proxied.home.run(&[&["status"], &flags[..]].concat());
    let said = text(&status);
    assert!(said.contains("app:v1") && said.contains("app:v2"), "{said}");
    proxied.proxy.mend();
    let point = proxied.home.path("mounts/again");
    std::fs::create_dir(&point).unwrap();
    let cache = proxied.home.path("cache");
    let source = format!("{}/team", proxied.proxy.host());
    let mut args = vec!["mount", &source, point.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
    args.extend(flags);
    let announced = proxied.home.run(&args);
    let said = text(&announced);
    assert!(announced.status.success() && said.contains("staged earlier") && said.contains("app:v1"), "{said}");
    let gone = proxied.home.run(&["umount", point.to_str().unwrap()]);
    assert!(gone.status.success(), "{}", text(&gone));
    assert_eq!(proxied.upstream("app/v1/one").as_deref(), Some(&b"edited\n"[..]));
    assert_eq!(proxied.upstream("app/v2/sub/new").as_deref(), Some(&b"new\n"[..]));
}

/// Unmounts as a user would who does not know ocifs.
fn take_away(mount: &Mount) {
    let output = Command::new("fusermount3").arg("-u").arg(mount.root()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// Waits until a process is gone.
fn ended(pid: Pid) {
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while runs() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn without_a_daemon_a_sync_publishes_remaining_edits() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&[]);
    let daemon = mount.daemon();
    kill_process(daemon, Signal::KILL).unwrap();
    ended(daemon);
    let _ = mount.run("umount", &[]);
    let (state, cache) = (proxied.home.path("state"), proxied.home.path("cache"));
    let flags = ["--state-dir", state.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
    proxied.proxy.spoil_method("POST", "/blobs/uploads/", 1000, Fault::Refuse(403, "{}"));
    let all = format!("{}/team", proxied.proxy.host());
    let sync = || proxied.home.run(&[&["sync", &all], &flags[..]].concat());
    told(&sync(), 11, &["app:v1", "app:v2"]);
    proxied.proxy.mend();
    let done = sync();
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(proxied.upstream("app/v1/one").as_deref(), Some(&b"edited\n"[..]));
    assert_eq!(proxied.upstream("app/v2/sub/new").as_deref(), Some(&b"new\n"[..]));
}
