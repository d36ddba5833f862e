//! Mounts with `--allow-other`: owners and modes are enforced from the first operation, and metadata reveals nothing.

use crate::support::mounting::{Home, Mount, text};
use crate::support::skip::{Need, lacks};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Output};

const NEEDS: [Need; 3] = [Need::Fuse, Need::Root, Need::Tool("setpriv")];
/// A group with another user as its member.
const GROUP: u32 = 4242;

/// A layout with the tags `closed` (0700), `open` (0777) and `shared` (0750, group), all owned by root.
fn layout(home: &Home) -> String {
    home.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    home.write("layout/index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
    std::fs::create_dir_all(home.path("layout/blobs/sha256")).unwrap();
    let source = format!("oci:{}", home.path("layout").display());
    let mount = home.mount(&source, &[]);
    for (tag, mode) in [("closed", 0o700), ("open", 0o777), ("shared", 0o750)] {
        mount.write(&format!("{tag}/map"), "treasure\n");
        chown(mount.path(tag), None, Some(GROUP)).unwrap();
        std::fs::set_permissions(mount.path(tag), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    mount.sync(&[]);
    mount.unmount();
    // Other users must be able to reach the mount point.
    for directory in ["", "mounts"] {
        std::fs::set_permissions(home.path(directory), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    source
}

/// Runs a program as another user.
fn other(groups: &str, program: &str, mount: &Mount<'_>, path: &str) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1000", "--regid", "1000", groups, program]).arg(mount.path(path)).output().unwrap()
}

#[track_caller]
fn denied(output: &Output) {
    assert!(!output.status.success() && text(output).contains("Permission denied"), "{}", text(output));
}

#[track_caller]
fn works(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[test]
fn modes_count_before_and_after_a_tag_is_entered() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let source = layout(&home);
    let member = format!("--groups={GROUP}");
    for is_entered in [false, true] {
        // Each operation is the first in its tag.
        for operation in 0..6 {
            let mount = home.mount(&source, &["--allow-other"]);
            let listed = Command::new("ls").arg("-l").arg(mount.root()).output().unwrap();
            works(&listed);
            if is_entered {
                for tag in ["closed", "open", "shared"] {
                    assert_eq!(mount.cat(&format!("{tag}/map")).unwrap(), b"treasure\n");
                }
            }
            match operation {
                0 => denied(&other("--clear-groups", "cat", &mount, "closed/map")),
                1 => denied(&other("--clear-groups", "ls", &mount, "closed")),
                2 => works(&other("--clear-groups", "touch", &mount, "open/new")),
                3 => denied(&other("--clear-groups", "cat", &mount, "shared/map")),
                4 => works(&other(&member, "cat", &mount, "shared/map")),
                _ => denied(&other(&member, "touch", &mount, "shared/new")),
            }
            mount.leave();
            // What was staged there does not matter any more.
            home.run(&["discard", &source]);
        }
    }
}

#[test]
fn metadata_are_for_the_mounting_user_unless_they_are_exposed() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let source = layout(&home);
    for exposed in [false, true] {
        let flags = if exposed { &["--allow-other", "--expose-metadata"][..] } else { &["--allow-other"] };
        let mount = home.mount(&source, flags);
        let names = mount.ls(".oci/tags/closed/blobs").unwrap();
        let mut paths = vec![".oci/tags/closed/manifest.json".to_owned(), ".oci/mount.json".to_owned()];
        paths.extend(names.iter().map(|name| format!(".oci/tags/closed/blobs/{name}")));
        for path in paths {
            assert!(mount.cat(&path).is_ok(), "the mounting user reads {path}");
            let output = other("--clear-groups", "cat", &mount, &path);
            if exposed { works(&output) } else { denied(&output) }
        }
        mount.unmount();
    }
}
