//! Untrusted users of the same machine: their sockets, records, processes and directories, as seen by root and by a user.

use crate::support::layouts::fixtures;
use crate::support::mounting::{is_mounted, text};
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const ROOT: u32 = 0;
/// A user that exists on every machine: `fusermount3` looks up the name.
const USER: u32 = 1;
/// The attacker.
const STRANGER: u32 = 65534;

const NEEDS: [Need; 5] = [Need::Fuse, Need::Root, Need::Tool("fusermount3"), Need::Tool("setpriv"), Need::Tool("python3")];

/// The record a daemon would write, and a socket that answers everything with success.
const PRETENDER: &str = r#"
import json, os, socket, sys
name, record, answer = sys.argv[1:]
open(name + ".json", "w").write(record)
listener = socket.socket(socket.AF_UNIX)
listener.bind(name + ".sock")
os.chmod(name + ".sock", 0o777)
listener.listen()
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    try:
        client.recv(65536)
        client.sendall(answer.encode() + b"\n")
        client.close()
    except OSError:
        pass
"#;

/// A machine with a home, a runtime directory and a mount point for each user, and the processes started on it.
struct Machine {
    shell: Shell,
    started: Vec<Child>,
}

impl Machine {
    fn new() -> Self {
        let shell = Shell::new();
        let variables = [("OCIFS", OsString::from(env!("CARGO_BIN_EXE_ocifs"))), ("LAYOUT", fixtures().join("image-umoci/layout").into())];
        shell.run(
            r#"cp "$OCIFS" ocifs; cp -r "$LAYOUT" layout; chmod -R a+rX layout
            for user in 0 1 65534; do
                mkdir -m 755 home-$user mnt-$user; mkdir -m 700 run-$user; chown $user:$user home-$user mnt-$user run-$user
            done
            [ "$(stat -c %a /dev/fuse)" = 666 ] || chmod 666 /dev/fuse"#,
            &variables,
        );
        Self { shell, started: Vec::new() }
    }

    /// A command run as a user with that user's environment.
    fn command(&self, user: u32, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]).args(["--clear-groups", program]);
        command.args(arguments).current_dir(self.shell.path("")).env_clear().stdin(Stdio::null());
        // Programs that every user may run.
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("HOME", self.shell.path(&format!("home-{user}"))).env("XDG_RUNTIME_DIR", self.shell.path(&format!("run-{user}")));
        command
    }

    fn ocifs(&self, user: u32, arguments: &[&str]) -> Output {
        self.command(user, "timeout", &[&["-sKILL", "120", "./ocifs"], arguments].concat()).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, user: u32, arguments: &[&str]) -> Output {
        let output = self.ocifs(user, arguments);
        assert!(output.status.success(), "user {user}: {arguments:?}\n{}", text(&output));
        output
    }

    /// A command of root that also looks where the attacker keeps sockets, as `/run/user` makes it do for logged-in users.
    fn root_looks(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(ROOT, "timeout", &[&["-sKILL", "120", "./ocifs"], arguments].concat());
        let output = command.env("XDG_RUNTIME_DIR", self.shell.path("run-65534")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}\n{}", text(&output));
        output
    }

    fn mount_point(&self, user: u32) -> PathBuf {
        self.shell.path(&format!("mnt-{user}"))
    }

    fn mount(&self, user: u32) {
        self.succeeds(user, &["mount", "oci:layout", &format!("mnt-{user}")]);
    }

    /// `ocifs status` about a user's mount, including warnings.
    fn status(&self, asker: u32, user: u32) -> (serde_json::Value, String) {
        let output = self.succeeds(asker, &["status", "--format=json", &format!("mnt-{user}")]);
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (rows[0].clone(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Kills the daemon of a user's mount; the mount stays.
    fn kill_daemon(&self, user: u32) {
        let pid = self.status(user, user).0["pid"].to_string();
        self.shell.run(r#"kill -9 $PID; while kill -0 $PID 2>/dev/null; do sleep 0.05; done"#, &[("PID", &pid)]);
    }

    /// An idle process of a user; its id, and its start time as in records.
    fn sleeper(&mut self, user: u32) -> (u32, u64) {
        let child = Command::new("setpriv")
            .args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "sleep", "600"])
            .spawn()
            .unwrap();
        let pid = child.id();
        self.started.push(child);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
        (pid, start)
    }

    /// A record of a user's mount that names another process.
    fn record(&self, user: u32, (pid, start_time): (u32, u64)) -> String {
        let point = self.mount_point(user);
        let device = self.shell.at(&point, "findmnt -nro MAJ:MIN $M");
        let (major, minor) = device.trim().split_once(':').unwrap();
        let device: [u32; 2] = [major.parse().unwrap(), minor.parse().unwrap()];
        let source = self.shell.at(&point, "findmnt -nro SOURCE $M");
        serde_json::json!({ "pid": pid, "start_time": start_time, "device": device, "source": source.trim(), "mount_point": point,
            "state_directory": self.shell.path("evil"), "log": null })
        .to_string()
    }

    /// Starts a process of the attacker that pretends to be a daemon, with socket and record in this directory.
    fn pretend(&mut self, directory: &str, record: &str, answer: &serde_json::Value) {
        use std::io::{BufRead, BufReader};
        let name = self.shell.path(directory).join("mount-0123456789abcdef");
        let mut command = self.command(STRANGER, "python3", &["-c", PRETENDER, name.to_str().unwrap(), record, &answer.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        self.started.push(child);
    }

    /// A directory of the attacker with something that a look into a state directory would clean up.
    fn bait(&self) -> PathBuf {
        self.shell.run::<&str>("mkdir -p evil/uppers/.making-x; touch evil/uppers/.making-x/bait; chown -R 65534:65534 evil", &[]);
        self.shell.path("evil/uppers/.making-x/bait")
    }

    /// A lying daemon's answer to all requests.
    fn lie(&self, pid: u32) -> serde_json::Value {
        serde_json::json!({ "ok": { "version": "evil", "pid": pid, "state_directory": self.shell.path("evil"), "exit_timeout": 0 } })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
        for user in [ROOT, USER, STRANGER] {
            if is_mounted(&self.mount_point(user)) {
                self.ocifs(user, &["umount", "--no-sync", &format!("mnt-{user}")]);
            }
            if is_mounted(&self.mount_point(user)) {
                self.shell.attempt(r#"umount -l "$M""#, &[("M", self.mount_point(user))]);
            }
        }
    }
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn umount_of_another_user_s_mount_names_that_user() {
    if lacks(&NEEDS) {
        return;
    }
    let machine = Machine::new();
    machine.mount(USER);
    for flags in [&[][..], &["--no-sync"]] {
        let output = machine.ocifs(STRANGER, &[&["umount", "mnt-1"], flags].concat());
        assert_eq!(output.status.code(), Some(15), "{}", text(&output));
        assert!(text(&output).contains("it was mounted by") && text(&output).contains("(uid 1)"), "{}", text(&output));
    }
    machine.succeeds(USER, &["umount", "mnt-1"]);
}

#[test]
fn another_user_s_claim_on_a_mount_is_ignored() {
    if lacks(&NEEDS) {
        return;
    }
    for user in [ROOT, USER] {
        let mut machine = Machine::new();
        machine.mount(user);
        let mount = format!("mnt-{user}");
        let daemon = machine.status(user, user).0["pid"].clone();
        let bait = machine.bait();
        let victim = machine.sleeper(user);
        let record = machine.record(user, victim);
        machine.pretend("evil", &record, &machine.lie(victim.0));
        let (row, notes) = machine.status(user, user);
        assert_eq!((&row["pid"], row["state"].as_str()), (&daemon, Some("running")), "{row}");
        assert_ne!(row["version"], "evil");
        assert!(notes.contains("ignoring a record that claims another user"), "{notes}");
        let synced = machine.succeeds(user, &["sync", &mount]);
        assert!(text(&synced).contains("ignoring a record that claims another user"), "{}", text(&synced));

        // With the daemon gone only the attacker is left, which is the same as no daemon.
        machine.kill_daemon(user);
        assert_eq!(machine.status(user, user).0["state"], "dead");
        machine.succeeds(user, &["umount", &mount]);
        assert!(lives(victim.0), "the process that a stranger's record names");
        assert!(bait.exists() && machine.shell.path("evil/mount-0123456789abcdef.sock").exists());
    }
}

#[test]
fn root_kills_no_process_and_opens_no_directory_named_by_another_user() {
    if lacks(&NEEDS) {
        return;
    }
    let mut machine = Machine::new();
    machine.mount(STRANGER);
    let bait = machine.bait();
    let victim = machine.sleeper(ROOT);
    let record = machine.record(STRANGER, victim);
    machine.kill_daemon(STRANGER);
    machine.shell.run::<&str>("rm run-65534/ocifs/*", &[]);
    machine.pretend("run-65534/ocifs", &record, &machine.lie(victim.0));
    let (row, _) = machine.status(ROOT, STRANGER);
    assert_ne!(row["pid"], victim.0, "what a daemon says of itself is not its process: {row}");
    machine.succeeds(ROOT, &["umount", "--wait=1s", "mnt-65534"]);
    assert!(!is_mounted(&machine.mount_point(STRANGER)));
    assert!(lives(victim.0) && bait.exists());
}

#[test]
fn a_planted_socket_link_does_not_trick_root() {
    if lacks(&NEEDS) {
        return;
    }
    let mut machine = Machine::new();
    machine.mount(STRANGER);
    machine.mount(ROOT);
    let roots = machine.status(ROOT, ROOT).0["pid"].clone();
    machine.kill_daemon(STRANGER);
    machine.shell.run::<&str>("cd run-65534/ocifs; rm *.sock; ln -s ../../run-0/ocifs/mount-*.sock $(basename *.json .json).sock", &[]);
    let seen = machine.root_looks(&["status", "--format=json", "mnt-65534"]);
    assert!(
        text(&seen).contains("ignoring a record that claims another user") && !text(&seen).contains(&roots.to_string()),
        "{}",
        text(&seen)
    );
    machine.root_looks(&["umount", "--wait=1s", "mnt-65534"]);
    assert_eq!(machine.status(ROOT, ROOT).0["pid"], roots, "it lives");
    let left = machine.shell.run::<&str>("ls run-65534/ocifs", &[]);
    assert_eq!(left, "", "the record was read");

    // Nor is the record of the mount's own user.
    let victim = machine.sleeper(ROOT);
    machine.mount(STRANGER);
    let record = machine.record(STRANGER, victim);
    machine.kill_daemon(STRANGER);
    machine.shell.run(r#"cd run-65534/ocifs; printf %s "$RECORD" >"$(echo *.json)""#, &[("RECORD", record)]);
    machine.root_looks(&["umount", "--wait=1s", "mnt-65534"]);
    assert!(lives(victim.0));
}

#[test]
fn a_reference_is_never_looked_for_in_a_mount_of_another_user() {
    if lacks(&NEEDS) {
        return;
    }
    let machine = Machine::new();
    machine.mount(STRANGER);
    let output = machine.ocifs(ROOT, &["sync", &format!("oci:{}:l1", machine.shell.path("layout").display())]);
    assert!(text(&output).contains("nothing is staged"), "{}", text(&output));
}

#[test]
fn directories_of_other_users_are_never_used_for_state_cache_log_or_socket() {
    if lacks(&NEEDS) {
        return;
    }
    for user in [ROOT, USER] {
        let machine = Machine::new();
        let mount = format!("mnt-{user}");
        let prepare = format!(
            "mkdir -m 777 strange wide; mkdir -p home-{user}/state/log; ln -s ../wide home-{user}/link
            chown -R {user}:{user} home-{user} wide; chown 65534:65534 strange home-{user}/state/log; chown -h 65534 home-{user}/link"
        );
        machine.shell.run::<&str>(&prepare, &[]);
        let refused = |flags: &[&str], word: &str| {
            let output = machine.ocifs(user, &[&["mount", "oci:layout", &mount], flags].concat());
            assert!(!output.status.success() && text(&output).contains(word), "{flags:?}: {}", text(&output));
            assert!(!is_mounted(&machine.mount_point(user)));
        };
        for flag in ["--state-dir", "--cache-dir"] {
            refused(&[flag, "strange"], "another user");
            refused(&[flag, "wide"], "others may write to it");
            refused(&[flag, &format!("home-{user}/link")], "another user");
        }
        refused(&["--state-dir", &format!("home-{user}/state")], "another user");
        machine.shell.run::<&str>(&format!("mkdir run-{user}/ocifs; chown 65534 run-{user}/ocifs"), &[]);
        refused(&[], "another user");
        let left = machine.shell.run::<&str>("find strange wide -type f -o -type s", &[]);
        assert_eq!(left, "");
    }
}

#[test]
fn root_with_a_user_s_environment_writes_nothing_to_that_user_s_directories() {
    if lacks(&NEEDS) {
        return;
    }
    let machine = Machine::new();
    let of_user = |name: &str| machine.shell.path(&format!("{name}-{USER}"));
    let run = |arguments: &[&str]| {
        let mut command = machine.command(ROOT, "./ocifs", arguments);
        let own = machine.shell.path("home-0");
        let flags = ["--cache-dir", "--state-dir"].map(|flag| [flag.into(), own.join(&flag[2..]).into_os_string()]);
        if arguments[0] == "mount" {
            command.args(flags.concat())
        } else {
            command.args(&flags[1])
        };
        command.env("HOME", of_user("home")).env("XDG_RUNTIME_DIR", of_user("run"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    };
    run(&["mount", "oci:layout", "mnt-0"]);
    run(&["status", "mnt-0"]);
    run(&["umount", "mnt-0"]);
    assert_eq!(machine.shell.run::<&str>("find home-1 run-1 -user 0", &[]), "");
    machine.mount(USER);
    machine.succeeds(USER, &["umount", "mnt-1"]);
}
