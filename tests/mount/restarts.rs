//! Registries that hang, disappear or restart during a publish: a sync completes if it can, else it reports the failure and loses nothing.

use crate::publishing_faults::{ProxiedRegistry, fails, nothing_is_lost, shows_edits, told};
use crate::support::artifacts::noise;
use crate::support::is_long;
use crate::support::mounting::{Home, Mount, text};
use crate::support::proxy::{Fault, Recorded};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
/// How long a restarting registry is down.
const RESTART: Duration = Duration::from_millis(700);

#[test]
fn with_the_registry_down_a_sync_says_so_and_umount_keeps_the_mount() {
    if lacks(&NEEDS) {
        return;
    }
    let mut proxied = ProxiedRegistry::new();
    let source = format!("{}/team", proxied.registry.host());
    let mount = proxied.home.mount(&source, &["--io-timeout", "2s"]);
    mount.write("app/v1/one", "edited\n");
    mount.write("app/v2/sub/new", "new\n");
    proxied.registry.stop();
    fails(&mount, &[], 14, &["app:v1", "app:v2"]);
    let kept = mount.run("umount", &[]);
    told(&kept, 16, &["stays mounted", "try again", "--no-sync", "--discard"]);
    shows_edits(&mount);
    proxied.registry.start_again();
    mount.sync(&[]);
    mount.unmount();
    assert_eq!(proxied.upstream("app/v1/one").as_deref(), Some(&b"edited\n"[..]));
}

#[test]
fn a_sync_to_a_hung_registry_ends_at_the_timeout_or_by_an_interrupt() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&["--io-timeout", "20s"]);
    proxied.registry.hang();
    proxied.proxy.forget();
    let sync = mount.ocifs("sync", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    proxied.proxy.wait_for("HEAD", "/manifests/v1");
    interrupt(&sync);
    let output = sync.wait_with_output().unwrap();
    told(&output, 130, &["staged edits are kept"]);
    shows_edits(&mount);
    mount.leave();
    proxied.registry.resume();
    let mount = proxied.mount(&["--io-timeout", "1s"]);
    shows_edits(&mount);
    proxied.registry.hang();
    fails(&mount, &[], 14, &["app:v1", "app:v2"]);
    proxied.registry.resume();
    nothing_is_lost(&proxied, mount);
}

#[test]
fn an_interrupted_upload_is_resumed_by_the_next_sync() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.edited(&[]);
    mount.write("app/v2/big", noise(1, 5 << 20));
    proxied.proxy.spoil_method("PUT", "/manifests/", 100, Fault::Stall(0));
    proxied.proxy.spoil_method("PUT", "/blobs/uploads/", 100, Fault::Stall(0));
    let sync = mount.ocifs("sync", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    proxied.proxy.wait_for("PUT", "/");
    interrupt(&sync);
    told(&sync.wait_with_output().unwrap(), 130, &["staged edits are kept"]);
    proxied.proxy.mend();
    nothing_is_lost(&proxied, mount);
}

#[test]
fn a_tag_put_before_an_outage_is_recognised_by_the_next_sync() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.mount(&["--io-timeout", "2s"]);
    mount.write("app/v1/one", "edited\n");
    proxied.proxy.spoil_method("PUT", "/manifests/v1", 1, Fault::LoseAllFromHere);
    fails(&mount, &[], 14, &["app:v1"]);
    proxied.proxy.mend();
    proxied.proxy.forget();
    let put = proxied.digest("v1").unwrap();
    assert!(mount.sync(&[]).contains(&put));
    assert_eq!(proxied.proxy.count("PUT", "/"), 0, "{:?}", proxied.proxy.requests());
    mount.unmount();
    assert_eq!(proxied.upstream("app/v1/one").as_deref(), Some(&b"edited\n"[..]));
}

fn interrupt(process: &Child) {
    kill_process(Pid::from_child(process), Signal::INT).unwrap();
}

/// Syncs of four new blobs, during whose upload `restart` is called. Each must succeed.
fn four_blobs_each(mount: &Mount, mut restart: impl FnMut()) {
    let mut bytes = noise(40, 12 << 20);
    let rounds: u8 = if is_long() { 20 } else { 2 };
    for round in 0..rounds {
        for blob in 0..4 {
            bytes[..2].copy_from_slice(&[round, blob]);
            mount.write(&format!("app/v2/large{blob}"), &bytes);
        }
        let sync = mount.ocifs("sync", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        restart();
        let output = sync.wait_with_output().unwrap();
        assert!(output.status.success(), "round {round} of {rounds}: {}\n{}", text(&output), mount.log());
    }
}

/// Waits until a condition holds; fails if that never happens.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_sync_of_several_blobs_survives_a_registry_restart() {
    if lacks(&NEEDS) {
        return;
    }
    let mut registry = Registry::plain();
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    let mut known = 0;
    four_blobs_each(&mount, || {
        until("an upload begins", || registry.uploads("team/app") > known);
        registry.stop();
        std::thread::sleep(RESTART);
        // An aborted upload stays there until the registry purges it.
        known = registry.uploads("team/app");
        registry.start_again();
    });
    assert_eq!(std::fs::read(mount.path("app/v2/large3")).unwrap().len(), 12 << 20);
    mount.unmount();
}

#[test]
fn a_sync_of_several_blobs_survives_broken_and_refused_connections() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.mount(&[]);
    let sending = |request: &Recorded| ["PUT", "PATCH"].contains(&request.method.as_str()) && request.received > 0;
    four_blobs_each(&mount, || {
        until("an upload begins", || proxied.proxy.requests().iter().any(sending));
        proxied.proxy.refuse();
        std::thread::sleep(RESTART);
        proxied.proxy.forget();
        proxied.proxy.listen_again();
    });
    mount.unmount();
}

#[test]
fn an_upload_with_every_other_chunk_failing_ends_and_resends_little() {
    if lacks(&NEEDS) {
        return;
    }
    let proxied = ProxiedRegistry::new();
    let mount = proxied.mount(&[]);
    let bytes = noise(41, 100 << 20);
    mount.write("app/v2/large", &bytes);
    proxied.proxy.spoil_method("PATCH", "/blobs/uploads/", 1000, Fault::EveryOther(500));
    proxied.proxy.forget();
    mount.sync(&[]);
    let (chunks, sent) = (proxied.proxy.count("PATCH", "/"), proxied.proxy.received("PATCH") + proxied.proxy.received("PUT"));
    println!("every other chunk fails: {chunks} chunks, {sent} bytes sent of {}", bytes.len());
    // Four chunks, every other one of which is sent twice.
    assert!(chunks <= 8 && sent < 2 * bytes.len() as u64, "{chunks} chunks, {sent} bytes");
    mount.unmount();
}
