//! Commands besides `mount`: their output as text and JSON, and their exit codes.

use crate::support::artifacts::Draft;
use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::{Home, Mount, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use serde_json::Value;

/// Runs a command that must succeed; returns its standard output.
fn prints(home: &Home, args: &[&str]) -> String {
    let output = home.run(args);
    assert!(output.status.success(), "{args:?}\n{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(home: &Home, args: &[&str]) -> Value {
    let printed = prints(home, &[args, &["--format", "json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error}\n{printed}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The lines and the exit code of a command that must fail.
fn fails(home: &Home, args: &[&str]) -> (Option<i32>, String) {
    let output = home.run(args);
    assert!(!output.status.success(), "{args:?}\n{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}: what failed is told on standard error only");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn inspect_explains_every_tag_of_every_fixture_without_a_mount_or_a_key() {
    let home = Home::new();
    let mut inspected = 0;
    for fixture in std::fs::read_dir(fixtures()).unwrap().map(Result::unwrap).filter(|entry| entry.path().join("layout").is_dir()) {
        let layout = Layout::at(fixture.path().join("layout"));
        for tag in layout.tags() {
            let reference = format!("oci:{}:{tag}", layout.path().display());
            let shown = prints(&home, &["inspect", &reference]);
            let value = json(&home, &["inspect", &reference]);
            let wanted = [
                "artifact_type",
                "digest",
                "encrypted",
                "kind",
                "layers",
                "media_type",
                "platform",
                "platforms",
                "reference",
                "size",
                "warnings",
            ];
            assert_eq!(keys(&value), wanted, "{reference}");
            for layer in value["layers"].as_array().unwrap() {
                assert_eq!(keys(layer), ["digest", "media_type", "readable", "size", "title"], "{reference}");
                assert!(shown.contains(&layer["digest"].as_str().unwrap()["sha256:".len()..][..12]), "{shown}");
            }
            for part in ["digest", "kind"] {
                assert!(shown.contains(value[part].as_str().unwrap()), "{shown}");
            }
            let total: u64 = value["layers"].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).sum();
            assert_eq!(value["size"], total, "{reference}");
            inspected += 1;
        }
    }
    assert!(inspected > 40, "{inspected}");
    // No layer was fetched, at most a config that identifies the artifact.
    assert!(json(&home, &["cache", "info"])["data"].as_u64().unwrap() < 65_536);
}

#[test]
fn text_from_a_registry_cannot_control_the_terminal() {
    let home = Home::new();
    let mut draft = Draft::new();
    draft.files("v1", &[("\u{1b}[2J\u{1b}]0;owned\u{7}.txt", b"x"), ("\u{202e}txt.exe", b"y")]);
    let reference = format!("oci:{}:v1", draft.path().display());
    let shown = prints(&home, &["inspect", &reference]);
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}') && !shown.contains('\u{202e}'), "{shown:?}");
    assert!(shown.contains("owned"), "{shown}");
    // Programs get the real name.
    assert_eq!(json(&home, &["inspect", &reference])["layers"][0]["title"], "\u{1b}[2J\u{1b}]0;owned\u{7}.txt");
}

#[test]
fn status_shows_the_same_facts_as_text_and_json() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let source = format!("oci:{}", fixtures().join("oras-files/layout").display());
    let mount = home.mount(&source, &["--cache-size", "1GiB"]);
    let point = mount.root().to_str().unwrap();
    let rows = json(&home, &["status", point]);
    let row = &rows[0];
    let wanted = "cache exit_timeout log mount_point offline pid read_only since source staged staged_bytes staging_size state \
        state_directory unlisted users version";
    assert_eq!(keys(row), wanted.split_whitespace().collect::<Vec<_>>());
    assert_eq!(keys(&row["cache"]), ["data", "directory", "indexes", "pinned", "size", "streams"]);
    assert_eq!(
        (row["mount_point"].as_str(), row["source"].as_str(), row["state"].as_str()),
        (Some(point), Some(source.as_str()), Some("running"))
    );
    assert_eq!(row["cache"]["size"], 1 << 30);
    let shown = prints(&home, &["status", mount.path("v1").to_str().unwrap()]);
    for part in [point, &source, "running", "1.0 GiB", row["log"].as_str().unwrap()] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(std::path::Path::new(row["log"].as_str().unwrap()).is_file());
    assert!(prints(&home, &["status"]).contains(point));
    // The metadata directory shows the same to users without the program.
    let window: Value = serde_json::from_slice(&mount.cat(".oci/status.json").unwrap()).unwrap();
    assert_eq!((&window["source"], &window["pid"]), (&row["source"], &row["pid"]));
    mount.unmount();
    assert_eq!(fails(&home, &["status", home.path("mounts").to_str().unwrap()]).0, Some(15));
    assert_eq!(fails(&home, &["refresh", home.path("mounts").to_str().unwrap()]).0, Some(15));
}

#[test]
fn cache_commands_show_pin_check_and_clear() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let mut registry = Registry::plain();
    Layout::fixture("image-umoci").push(&registry.url(), "team/app");
    let home = Home::new();
    let cache = home.path("cache");
    let at = ["--cache-dir", cache.to_str().unwrap()];
    let run = |args: &[&str]| prints(&home, &[args, &at].concat());
    let (pinned, other) = (format!("{}/team/app:l1", registry.host()), format!("{}/team/app:l3", registry.host()));
    assert!(run(&["cache", "pin", &pinned]).contains("sha256:"));
    let info = json(&home, &[&["cache", "info"], at.as_slice()].concat());
    assert_eq!(keys(&info), ["data", "directory", "indexes", "pinned", "size", "streams"]);
    assert!(info["pinned"].as_u64().unwrap() > 500_000, "{info}");
    // Pinned content stays, and is readable while the registry is down.
    run(&["cache", "clear"]);
    let verified = json(&home, &[&["cache", "verify"], at.as_slice()].concat());
    assert_eq!(keys(&verified), ["broken", "checked"]);
    assert_eq!(verified["broken"], 0);
    assert!(verified["checked"].as_u64().unwrap() >= 1, "{verified}");
    registry.stop();
    let mount = home.mount(&format!("{}/team", registry.host()), &["--offline"]);
    assert_eq!(mount.cat("app/l1/touch").unwrap(), b"same content\n");
    mount.unmount();
    registry.start_again();
    assert_eq!(fails(&home, &[&["cache", "unpin", &other], at.as_slice()].concat()).0, Some(10));
    run(&["cache", "unpin", &pinned]);
    run(&["cache", "clear"]);
    assert_eq!(json(&home, &[&["cache", "info"], at.as_slice()].concat())["data"], 0);
    assert_eq!(fails(&home, &[&["cache", "pin", &format!("{other}-not-there")], at.as_slice()].concat()).0, Some(10));
}

#[test]
fn help_fits_a_terminal_and_describes_every_flag() {
    let home = Home::new();
    let commands: [&[&str]; 13] = [
        &[],
        &["mount"],
        &["umount"],
        &["status"],
        &["refresh"],
        &["inspect"],
        &["cache"],
        &["cache", "info"],
        &["cache", "pin"],
        &["cache", "unpin"],
        &["cache", "clear"],
        &["cache", "verify"],
        &["unmount"],
    ];
    for command in commands {
        let short = prints(&home, &[command, &["-h"]].concat());
        let long = prints(&home, &[command, &["--help"]].concat());
        for help in [&short, &long] {
            assert!(help.contains("Usage: ocifs"), "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{command:?}: {help}");
        }
        // A flag is alone on its line only if its description follows below.
        let lines: Vec<&str> = long.lines().collect();
        for (place, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("--")) {
            let told = line.trim_start().contains("  ") || lines.get(place + 1).is_some_and(|next| next.starts_with("          "));
            assert!(told, "{command:?}: {line} without a sentence");
        }
    }
    assert_eq!(home.run(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(home.run(&["mount", "only-one-argument"]).status.code(), Some(2));
}

#[test]
fn a_mistake_in_the_configuration_file_is_reported_with_its_position() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let folder = home.path("config/ocifs");
    std::fs::create_dir_all(&folder).unwrap();
    let own = home.path("own-log");
    std::fs::write(folder.join("config.yaml"), format!("cache-size: 2GiB\nlog-file: {}\nfile-mode: 0400\n", own.display())).unwrap();
    let mount = home.mount(&format!("oci:{}", fixtures().join("oras-files/layout").display()), &[]);
    let row = &json(&home, &["status", mount.root().to_str().unwrap()])[0];
    assert_eq!((row["cache"]["size"].as_u64(), row["log"].as_str()), (Some(2 << 30), own.to_str()));
    mount.unmount();
    std::fs::write(folder.join("config.yaml"), "cache-size: 2GiB\ncolour: blue\n").unwrap();
    let (code, message) = fails(&home, &["status"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("config.yaml") && message.contains("line 2") && message.contains("colour"), "{message}");
    assert_eq!(message.matches("colour").count(), 1, "said once: {message}");
}

#[test]
fn a_verbose_log_has_every_request_and_a_failed_mount_names_its_log() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    Layout::fixture("image-umoci").push(&registry.url(), "team/app");
    let home = Home::new();
    let source = format!("{}/team", registry.host());
    let mount = home.mount(&source, &["-vv"]);
    mount.cat("app/l1/touch").unwrap();
    let log = json(&home, &["status", mount.root().to_str().unwrap()])[0]["log"].as_str().unwrap().to_owned();
    mount.unmount();
    let written = std::fs::read_to_string(&log).unwrap();
    for part in ["GET", "/v2/team/app/manifests/l1", "/v2/team/app/blobs/sha256:", "status=200"] {
        assert!(written.contains(part), "{part} in {written}");
    }
    drop(registry);
    let failed = home.try_mount(&source, &[]).err().unwrap();
    let message = String::from_utf8(failed.stderr).unwrap();
    assert_eq!((failed.status.code(), message.lines().count()), (Some(14), 1), "{message}");
    assert!(message.contains("/log/") && message.contains(".log"), "{message}");
}

/// A mount of `team` in its own registry: `app:v1` and `app/web:v1` edited, `app:v2` created.
fn edited<'home>(home: &'home Home, registry: &Registry, flags: &[&str]) -> Mount<'home> {
    for repository in ["team/app", "team/app/web"] {
        let mut draft = Draft::new();
        draft.files("v1", &[("file", b"first\n"), ("other", b"other\n")]);
        draft.layout().push(&registry.url(), repository);
    }
    let mount = home.mount(&format!("{}/team", registry.host()), flags);
    mount.write("app/v1/file", "edited\n");
    mount.write("app/v2/sub/new", "new\n");
    mount.write("app/web/v1/page", "more\n");
    mount
}

/// Kills the daemon of a mount as a crash would. The mount stays behind.
fn crash(mount: &Mount<'_>) {
    rustix::process::kill_process(mount.daemon(), rustix::process::Signal::KILL).unwrap();
    while std::fs::read_dir(mount.root()).is_ok() {
        std::thread::yield_now();
    }
}

/// The complete output and exit code of a command, without what differs between runs: names of registry and mount point, and digests and sizes of
/// archives, which depend on the times of the edits.
fn said(home: &Home, mount: &Mount<'_>, registry: &Registry, command: &str) -> String {
    let (host, root) = (registry.host(), mount.root().to_str().unwrap().to_owned());
    let words: Vec<String> = command.split(' ').map(|word| word.replace("DIR", &root).replace("REG", &host)).collect();
    let output = home.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let said = text(&output).replace(&root, "DIR").replace(&host, "REG");
    let mut parts = said.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| format!("DIGEST{}", part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit())));
    let said = format!("{first}{}", rest.collect::<String>());
    let without_sizes: Vec<&str> = said.split(", ").filter(|part| !part.ends_with(" sent")).collect();
    format!("{command}\n{}", without_sizes.join(", "))
}

/// Commands about staged tags, in this order.
const COMMANDS: &str = "\
    diff DIR|diff --format json DIR/app|diff DIR/app/v1|diff DIR/app/v1/file|diff DIR/app/v2/sub|diff DIR/app/v1/nothing|diff DIR/./app//web|\
    diff DIR/nothing|diff DIR/app/nothing/deep|diff REG|diff REG/team|diff REG/team/app|diff --format json REG/team/app:v1|diff REG/team/app/web|\
    diff REG/team/app:nothing|diff REG/team/nothing|diff REG/nothing|diff other.example/app:v1|\
    sync --dry-run DIR|sync --dry-run DIR/app/v1/file|sync --dry-run --format json REG/team/app:v2|sync --dry-run DIR/nothing|\
    sync --dry-run REG/team/app:nothing|sync --dry-run --as v9 DIR/app/v2|sync --as v9 DIR|sync --as v9 REG/team|sync --as v1 DIR/app/v2|\
    discard DIR|discard DIR/app/v1/file|discard REG/team/app:v1|discard DIR/nothing|discard REG/team/app:nothing|\
    new REG/team/deep/repo:v1|new DIR/app/v3|new DIR/app:v4|new DIR/app/v1|new REG/team/app:v2|new REG/other:v1|new REG/team/app|\
    discard --yes DIR/app/v2/sub/new|diff DIR/app/v2|discard --yes REG/team/app:v2|discard --yes DIR/app/v3|\
    sync DIR/app/web|sync REG/team/app:v1|sync REG/team/app:v1|sync DIR|sync --force REG/team/deep|discard --yes DIR|sync DIR|diff REG|\
    discard --yes DIR";

#[test]
fn commands_work_the_same_with_and_without_a_daemon() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let run = |has_daemon: bool| {
        let (home, registry) = (Home::new(), Registry::plain());
        let mount = edited(&home, &registry, &[]);
        if !has_daemon {
            crash(&mount);
        }
        let said: Vec<String> = COMMANDS.split('|').map(|command| said(&home, &mount, &registry, command)).collect();
        // The second command works on the state that the first one left, through the daemon or not.
        let other = Home::new();
        let fresh = other.mount(&format!("{}/team", registry.host()), &["--read-only"]);
        let read = |name: &str| fresh.cat(name).ok().map(|bytes| String::from_utf8(bytes).unwrap());
        let upstream = ["app/v1/file", "app/web/v1/page", "app/v2/sub/new"].map(read);
        fresh.unmount();
        (said, upstream)
    };
    let ((with, upstream), (without, other)) = (run(true), run(false));
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(with, without, "with a daemon, and without");
    }
    assert_eq!(upstream, [Some("edited\n".to_owned()), Some("more\n".to_owned()), None]);
    assert_eq!(other, upstream);
    // Checked against fixed expectations too, in case both sides make the same mistake.
    let ended = |command: &str| {
        let of_it = with.iter().find(|said| said.starts_with(&format!("{command}\n"))).unwrap();
        of_it.lines().nth(1).unwrap().to_owned()
    };
    for (command, code) in [
        ("diff DIR", 0),
        ("diff DIR/nothing", 10),
        ("diff REG/team/nothing", 0),
        ("sync --as v9 DIR", 2),
        ("sync --as v9 REG/team", 2),
        ("sync --as v1 DIR/app/v2", 13),
        ("discard DIR", 2),
        ("new DIR/app/v1", 1),
        ("new REG/other:v1", 15),
        ("sync DIR/app/web", 0),
        ("sync DIR", 16),
    ] {
        assert_eq!(ended(command), format!("exit status: {code}"), "{command}");
    }
}

#[test]
fn a_dead_mount_with_an_unknown_state_directory_is_an_error() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mount = edited(&home, &registry, &[]);
    crash(&mount);
    let root = mount.root().to_str().unwrap();
    assert!(prints(&home, &["sync", "--dry-run", root]).contains("would publish"));
    let rows = json(&home, &["status", root]);
    let left: Vec<&Value> = rows[1]["staged"].as_array().unwrap().iter().map(|tag| &tag["reference"]).collect();
    assert_eq!((rows[0]["state"].as_str(), rows[1]["state"].as_str(), left.len()), (Some("dead"), Some("left"), 3), "{rows}");
    // Its record is lost, and its state directory is not the default one.
    let (records, lost) = (home.path("run/ocifs"), home.path("lost"));
    std::fs::rename(&records, &lost).unwrap();
    for command in ["sync", "diff", "discard"] {
        let (code, message) = fails(&home, &[command, root]);
        assert!(code == Some(15) && message.contains("--state-dir"), "{command}: {code:?} {message}");
    }
    let state = home.path("state");
    assert!(prints(&home, &["sync", "--dry-run", "--state-dir", state.to_str().unwrap(), root]).contains("would publish"));
    // The record suffices if somebody removed the dead mount.
    std::fs::rename(&lost, &records).unwrap();
    assert!(std::process::Command::new("umount").args(["-l", root]).status().unwrap().success());
    assert!(prints(&home, &["sync", "--dry-run", &format!("{root}/app/v2")]).contains("would publish"));
    std::fs::rename(&records, &lost).unwrap();
    let (code, message) = fails(&home, &["sync", root]);
    assert!(code == Some(15) && message.contains("is not in an ocifs mount"), "{code:?} {message}");
}

#[test]
fn edits_keep_the_platform_of_their_mount() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let copy = home.path("layout");
    let copied = std::process::Command::new("cp").arg("-r").arg(fixtures().join("image-index/layout")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let layout = Layout::at(&copy);
    let members = || -> Vec<(String, String)> {
        let index = layout.manifest("buildkit");
        let of = |member: &Value| (format!("{}", member["platform"]["architecture"]), member["digest"].to_string());
        index["manifests"].as_array().unwrap().iter().map(of).filter(|(architecture, _)| architecture != "\"unknown\"").collect()
    };
    let before = members();
    let source = format!("oci:{}", copy.display());
    let mount = home.mount(&source, &["--platform", "linux/arm64"]);
    mount.write("buildkit/newfile", "edit\n");
    crash(&mount);
    drop(mount);
    // Another mount shows the edits and says so.
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.cat("buildkit/newfile").unwrap(), b"edit\n");
    let status = prints(&home, &["status", mount.root().to_str().unwrap()]);
    assert!(status.contains("platform linux/arm64, as staged"), "{status}");
    mount.leave();
    let (state, reference) = (home.path("state"), format!("{source}:buildkit"));
    let output = home.run(&["sync", "--state-dir", state.to_str().unwrap(), &reference]);
    assert!(output.status.success() && text(&output).contains("platform linux/arm64, as staged"), "{}", text(&output));
    let after = members();
    let changed: Vec<&str> =
        before.iter().zip(&after).filter(|(before, after)| before != after).map(|(before, _)| before.0.as_str()).collect();
    assert_eq!(changed, ["\"arm64\""], "{before:?} {after:?}");
}
