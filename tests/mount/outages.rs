//! Registries that stop or hang and daemons that die: what is cached is read, nothing blocks for ever, and what is
//! left behind can be cleaned up.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, is_mounted, text};
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::process::{CommandExt, ExitStatusExt};

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
fn with_the_registry_stopped_what_was_read_is_read_again_and_the_rest_fails() {
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
fn an_interrupt_ends_a_reader_that_waits_for_a_hung_registry() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = two_files();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &[]);
    assert_eq!(mount.ls("app/v1").unwrap(), ["seen", "unseen"]);
    registry.hang();
    let reader = mount.reader("app/v1/seen").process_group(0).spawn().unwrap();
    proxy.wait_for("GET", "/blobs/");
    kill_process_group(Pid::from_child(&reader), Signal::INT).unwrap();
    let output = reader.wait_with_output().unwrap();
    // Neither the end of patience nor the deadline of the transfer: those give an exit code.
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()), "{}", text(&output));
    mount.unmount();
    registry.resume();
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
