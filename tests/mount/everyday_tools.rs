//! Everyday programs on a mount: listing, copying, searching, packing, comparing. They work, copy only what the artifact holds, and cause no
//! needless request.

use crate::support::artifacts::Draft;
use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::{Home, Mount, text};
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

fn umoci_image(home: &Home) -> Mount<'_> {
    home.mount(&format!("oci:{}", fixtures().join("image-umoci/layout").display()), &["--read-only"])
}

/// All regular files below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}

#[test]
fn copies_by_cp_rsync_and_tar_hold_only_what_the_artifact_holds() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("rsync"), Need::Tool("getfattr")]) {
        return;
    }
    let (shell, home) = (Shell::new(), Home::new());
    let mount = umoci_image(&home);
    shell.at(
        mount.root(),
        r#"cp -a "$M/l2" cp; mkdir rsync tar; rsync -aHAX "$M/l2/" rsync
        tar --xattrs --xattrs-include='*' -C "$M/l2" -c . | tar --xattrs --xattrs-include='*' -C tar -xp"#,
    );
    let expected = fixtures().join("image-umoci/expected/l2.tsv");
    let compare = r#"python3 "$TREELIST" --links --xattrs --compare "$EXPECTED" $COPY"#;
    for copy in ["cp", "rsync", "tar"] {
        let variables = [
            ("TREELIST", fixtures().join("treelist").into_os_string()),
            ("EXPECTED", expected.clone().into_os_string()),
            ("COPY", copy.into()),
        ];
        shell.run(compare, &variables);
        assert_eq!(shell.run("getfattr -dRhm - $COPY | grep -a user.oci || true", &variables), "", "{copy}");
    }
    // Nothing needs to be copied twice.
    assert_eq!(shell.at(mount.root(), r#"rsync -aHAX --itemize-changes "$M/l2/" rsync"#), "");
    mount.unmount();
}

#[test]
fn files_that_are_whole_blobs_have_the_same_time_on_every_mount() {
    if lacks(&[Need::Fuse, Need::Tool("rsync")]) {
        return;
    }
    let (shell, home, mut draft) = (Shell::new(), Home::new(), Draft::new());
    draft.files("undated", &[("a", b"a"), ("sub/b", b"b")]);
    let mut manifest = draft.layout().manifest("undated");
    manifest["annotations"] = json!({ "org.opencontainers.image.created": "2024-05-06T07:08:09Z" });
    draft.tag("dated", &manifest);
    let source = format!("oci:{}", draft.path().display());
    let mount = home.mount(&source, &[]);
    // A tag not entered yet shows the start of the mount as its time.
    let times = "cd $M; ls dated undated >/dev/null; stat -c '%n %Y' dated dated/sub dated/sub/b undated undated/sub undated/a";
    let expected: Vec<String> = ["dated", "dated/sub", "dated/sub/b"].iter().map(|name| format!("{name} 1714979289\n")).collect();
    let undated: Vec<String> = ["undated", "undated/sub", "undated/a"].iter().map(|name| format!("{name} 315532800\n")).collect();
    assert_eq!(shell.at(mount.root(), times), expected.concat() + &undated.concat());
    shell.at(mount.root(), "rsync -a $M/dated $M/undated copy/");
    mount.unmount();
    let mount = home.mount(&source, &[]);
    assert_eq!(
        shell.at(mount.root(), "ls $M/dated $M/undated >/dev/null; rsync -ai $M/dated $M/undated copy/"),
        "",
        "nothing is copied twice"
    );
    // The placeholder is not a time of any file.
    shell.at(mount.root(), "chmod 755 $M/undated/a $M/dated/a");
    mount.sync(&[]);
    mount.unmount();
    let mount = home.mount(&source, &["--read-only"]);
    assert_eq!(shell.at(mount.root(), "cd $M; stat -c '%a %Y' dated/a undated/a"), "755 1714979289\n755 0\n");
    mount.unmount();
}

#[test]
fn browsing_tools_work_and_ocifs_attributes_are_read_only_by_name() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("getfattr"), Need::Tool("git"), Need::Tool("findmnt")]) {
        return;
    }
    let (shell, home) = (Shell::new(), Home::new());
    let mount = umoci_image(&home);
    let see = |script: &str| shell.at(mount.root(), script);
    let listed = see("ls -laR $M");
    assert!(listed.contains("passwd") && listed.contains("loop-a -> loop-b"), "{listed}");
    assert_eq!(see("find $M -xdev | wc -l"), see("find $M | wc -l"));
    assert!(see("grep -r root: $M/l1").contains("etc/passwd:root:"));
    assert_eq!(see("getfattr -d -m '^user.oci' $M/l1 $M"), "");
    let digest = Layout::fixture("image-umoci").entries()[0]["digest"].as_str().unwrap().to_owned();
    let tag = Layout::fixture("image-umoci").tags()[0].clone();
    assert_eq!(see(&format!("getfattr --only-values -n user.oci.digest $M/{tag}")), digest);
    assert_eq!(
        see("getfattr --only-values -n user.oci.reference $M/l1"),
        format!("oci:{}:l1", fixtures().join("image-umoci/layout").display())
    );
    let table = see("findmnt -no FSTYPE,OPTIONS $M");
    assert!(table.starts_with("fuse.ocifs ") && table.contains("nosuid") && table.contains("nodev"), "{table}");
    assert_eq!(see("df --output=fstype,pcent $M | tail -1 | cut -d' ' -f1"), "fuse.ocifs\n");
    assert!(see("stat -f -c %S:%l $M").starts_with("4096:255"));
    assert!(see("du -s --apparent-size -B1 $M/l1 | cut -f1").trim().parse::<u64>().unwrap() > 100_000);
    let git = shell.attempt("cd $M/l1 && git status", &[("M", mount.root())]);
    assert!(text(&git).contains("not a git repository"), "{}", text(&git));
    for attempt in
        ["touch $M/l1/new", "mkdir $M/l9", "rm $M/l1/touch", "mv $M/l1 $M/l9", "chmod 1 $M/l1/touch", "setfattr -n user.a -v b $M/l1/touch"]
    {
        let refused = shell.attempt(attempt, &[("M", mount.root())]);
        assert!(text(&refused).contains("Read-only file system"), "{attempt}: {}", text(&refused));
    }
    mount.unmount();
}

#[test]
fn hundreds_of_open_and_mapped_files_have_the_right_bytes_and_log_nothing() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("python3")]) {
        return;
    }
    let (shell, home) = (Shell::new(), Home::new());
    let mount = umoci_image(&home);
    let files = files(mount.root());
    let mut open: Vec<(&PathBuf, File)> = files.iter().cycle().take(400).map(|path| (path, File::open(path).unwrap())).collect();
    for (path, file) in &mut open {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, path.metadata().unwrap().len(), "{}", path.display());
    }
    let mapped = r#"import hashlib, mmap, os, sys
for folder, _, names in os.walk(os.fsencode(os.environ["M"])):
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path):
            with open(path, "rb") as file:
                view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                assert hashlib.sha256(view).digest() == hashlib.sha256(file.read()).digest(), path"#;
    shell.run(r#"python3 -c "$SCRIPT""#, &[("SCRIPT", mapped.as_ref()), ("M", mount.root().as_os_str())]);
    drop(open);
    mount.unmount();
    // None of this is worth a warning.
    let log = home.path("state/log");
    let log: String = std::fs::read_dir(log).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert!(log.contains("INFO") && !log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn probes_of_shells_and_desktops_cost_no_request() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    Layout::fixture("oras-files").push(&registry.url(), "team/app");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&proxy.host(), &[]);
    mount.ls("").unwrap();
    mount.ls("team").unwrap();
    mount.ls("team/app").unwrap();
    proxy.forget();
    for folder in ["", "team", "team/app"] {
        for name in
            [".git", ".git/HEAD", ".hg", ".envrc", "Desktop.ini", ".DS_Store", ".Trash-0", ".hidden", "autorun.inf~", "Thumbs.db:x", "HEAD"]
        {
            let path = Path::new(folder).join(name);
            // Only names that could be tags have to be looked up.
            if !folder.is_empty() && ["Desktop.ini", "HEAD"].contains(&name) {
                continue;
            }
            assert_eq!(mount.path(&path).symlink_metadata().unwrap_err().kind(), std::io::ErrorKind::NotFound, "{}", path.display());
        }
    }
    assert_eq!(proxy.requests(), []);
    mount.unmount();
}

#[test]
fn a_shell_inside_a_moving_tag_keeps_the_old_version_and_lookups_see_the_new() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    let mut old = Draft::new();
    old.files("latest", &[("version", b"one"), ("only-old", b"x")]);
    old.layout().push(&registry.url(), "team/app");
    let (shell, home) = (Shell::new(), Home::new());
    let mount = home.mount(&format!("{}/team", registry.host()), &["--tag-ttl", "1h"]);
    let inside = File::open(mount.path("app/latest")).unwrap();
    let held = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&inside)));
    assert_eq!(std::fs::read(held.join("version")).unwrap(), b"one");
    let mut new = Draft::new();
    new.files("latest", &[("version", b"three")]);
    new.layout().push(&registry.url(), "team/app");
    assert_eq!(mount.cat("app/latest/version").unwrap(), b"one", "the tag is trusted for an hour");
    let refreshed = home.run(&["refresh", mount.path("app").to_str().unwrap()]);
    assert!(refreshed.status.success(), "{}", text(&refreshed));
    // The kernel keeps a name for at most a second.
    let wait = r#"for _ in $(seq 600); do [ "$(cat $M/app/latest/version)" = one ] || break; read -t 0.1 <> <(:) || true; done; cat $M/app/latest/version"#;
    assert_eq!(shell.at(mount.root(), wait), "three");
    assert!(!mount.path("app/latest/only-old").exists());
    assert_eq!(std::fs::read(held.join("version")).unwrap(), b"one", "who is inside stays");
    assert_eq!(std::fs::read(held.join("only-old")).unwrap(), b"x");
    drop(inside);
    mount.unmount();
}
