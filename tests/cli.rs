//! The command line without a kernel: exit codes, help, configuration, message format. Needs neither FUSE nor a network.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const LAYOUT: &str = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oras-files/layout");

/// A private home and an otherwise empty environment.
struct PrivateHome(TempDir);

impl PrivateHome {
    fn new() -> Self {
        let home = Self(TempDir::new().unwrap());
        std::fs::create_dir(home.0.path().join("mnt")).unwrap();
        home
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
        command.args(arguments).env_clear().env("HOME", self.0.path()).stdin(Stdio::null());
        // Root uses the system directories.
        command.env("XDG_CACHE_HOME", self.path(".cache")).env("XDG_STATE_HOME", self.path(".state"));
        command.env("XDG_CONFIG_HOME", self.path(".config"));
        command
    }

    /// Exit code and standard error of a command that fails with a one-line reason.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        reason(&self.command(arguments).output().unwrap())
    }

    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn reason(output: &Output) -> (i32, String) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.stdout, b"", "results belong to standard output, reasons do not");
    assert_eq!(text.lines().count(), 1, "one line of reason: {text}");
    assert!(text.starts_with("ocifs: "), "{text}");
    (output.status.code().unwrap(), text)
}

#[test]
fn every_command_and_flag_is_in_the_help_under_a_heading() {
    let home = PrivateHome::new();
    let help = home.prints(&["--help"]);
    for command in [
        "mount", "umount", "status", "sync", "diff", "discard", "new", "refresh", "cache", "inspect", "push", "cp", "tag", "resolve",
        "doctor",
    ] {
        assert!(help.contains(&format!("  {command}")), "{command}");
    }
    let help = home.prints(&["mount", "--help"]);
    assert_eq!(home.prints(&["help", "mount"]), help);
    for heading in ["Content:", "Permissions:", "Writing:", "Cache and state:", "Registry:", "Encrypted artifacts:", "Logging:"] {
        assert!(help.contains(heading), "{heading}");
    }
    let flags = "--foreground --cache-dir --cache-size --cache-min-free --memory-limit --state-dir --tag-ttl --io-timeout --verify --trust-index --view \
        --platform --repo --allow-other --uid --gid --file-mode --dir-mode --plain-http --insecure --ca-file --cert-file --key-file \
        --registry-config --passphrase-file --passphrase-fd --passphrase-command --read-only --offline --options --allow-delete --plaintext --no-index --staging-size --exit-timeout --as-kind --concurrency";
    for flag in flags.split_whitespace() {
        assert!(help.contains(flag), "{flag}");
    }
    for (command, flags) in [
        (
            "sync",
            "--yes --dry-run --as --force --theirs --rebase --allow-delete --plaintext --as-kind --concurrency --no-ignore --format --state-dir",
        ),
        ("umount", "--no-sync --discard --plaintext --yes --lazy"),
        ("diff", "--format"),
        ("discard", "--yes"),
    ] {
        let help = home.prints(&[command, "--help"]);
        flags.split_whitespace().for_each(|flag| assert!(help.contains(flag), "{command} {flag}"));
    }
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let home = PrivateHome::new();
    let mnt = home.path("mnt");
    for arguments in [
        vec!["mount"],
        vec!["mount", "reg.io"],
        vec!["frobnicate"],
        vec!["mount", "--cache-size=lots", "reg.io", &mnt],
        vec!["mount", "--cache-size=10", "reg.io", &mnt],
        vec!["mount", "--memory-limit=1M", "reg.io", &mnt],
        vec!["mount", "--tag-ttl=soon", "reg.io", &mnt],
        vec!["mount", "--file-mode=9", "reg.io", &mnt],
        vec!["mount", "--platform=linux", "reg.io", &mnt],
        vec!["mount", "--cert-file=x", "reg.io", &mnt],
        vec!["mount", "--staging-size=much", "reg.io", &mnt],
        vec!["mount", "--concurrency=0", "reg.io", &mnt],
        vec!["mount", "--as-kind=zip", "reg.io", &mnt],
        vec!["sync", "--as=not/a/tag"],
        vec!["sync", "--theirs", "--rebase"],
        vec!["sync", "--as=v2", "--theirs"],
        vec!["umount", "--discard", "--no-sync", &mnt],
        vec!["umount", "--yes", &mnt],
        vec!["new"],
    ] {
        let output = home.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    for arguments in [
        vec!["mount", "reg.io/UPPER", &mnt],
        vec!["mount", "reg.io/a@sha256:../../x", &mnt],
        vec!["mount", "reg.io/a@md5:0123", &mnt],
        vec!["mount", "-o", "ro,colour=blue", "reg.io", &mnt],
        vec!["mount", "--plain-http", "--insecure", "reg.io", &mnt],
        vec!["mount", "--repo=UPPER", "--check-only", "localhost:1", &mnt],
        vec!["inspect", "reg.io"],
        vec!["sync", "reg.io/UPPER"],
        vec!["new", "reg.io/team/app"],
    ] {
        assert_eq!(home.fails(&arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn control_characters_in_names_never_reach_the_terminal() {
    let home = PrivateHome::new();
    let (code, text) = home.fails(&["mount", "reg.io/a\x1b[2J", &home.path("mnt")]);
    assert!(code == 2 && !text.contains('\x1b'), "{text:?}");
}

#[test]
fn an_unusable_mount_point_exits_with_15_before_any_request() {
    let home = PrivateHome::new();
    std::fs::write(home.path("file"), "").unwrap();
    std::fs::create_dir_all(home.path("full/entry")).unwrap();
    std::fs::create_dir_all(home.path(".cache/ocifs/mnt")).unwrap();
    for (point, word) in [
        ("none", "does not exist"),
        ("file", "is not a directory"),
        ("full", "is not empty"),
        (".cache/ocifs/mnt", "cache directory"),
        (".cache", "cache directory"),
    ] {
        // The registry does not exist: a request to it would give another exit code.
        let (code, text) = home.fails(&["mount", "registry.invalid", &home.path(point)]);
        assert!(code == 15 && text.contains(word), "{point}: {code} {text}");
    }
    let (code, text) = home.fails(&["mount", LAYOUT, "/dev/fd/0"]);
    assert!(code == 15 && text.contains("/dev/fuse"), "{text}");
}

#[test]
fn absence_has_its_own_exit_code() {
    let home = PrivateHome::new();
    let mnt = home.path("mnt");
    for (source, code) in [
        ("registry.invalid/team".to_owned(), 14),
        ("127.0.0.1:1/team".to_owned(), 14),
        ("oci:/no/such/layout".to_owned(), 10),
        (format!("{LAYOUT}:no-such-tag"), 10),
        (format!("{LAYOUT}@sha256:{}", "0".repeat(64)), 10),
        (format!("oci:{}/tests/fixtures/oci-sync-rust/layout:sealed", env!("CARGO_MANIFEST_DIR")), 12),
    ] {
        for arguments in [vec!["mount", "--check-only", &source, &mnt], vec!["mount", &source, &mnt]] {
            let (found, text) = home.fails(&arguments);
            assert_eq!(found, code, "{source}: {text}");
        }
    }
    assert_eq!(std::fs::read_dir(&mnt).unwrap().count(), 0);
    assert_eq!(home.fails(&["umount", &mnt]).0, 15);
    assert_eq!(home.fails(&["status", &mnt]).0, 15);
    assert_eq!(home.fails(&["refresh", &mnt]).0, 15);
    assert_eq!(home.fails(&["umount", "/"]).0, 15);
}

#[test]
fn a_missing_home_is_named() {
    let home = PrivateHome::new();
    if rustix::process::geteuid().is_root() {
        // Root uses system directories and needs no home.
        return;
    }
    let output = home.command(&["cache", "info"]).env_remove("HOME").env_remove("XDG_CACHE_HOME").output().unwrap();
    let (code, text) = reason(&output);
    assert!(code == 2 && text.contains("HOME") && text.contains("--cache-dir"), "{text}");
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let home = PrivateHome::new();
    let size = |command: &mut Command| -> u64 {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        value["size"].as_u64().unwrap()
    };
    let cache = home.path("cache");
    let info = ["cache", "info", "--format=json", "--cache-dir", &cache];
    assert_eq!(size(&mut home.command(&info)), 10 << 30);
    std::fs::create_dir_all(home.path(".config/ocifs")).unwrap();
    std::fs::write(home.path(".config/ocifs/config.yaml"), "cache-size: 3GiB\n").unwrap();
    assert_eq!(size(&mut home.command(&info)), 3 << 30);
    assert_eq!(size(home.command(&info).env("OCIFS_CACHE_SIZE", "2GiB")), 2 << 30);
    assert_eq!(size(home.command(&info).arg("--cache-size=1GiB").env("OCIFS_CACHE_SIZE", "2GiB")), 1 << 30);
    std::fs::write(home.path("other.yaml"), "cache-size: 4GiB\n").unwrap();
    assert_eq!(size(home.command(&info).args(["--config", &home.path("other.yaml")])), 4 << 30);
}

#[test]
fn a_mistake_in_the_configuration_file_is_named_with_its_position() {
    let home = PrivateHome::new();
    let file = home.path("config.yaml");
    std::fs::write(&file, "cache-sise: 1G\n").unwrap();
    let (code, text) = home.fails(&["cache", "info", "--config", &file]);
    assert!(code == 2 && text.contains(&file) && text.contains("cache-sise"), "{text}");
    assert!(home.fails(&["cache", "info", "--config", "/no/such.yaml"]).1.contains("/no/such.yaml"));
}

#[test]
fn inspect_describes_an_artifact_without_fetching_it() {
    let home = PrivateHome::new();
    let reference = format!("{LAYOUT}:v1");
    let value: serde_json::Value = serde_json::from_str(&home.prints(&["inspect", "--format=json", &reference])).unwrap();
    assert_eq!((value["kind"].as_str(), value["encrypted"].as_bool()), (Some("files"), Some(false)));
    let layers = value["layers"].as_array().unwrap();
    let hello = layers.iter().find(|layer| layer["title"] == "hello.txt").unwrap();
    assert_eq!((hello["size"].as_u64(), hello["readable"].as_str()), (Some(12), Some("at-once")));
    assert!(home.prints(&["inspect", &reference]).contains("hello.txt"));
    let sealed = format!("oci:{}/tests/fixtures/oci-sync-rust/layout:sealed", env!("CARGO_MANIFEST_DIR"));
    let value: serde_json::Value = serde_json::from_str(&home.prints(&["inspect", "--format=json", &sealed])).unwrap();
    assert_eq!((value["kind"].as_str(), value["encrypted"].as_bool()), (Some("oci-sync"), Some(true)));
}

#[test]
fn a_pinned_artifact_survives_clearing() {
    let home = PrivateHome::new();
    let image = format!("oci:{}/tests/fixtures/image-umoci/layout:l1", env!("CARGO_MANIFEST_DIR"));
    let cache = home.path("cache");
    let with_cache = |arguments: &[&str]| home.prints(&[arguments, &["--cache-dir", &cache]].concat());
    assert!(with_cache(&["cache", "pin", &image]).contains("pinned"));
    with_cache(&["cache", "clear"]);
    let value: serde_json::Value = serde_json::from_str(&with_cache(&["cache", "info", "--format=json"])).unwrap();
    assert!(value["pinned"].as_u64().unwrap() > 0, "{value}");
    assert!(with_cache(&["cache", "verify"]).contains(" 0 broken"));
    with_cache(&["cache", "unpin", &image]);
    assert_eq!(home.fails(&["cache", "unpin", &image, "--cache-dir", &cache]).0, 10);
    with_cache(&["cache", "clear"]);
    let value: serde_json::Value = serde_json::from_str(&with_cache(&["cache", "info", "--format=json"])).unwrap();
    assert_eq!(value["data"].as_u64(), Some(0));
}

#[test]
fn as_mount_ocifs_it_accepts_the_arguments_of_mount_8() {
    let home = PrivateHome::new();
    let helper = home.path("mount.ocifs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ocifs"), &helper).unwrap();
    let run = |arguments: &[&str]| {
        Command::new(Path::new(&helper))
            .args(arguments)
            .env_clear()
            .env("HOME", home.path(""))
            .env("XDG_CACHE_HOME", home.path("c"))
            .env("XDG_STATE_HOME", home.path("s"))
            .output()
            .unwrap()
    };
    let mnt = home.path("mnt");
    // -f is mount(8)'s dry run: everything except the mount.
    let output = run(&[LAYOUT, &mnt, "-sfnv", "-o", "rw,noauto,_netdev,user,x-systemd.automount,tag-ttl=5m"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(reason(&run(&[LAYOUT, &mnt, "-o", "colour=blue"])).0, 2);
    assert_eq!(reason(&run(&[LAYOUT])).0, 2);
    assert_eq!(reason(&run(&[LAYOUT, &home.path("none"), "-o", "ro"])).0, 15);
}

#[test]
fn a_passphrase_on_the_command_line_is_warned_about_and_its_value_is_not_repeated() {
    let home = PrivateHome::new();
    let output = home.command(&["mount", "--check-only", "--passphrase", "hunter2", LAYOUT, &home.path("mnt")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("warning") && !text.contains("hunter2"), "{text}");
}

#[test]
fn without_staged_edits_there_is_nothing_to_do() {
    let home = PrivateHome::new();
    for arguments in [&["sync", "reg.io/team"][..], &["discard", "--yes", "reg.io/team/app:v1"], &["discard", "reg.io"]] {
        assert_eq!(home.prints(arguments), "nothing is staged\n", "{arguments:?}");
    }
    assert_eq!(home.prints(&["diff", "reg.io/team/app:v1"]), "");
    for command in ["sync", "diff"] {
        assert_eq!(home.prints(&[command, "--format=json", "oci:/no/such/layout"]), "[]\n", "{command}");
    }
    // Read-only commands leave no directory behind.
    assert!(!Path::new(&home.path(".state/ocifs/uppers")).exists());
}

#[test]
fn a_path_outside_of_every_mount_is_an_error() {
    let home = PrivateHome::new();
    for command in ["sync", "diff", "discard", "new"] {
        let (code, text) = home.fails(&[command, &home.path("mnt")]);
        assert!(code == 15 && text.contains("is not in an ocifs mount"), "{command}: {code} {text}");
    }
    let (code, text) = home.fails(&["new", "registry.invalid/team/app:v1"]);
    assert!(code == 15 && text.contains("no mount covers registry.invalid/team/app:v1"), "{code} {text}");
}

/// A tag with one file, staged as if left by a killed daemon, for this registry or layout.
fn leave_staged(state: &Path, origin: &str, authority: &str, repository: &str) {
    use ocifs::artifact::ViewMode;
    use ocifs::layer::{Metadata, NodeKind};
    use ocifs::staging::{Binding, Content, Named, Node, TagKey, Uppers};
    use ocifs::view::{ArtifactKind, Meaning};
    let uppers = Uppers::open(state, None).unwrap();
    let tag_key =
        TagKey { origin: origin.to_owned(), authority: authority.to_owned(), repository: repository.to_owned(), tag: "left".to_owned() };
    let meaning = Meaning {
        platform: "linux/amd64".parse().unwrap(),
        view: ViewMode::Merged,
        strict: false,
        kind: ArtifactKind::Files,
        allow_delete: false,
        encrypted: false,
    };
    let upper = meaning.begin(&uppers, &tag_key, Binding::default()).unwrap();
    let data = upper.new_data().unwrap();
    data.write_at(0, b"what was written").unwrap();
    let node = Node {
        kind: NodeKind::File,
        metadata: Metadata { mode: Some(0o644), owner: Some((0, 0)), mtime: Some((1_700_000_000, 0)), device: (0, 0) },
        ctime: (1_700_000_000, 0),
        links: 1,
        target: Vec::new(),
        content: Content::Data(data.id()),
        opaque: false,
        parent: 0,
    };
    upper
        .change(|change| {
            let key = change.add_node(&node)?;
            change.put_name(0, b"file.txt", Named::Node(key))
        })
        .unwrap();
}

#[test]
fn edits_left_by_a_crash_are_shown_kept_and_discarded_without_a_mount() {
    let home = PrivateHome::new();
    let state = home.path(".state/ocifs");
    leave_staged(Path::new(&state), "http://localhost:1", "localhost:1", "team/app");
    let reference = "localhost:1/team/app:left";
    let rows: serde_json::Value = serde_json::from_str(&home.prints(&["status", "--format=json"])).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["state"] == "left").unwrap();
    assert_eq!((row["source"].as_str(), row["mount_point"].is_null()), (Some("localhost:1"), true));
    assert_eq!((row["staged"][0]["reference"].as_str(), row["staged"][0]["added"].as_u64()), (Some(reference), Some(1)));
    let text = home.prints(&["status"]);
    assert!(text.contains(reference) && text.contains("outside any mount"), "{text}");
    // The registry is down: nothing is lost, and the exit code says why.
    let output = home.command(&["sync", "--format=json", reference]).output().unwrap();
    assert_eq!(output.status.code(), Some(14), "{}", String::from_utf8_lossy(&output.stderr));
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((reports[0]["outcome"].as_str(), reports[0]["reference"].as_str()), (Some("failed"), Some(reference)));
    let (code, text) = home.fails(&["discard", reference]);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    assert!(home.prints(&["status"]).contains(reference));
    assert_eq!(home.prints(&["discard", "--yes", "other.io"]), "nothing is staged\n");
    assert_eq!(home.prints(&["discard", "--yes", reference]), format!("discarded the edits of {reference}\n"));
    assert_eq!(home.prints(&["discard", "--yes", reference]), "nothing is staged\n");
}

#[test]
fn edits_left_by_a_crash_are_compared_and_published_without_a_mount() {
    let home = PrivateHome::new();
    let layout = home.path("layout");
    std::fs::create_dir(&layout).unwrap();
    let canonical = Path::new(&layout).canonicalize().unwrap();
    let authority = format!("oci:{}", canonical.display());
    let repository = ocifs::registry::Layout::repository().unwrap().to_string();
    leave_staged(Path::new(&home.path(".state/ocifs")), &authority, &authority, &repository);
    let reference = format!("{authority}:left");
    let rows: serde_json::Value = serde_json::from_str(&home.prints(&["diff", "--format=json", &reference])).unwrap();
    let file = rows.as_array().unwrap().iter().find(|row| row["path"] == "file.txt").unwrap();
    assert_eq!((file["state"].as_str(), file["kind"].as_str(), file["after"].as_u64()), (Some("added"), Some("file"), Some(16)));
    assert!(home.prints(&["diff", &reference]).contains("file.txt"));
    assert!(home.prints(&["sync", "--dry-run", &reference]).starts_with("would publish "));
    assert!(home.prints(&["sync", &reference]).starts_with(&format!("published {reference} sha256:")));
    assert_eq!(home.prints(&["sync", &reference]), "nothing is staged\n");
    let value: serde_json::Value = serde_json::from_str(&home.prints(&["inspect", "--format=json", &reference])).unwrap();
    assert_eq!(value["kind"], "files");
}
