//! Registries that stop or hang, and daemons that die: cached content is readable, nothing blocks forever, and leftovers can be cleaned up.

use crate::support::artifacts::{Draft, LAYER, gzip, noise, tar};
use crate::support::mounting::{Home, Mount, is_mounted, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::time::{Duration, Instant};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// A registry with `team/app:v1`, which holds `seen` and `unseen`.
fn two_files() -> Registry {
    let registry = Registry::plain();
    let mut draft = Draft::new();
    draft.files("v1", &[("seen", b"read before\n"), ("unseen", b"never read\n")]);
    draft.layout().push(&registry.url(), "team/app");
    registry
}

#[test]
fn with_the_registry_stopped_cached_content_is_readable_and_the_rest_fails() {
    if lacks(&NEEDS) {
        return;
    }
    let mut registry = two_files();
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", registry.host()), &["--io-timeout", "2s"]);
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    registry.stop();
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    let output = mount.reader("app/v1/unseen").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "cat fails by itself: {}", text(&output));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("No such file"), "an outage is no absence: {}", text(&output));
    registry.start_again();
    assert_eq!(mount.cat("app/v1/unseen").unwrap(), b"never read\n");
    mount.unmount();
}

#[test]
fn the_log_says_why_the_registry_cannot_be_reached() {
    if lacks(&NEEDS) {
        return;
    }
    let mut registry = two_files();
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", registry.host()), &["--tag-ttl", "1s"]);
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    registry.stop();
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    let log = mount.log();
    assert!(log.contains("using cached answers") && log.contains("connection refused") && !log.contains("no answer within"), "{log}");
    mount.unmount();
}

/// The errno of reading a file, which must fail.
fn refused(mount: &Mount, name: &str) -> i32 {
    mount.cat(name).expect_err(name).raw_os_error().unwrap()
}

const OUTAGE: [i32; 2] = [Errno::IO.raw_os_error(), Errno::TIMEDOUT.raw_os_error()];

#[test]
fn an_outage_is_never_an_absence_and_never_hangs_ls_or_umount() {
    if lacks(&NEEDS) {
        return;
    }
    for hangs in [false, true] {
        let mut registry = two_files();
        let mut packed = Draft::new();
        let layer = packed.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("inside", b"packed\n")])));
        packed.image("v1", &[layer]);
        packed.layout().push(&registry.url(), "team/packed");
        packed.layout().push(&registry.url(), "team/more");
        let home = Home::new();
        let mount = home.mount(&format!("{}/team", registry.host()), &["--io-timeout", "2s", "--tag-ttl", "1s"]);
        assert_eq!(mount.ls("").unwrap(), ["app", "more", "packed"]);
        assert_eq!(mount.ls("app/v1").unwrap(), ["seen", "unseen"]);
        assert_eq!(mount.ls("packed").unwrap(), ["v1"]);
        assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
        if hangs {
            registry.hang();
        } else {
            registry.stop();
        }
        // A name that was listed but never entered.
        for name in ["app/v1/unseen", "packed/v1/inside", "more/v1/inside"] {
            let errno = refused(&mount, name);
            assert!(OUTAGE.contains(&errno), "{name}: {}", std::io::Error::from_raw_os_error(errno));
        }
        let errno = refused(&mount, "app/@sha256-0000000000000000000000000000000000000000000000000000000000000000/x");
        assert!(OUTAGE.contains(&errno), "{}", std::io::Error::from_raw_os_error(errno));
        // Longer than anything stays fresh: the last known answers are used.
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(mount.ls("").unwrap(), ["app", "more", "packed"]);
        assert_eq!(mount.ls("app").unwrap(), ["v1"]);
        assert_eq!(mount.ls("app/v1").unwrap(), ["seen", "unseen"]);
        assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
        if hangs {
            // A waiting reader does not block a lazy umount.
            let mut reader = mount.reader("app/v1/unseen").stderr(std::process::Stdio::null()).spawn().unwrap();
            let output = home.run(&["umount", "--lazy", mount.root().to_str().unwrap()]);
            assert!(output.status.success(), "{}", text(&output));
            reader.wait().unwrap();
        } else {
            mount.unmount();
        }
    }
}

#[test]
fn cached_content_does_not_wait_for_a_hung_registry_whose_return_is_noticed() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = two_files();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &["--tag-ttl", "1s"]);
    assert_eq!(mount.ls("").unwrap(), ["app"]);
    assert_eq!(mount.ls("app").unwrap(), ["v1"]);
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    registry.hang();
    std::thread::sleep(Duration::from_millis(1100));
    proxy.forget();
    for _ in 0..50 {
        assert_eq!(mount.ls("").unwrap(), ["app"]);
        assert_eq!(mount.ls("app").unwrap(), ["v1"]);
        assert_eq!(mount.ls("app/v1").unwrap(), ["seen", "unseen"]);
        assert_eq!(std::fs::metadata(mount.path("app/v1/unseen")).unwrap().len(), 11);
        assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    }
    // The first request got no answer for a while. After that only probes were sent.
    let asked: Vec<_> = proxy.requests().into_iter().filter(|request| request.path != "/v2/").collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let said = mount.log().lines().filter(|line| line.contains("using cached answers")).count();
    assert_eq!(said, 1, "{}", mount.log());
    registry.resume();
    let mut draft = Draft::new();
    draft.files("v2", &[("new", b"new\n")]);
    draft.layout().push(&registry.url(), "team/app");
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        assert!(Instant::now() < deadline, "the registry is never asked again");
        match mount.ls("app") {
            Ok(names) if names == ["v1", "v2"] => break,
            Ok(names) => assert_eq!(names, ["v1"]),
            // At the moment of its return, a request may still use a connection broken by the outage.
            Err(error) => assert!(error.raw_os_error().is_some_and(|errno| OUTAGE.contains(&errno)), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    mount.unmount();
}

#[test]
fn thirty_two_readers_of_a_hung_registry_make_few_requests_and_later_ones_only_probe() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let files: Vec<(String, Vec<u8>)> = (0..32).map(|number| (format!("f{number:02}"), noise(600 + number, 1000))).collect();
    let mut draft = Draft::new();
    draft.files("v1", &files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>());
    draft.layout().push(&registry.url(), "team/app");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &["--io-timeout", "8s"]);
    assert_eq!(mount.ls("app/v1").unwrap().len(), 32);
    registry.hang();
    let refused_for_all = || {
        proxy.forget();
        let mount = &mount;
        std::thread::scope(|scope| {
            for (name, _) in &files {
                scope.spawn(move || assert!(OUTAGE.contains(&refused(mount, &format!("app/v1/{name}"))), "{name}"));
            }
        });
        proxy.count("GET", "/blobs/")
    };
    // Requests waiting for their turn learn the outcome of the first ones.
    let first = refused_for_all();
    // A file that was fetched ahead in vain may be asked for again by its reader.
    assert!(first <= 48, "each file is asked for about once: {first} requests");
    let next = refused_for_all();
    assert!(next <= 48, "and about once more to look: {next} requests");
    println!("32 readers of a registry that hangs: {first} requests, the next 32: {next}");
    let log = mount.log();
    assert!(log.contains("within 0.4 s"), "the next ones only look: {log}");
    registry.resume();
    for (name, bytes) in &files {
        // A probe is short: a registry that wakes up under load may miss it.
        let read = (0..100).find_map(|_| mount.cat(&format!("app/v1/{name}")).ok());
        assert!(read.as_ref() == Some(bytes), "{name}");
    }
    mount.unmount();
}

#[test]
fn umount_returns_while_a_transfer_hangs() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let bytes = noise(30, 16 << 20);
    let mut draft = Draft::new();
    draft.files("v1", &[("big", &bytes)]);
    draft.layout().push(&registry.url(), "team/app");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&proxy.host(), &[]);
    assert_eq!(mount.ls("team/app/v1").unwrap(), ["big"]);
    proxy.spoil("/blobs/", 100, Fault::Stall(70_000));
    let reader = mount.reader("team/app/v1/big").process_group(0).stdout(std::process::Stdio::null()).spawn().unwrap();
    proxy.wait_for("GET", "/blobs/");
    kill_process_group(Pid::from_child(&reader), Signal::INT).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()), "{}", text(&output));
    let daemon = mount.daemon();
    mount.unmount();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", daemon.as_raw_nonzero())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the daemon is gone: {state}");
}

#[test]
fn a_mount_whose_layers_hang_is_unmounted_at_once() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let mut draft = Draft::new();
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("one", &noise(31, 1 << 20))])));
    draft.image("v1", &[layer]);
    draft.layout().push(&registry.url(), "team/app");
    let proxy = Proxy::start(registry.url());
    proxy.spoil("/blobs/", 100, Fault::Stall(1000));
    let home = Home::new();
    let mount = home.mount(&format!("{}/team/app:v1", proxy.host()), &[]);
    let daemon = mount.daemon();
    mount.unmount();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", daemon.as_raw_nonzero())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the daemon is gone: {state}");
}

#[test]
fn offline_shows_only_what_was_read() {
    if lacks(&NEEDS) {
        return;
    }
    let mut registry = two_files();
    let mut packed = Draft::new();
    let layer = packed.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("one", b"1\n"), ("d/two", b"2\n")])));
    packed.image("v1", &[layer]);
    packed.image("v2", &[packed.blob(LAYER, &tar(&[("x", b"x")]))]);
    packed.layout().push(&registry.url(), "team/packed");
    let home = Home::new();
    let source = format!("{}/team", registry.host());
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.ls("").unwrap(), ["app", "packed"]);
    assert_eq!(mount.ls("app").unwrap(), ["v1"]);
    for name in ["app/v1/seen", "app/v1/unseen", "packed/v1/one", "packed/v1/d/two"] {
        mount.cat(name).unwrap();
    }
    assert_eq!(mount.ls("packed").unwrap(), ["v1", "v2"]);
    mount.unmount();
    registry.stop();
    assert_eq!(home.try_mount(&source, &[]).err().unwrap().status.code(), Some(14));
    let offline = home.mount(&source, &["--offline"]);
    assert_eq!(offline.ls("").unwrap(), ["app", "packed"]);
    assert_eq!(offline.ls("app").unwrap(), ["v1"]);
    assert_eq!(offline.cat("app/v1/seen").unwrap(), b"read before\n");
    assert_eq!(offline.cat("app/v1/unseen").unwrap(), b"never read\n");
    assert_eq!(offline.ls("packed/v1").unwrap(), ["d", "one"]);
    assert_eq!(offline.cat("packed/v1/d/two").unwrap(), b"2\n");
    for name in ["app/v9", "none/v1/x"] {
        assert_eq!(refused(&offline, name), Errno::NOENT.raw_os_error(), "{name}");
    }
    // Listed, so it exists; its content was never read.
    assert_eq!(refused(&offline, "packed/v2/x"), Errno::IO.raw_os_error());
    offline.unmount();
    let by_tag = home.mount(&format!("{source}/packed:v1"), &["--offline"]);
    assert_eq!(by_tag.cat("one").unwrap(), b"1\n");
    by_tag.unmount();
    let unknown = home.try_mount(&format!("{source}/packed:v9"), &["--offline"]).err().expect("nothing is there");
    assert_eq!(unknown.status.code(), Some(10), "{}", text(&unknown));
}

#[test]
fn an_interrupt_ends_a_reader_of_a_hung_registry() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = two_files();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &["--io-timeout", "15s"]);
    assert_eq!(mount.ls("app/v1").unwrap(), ["seen", "unseen"]);
    registry.hang();
    let reader = mount.reader("app/v1/seen").process_group(0).spawn().unwrap();
    proxy.wait_for("GET", "/blobs/");
    kill_process_group(Pid::from_child(&reader), Signal::INT).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()), "{}", text(&output));
    // Long before the transfer is abandoned: it continues, and the next reader gets its result.
    registry.resume();
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    assert_eq!(proxy.count("GET", "/blobs/"), 1, "{:?}", proxy.requests());
    mount.unmount();
}

#[test]
fn after_a_killed_daemon_umount_cleans_up_and_the_cache_is_used_again() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = two_files();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let source = format!("{}/team", proxy.host());
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.cat("app/v1/seen").unwrap(), b"read before\n");
    kill_process(mount.daemon(), Signal::KILL).unwrap();
    let output = home.run(&["umount", mount.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!is_mounted(mount.root()));
    proxy.forget();
    let again = home.mount(&source, &[]);
    assert_eq!(again.cat("app/v1/seen").unwrap(), b"read before\n");
    assert_eq!(proxy.count("GET", "/blobs/"), 0, "{:?}", proxy.requests());
    again.unmount();
}
