//! A mount from start to end: daemons that die, hang or are in use, signals, secrets.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::support::layouts::fixtures;
use super::support::mounting::{Home, is_mounted, text};
use super::support::skip::{Need, lacks};

fn layout(name: &str) -> String {
    format!("oci:{}", fixtures().join(name).join("layout").display())
}

fn status(home: &Home) -> serde_json::Value {
    serde_json::from_slice(&home.run(&["status", "--format=json"]).stdout).unwrap()
}

/// The daemon of a mount point.
fn daemon(home: &Home, point: &std::path::Path) -> String {
    let rows = status(home);
    let row = rows.as_array().unwrap().iter().find(|row| row["mount_point"].as_str() == point.to_str()).unwrap().clone();
    assert_eq!(row["state"], "running");
    row["pid"].as_u64().unwrap().to_string()
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[test]
fn a_mount_answers_at_once_and_umount_leaves_neither_mount_nor_daemon() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&layout("oras-files"), &[]);
    assert!(mount.ls("").unwrap().contains(&"v1".to_owned()));
    let pid = daemon(&home, mount.root());
    let typed = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(typed.contains("mount\0oci:"), "the command line stays as typed: {typed}");
    mount.unmount();
    assert!(!runs(&pid));
    assert_eq!(fs::read_dir(home.path("run/ocifs")).unwrap().count(), 0, "no socket stays behind");
}

#[test]
fn a_busy_mount_stays_and_its_user_is_named() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&layout("oras-files"), &[]);
    let mut reader = Command::new("sleep").arg("600").current_dir(mount.path("v1")).spawn().unwrap();
    let output = home.run(&["umount", mount.root().to_str().unwrap()]);
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert_eq!(output.status.code(), Some(15));
    assert!(text(&output).contains(&format!("sleep (pid {})", reader.id())), "{}", text(&output));
    assert!(is_mounted(mount.root()));
    mount.unmount();
}

fn bind(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    assert!(Command::new("mount").arg("--bind").args([from, to]).status().unwrap().success());
}

fn take_away(point: &std::path::Path) {
    assert!(Command::new("umount").arg(point).status().unwrap().success());
}

#[test]
fn unmounting_another_mount_point_leaves_the_daemon() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&layout("oras-files"), &[]);
    let pid = daemon(&home, mount.root());
    let other = home.path("other");
    bind(mount.root(), &other);
    let output = home.run(&["umount", "--wait=1s", other.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!is_mounted(&other) && runs(&pid));
    assert!(mount.ls("").unwrap().contains(&"v1".to_owned()));
    mount.unmount();
    assert!(!runs(&pid));
}

#[test]
fn an_exiting_daemon_does_not_unmount_its_successor() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&layout("oras-files"), &[]);
    let pid = daemon(&home, mount.root());
    let other = home.path("other");
    bind(mount.root(), &other);
    take_away(mount.root());
    bind(&home.path("mounts"), mount.root());
    kill("-TERM", &pid);
    while runs(&pid) {
        std::thread::yield_now();
    }
    assert!(is_mounted(mount.root()), "the mount of somebody else");
    take_away(mount.root());
    take_away(&other);
}

#[test]
fn a_dead_mount_is_removed_by_umount_and_by_the_next_mount() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&layout("oras-files"), &[]);
    let die = || {
        let pid = daemon(&home, mount.root());
        kill("-KILL", &pid);
        while runs(&pid) {
            std::thread::yield_now();
        }
    };
    die();
    let rows = status(&home);
    assert!(rows.as_array().unwrap().iter().any(|row| row["state"] == "dead"), "{rows}");
    let (cache, state) = (home.path("cache"), home.path("state"));
    let again = |source: &str| {
        let flags = ["--cache-dir", cache.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
        home.run(&[&["mount", source, mount.root().to_str().unwrap()], flags.as_slice()].concat())
    };
    let output = again(&layout("oras-files"));
    assert!(output.status.success(), "{}", text(&output));
    assert!(mount.ls("").unwrap().contains(&"v1".to_owned()));
    let twice = again(&layout("flux"));
    assert_eq!(twice.status.code(), Some(15), "a live mount is not covered: {}", text(&twice));
    die();
    mount.unmount();
}

#[test]
fn a_hung_daemon_is_killed_by_umount() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&layout("oras-files"), &[]);
    let pid = daemon(&home, mount.root());
    kill("-STOP", &pid);
    let rows = status(&home);
    assert!(rows.as_array().unwrap().iter().any(|row| row["state"] == "hung"), "{rows}");
    let output = home.run(&["umount", "--wait=1s", mount.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!runs(&pid) && !is_mounted(mount.root()));
}

#[test]
fn a_signal_ends_a_foreground_mount_and_leaves_nothing() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let point = home.path("mounts");
    for signal in ["-TERM", "-INT", "-HUP"] {
        // Under nohup, SIGHUP is ignored, including by child programs.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_ocifs")]);
        command.args(["mount", "--foreground", &layout("oras-files")]).arg(&point).env("HOME", home.path("")).stdin(Stdio::null());
        command
            .env("XDG_RUNTIME_DIR", home.path("run"))
            .env("XDG_CACHE_HOME", home.path("cache"))
            .env("XDG_STATE_HOME", home.path("state"));
        let socket = std::os::unix::net::UnixDatagram::bind(home.path(&format!("notify{signal}"))).unwrap();
        command.env("NOTIFY_SOCKET", home.path(&format!("notify{signal}"))).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        assert!(String::from_utf8_lossy(&message[..length]).contains("READY=1"));
        assert!(is_mounted(&point));
        kill(signal, &child.id().to_string());
        assert!(child.wait().unwrap().success());
        assert!(!is_mounted(&point));
    }
}

#[test]
fn a_mount_that_fails_leaves_neither_mount_nor_process() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let output = home.try_mount(&format!("{}:no-such-tag", layout("oras-files")), &[]).err().unwrap();
    assert_eq!(output.status.code(), Some(10), "{}", text(&output));
    let mine = home.path("");
    let left = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let typed = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&typed).contains(mine.to_str().unwrap()) && runs(entry.file_name().to_str().unwrap())
    });
    assert!(!left, "a process stays behind");
}

#[test]
fn a_passphrase_on_the_command_line_is_hidden_from_the_process_list() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let secret = "correct horse battery staple";
    let mount = home.mount(&format!("{}:sealed", layout("oci-sync-rust")), &["--passphrase", secret]);
    assert!(!mount.ls("").unwrap().is_empty());
    let pid = daemon(&home, mount.root());
    let typed = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(typed.contains("--passphrase\0***") && !typed.contains("horse"), "{typed}");
    mount.unmount();
}

#[test]
fn no_core_file_can_contain_a_passphrase() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    // The command is a child of the process that keeps its output.
    let limits = home.path("limits");
    let command = format!("cat /proc/$PPID/limits > {}; echo secret", limits.display());
    let mount = home.mount(&layout("oras-files"), &["--passphrase-command", &command]);
    let pid = daemon(&home, mount.root());
    for limits in [fs::read_to_string(limits).unwrap(), fs::read_to_string(format!("/proc/{pid}/limits")).unwrap()] {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
    mount.unmount();
}

#[test]
fn passphrases_are_tried_in_the_order_of_the_command_line() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    fs::write(home.path("wrong"), "wrong\n").unwrap();
    let flags = ["--passphrase-file", home.path("wrong").to_str().unwrap(), "--passphrase-command", "echo correct horse battery staple"]
        .map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mount = home.mount(&format!("{}:sealed", layout("oci-sync-rust")), &flags);
    assert!(!mount.ls("").unwrap().is_empty());
    mount.unmount();
}

#[test]
fn child_programs_and_the_daemon_inherit_nothing_meant_for_the_command() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut home = Home::new();
    for (name, value) in
        [("OCIFS_LOG", "info"), ("OCIFS_PASSPHRASE", "hunter2"), ("LISTEN_FDS", "0"), ("NOTIFY_SOCKET", "/none"), ("KEPT", "1")]
    {
        home.set(name, value);
    }
    let secret = home.write("secret", "x");
    let (point, seen) = (home.path("mounts"), home.path("seen"));
    let passphrase = format!("env > {0}; ls -l /proc/self/fd >> {0}; echo x", seen.display());
    let (cache, state) = (home.path("cache"), home.path("state"));
    let command = home.ocifs(
        &[
            &["mount", &layout("oras-files"), point.to_str().unwrap(), "--passphrase-command", &passphrase],
            ["--cache-dir", cache.to_str().unwrap(), "--state-dir", state.to_str().unwrap(), "--passphrase-fd", "9"].as_slice(),
        ]
        .concat(),
    );
    let mut shell = Command::new("bash");
    shell.args(["-c", r#"exec 9<"$0"; exec "$@""#]).arg(&secret).arg(command.get_program()).args(command.get_args());
    shell.env_clear().stdin(Stdio::null()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let pid = daemon(&home, &point);
    let kept: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|link| fs::read_link(link.unwrap().path()).ok()).collect();
    home.run(&["umount", point.to_str().unwrap()]);
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("KEPT=1") && seen.contains("PATH="), "{seen}");
    for name in ["OCIFS_", "NOTIFY_SOCKET", "LISTEN_", "hunter2", secret.to_str().unwrap()] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    assert!(!kept.is_empty() && !kept.contains(&secret), "{kept:?}");
}

#[test]
fn a_world_readable_passphrase_file_causes_a_warning() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let file = home.write("secret", "x");
    for (mode, warns) in [(0o644, true), (0o640, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let state = home.path("state");
        let output = home.run(&[
            "mount",
            "--check-only",
            &layout("oras-files"),
            home.path("mounts").to_str().unwrap(),
            "--passphrase-file",
            file.to_str().unwrap(),
            "--state-dir",
            state.to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(text(&output).contains("is readable by every user"), warns, "{mode:o}: {}", text(&output));
    }
}

/// Mounts, uses and unmounts; returns any failure. In every other round something is staged and discarded.
fn round(home: &Home, name: &str, number: usize) -> Result<(), String> {
    let point = home.path("mounts").join(name);
    let (cache, state) = (home.path("cache"), home.path("state"));
    let source = layout("oras-files");
    let run = |args: &[&str]| {
        let output = home.run(args);
        if output.status.success() { Ok(output) } else { Err(format!("{name}, round {number}: {args:?}: {}", text(&output))) }
    };
    let (shown, cache, state) = (point.to_str().unwrap(), cache.to_str().unwrap(), state.to_str().unwrap());
    run(&["mount", &source, shown, "--cache-dir", cache, "--state-dir", state])?;
    let pid = status(home).as_array().unwrap().iter().find(|row| row["mount_point"] == shown).unwrap()["pid"].to_string();
    let mut umount = vec!["umount", shown, "--state-dir", state];
    if number.is_multiple_of(2) {
        fs::create_dir(point.join(name)).map_err(|error| format!("{name}, round {number}: {error}"))?;
        fs::write(point.join(name).join("file"), "staged").map_err(|error| format!("{name}, round {number}: {error}"))?;
        umount.extend(["--discard", "--yes"]);
    }
    let output = run(&umount)?;
    if is_mounted(&point) || runs(&pid) || text(&output).contains("still staged") {
        return Err(format!("{name}, round {number}: mounted {}, daemon {}: {}", is_mounted(&point), runs(&pid), text(&output)));
    }
    Ok(())
}

/// Mounts and unmounts repeatedly, in this many concurrent chains.
fn mounts_and_unmounts(chains: usize) {
    let rounds = if super::support::is_long() { 1000usize.div_ceil(chains) } else { 12usize.div_ceil(chains) };
    let home = Home::new();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let chain = |chain: usize| {
            let home = &home;
            let name = format!("c{chain}");
            fs::create_dir(home.path("mounts").join(&name)).unwrap();
            scope.spawn(move || (0..rounds).filter_map(|number| round(home, &name, number).err()).collect::<Vec<_>>())
        };
        let chains: Vec<_> = (0..chains).map(chain).collect();
        chains.into_iter().flat_map(|chain| chain.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {} rounds failed:\n{}", failures.len(), rounds * chains, failures.join("\n"));
    assert_eq!(fs::read_dir(home.path("run/ocifs")).unwrap().count(), 0, "a socket stays behind");
}

#[test]
fn a_thousand_mounts_in_a_row_leave_nothing() {
    if !lacks(&[Need::Fuse]) {
        mounts_and_unmounts(1);
    }
}

#[test]
fn a_thousand_mounts_in_six_chains_at_once_leave_nothing() {
    if !lacks(&[Need::Fuse]) {
        mounts_and_unmounts(6);
    }
}
