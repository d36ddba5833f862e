//! Unprivileged users mount with `fusermount3`; root needs no helper.

use crate::support::layouts::fixtures;
use crate::support::mounting::{Home, is_mounted, text};
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Output;

/// An unprivileged user: nobody.
const NOBODY: u32 = 65534;

/// The environment of user nobody: a copy of the program and of a layout (the project may be inaccessible to others), and an empty directory to
/// mount on. The mount is removed at the end.
struct Nobody {
    shell: Shell,
}

impl Nobody {
    fn new() -> Self {
        let shell = Shell::new();
        let variables = [("OCIFS", OsString::from(env!("CARGO_BIN_EXE_ocifs"))), ("LAYOUT", fixtures().join("image-umoci/layout").into())];
        // Tests run as root; a device only root may open would prove nothing about users.
        shell.run(
            r#"cp "$OCIFS" ocifs; cp -r "$LAYOUT" layout; chmod -R a+rX layout; mkdir home mnt run; chown 65534:65534 home mnt run
            [ "$(stat -c %a /dev/fuse)" = 666 ] || chmod 666 /dev/fuse"#,
            &variables,
        );
        Self { shell }
    }

    /// Runs a script as nobody, with nobody's home.
    fn attempt(&self, script: &str) -> Output {
        let script = format!(
            "exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env -i PATH=\"$PATH\" HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/run bash -euc '{script}'"
        );
        self.shell.attempt::<&str>(&script, &[])
    }

    fn run(&self, script: &str) -> String {
        let output = self.attempt(script);
        assert!(output.status.success(), "{script}\n{}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        if is_mounted(&self.shell.path("mnt")) {
            self.attempt("./ocifs umount mnt");
        }
        if is_mounted(&self.shell.path("mnt")) {
            self.shell.attempt::<&str>("umount -l mnt", &[]);
        }
    }
}

const NEEDS: [Need; 4] = [Need::Fuse, Need::Root, Need::Tool("fusermount3"), Need::Tool("setpriv")];

#[test]
fn a_user_mounts_reads_and_unmounts_even_root_only_files() {
    if lacks(&NEEDS) {
        return;
    }
    let nobody = Nobody::new();
    nobody.run("./ocifs mount oci:layout mnt");
    assert!(is_mounted(&nobody.shell.path("mnt")));
    let table = nobody.run("findmnt -no FSTYPE,OPTIONS mnt");
    assert!(table.starts_with("fuse.ocifs rw,nosuid,nodev"), "{table}");
    assert_eq!(nobody.run("stat -c %a:%u mnt/l1/etc/shadow"), "640:0\n");
    assert_eq!(nobody.run("cat mnt/l1/etc/shadow"), "root:*::\n");
    assert!(nobody.run("ls -laR mnt").contains("l3"));
    assert!(nobody.run("./ocifs status mnt").contains("running"));
    // Nobody else may enter, not even root.
    assert_eq!(std::fs::metadata(nobody.shell.path("mnt/l1")).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    nobody.run("./ocifs umount mnt");
    assert!(!is_mounted(&nobody.shell.path("mnt")));
    // Cached content is private to the user.
    let cache = std::fs::metadata(nobody.shell.path("home/.cache/ocifs")).unwrap();
    assert_eq!((cache.uid(), cache.permissions().mode() & 0o077), (NOBODY, 0));
}

#[test]
fn allow_other_needs_user_allow_other_and_says_so() {
    if lacks(&NEEDS) {
        return;
    }
    // Only if the machine keeps the default.
    let allowed = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default().lines().any(|line| line.trim() == "user_allow_other");
    let nobody = Nobody::new();
    let output = nobody.attempt("./ocifs mount --allow-other oci:layout mnt");
    if allowed {
        assert!(output.status.success(), "{}", text(&output));
        return;
    }
    assert_eq!(output.status.code(), Some(15), "{}", text(&output));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("user_allow_other") && message.contains("/etc/fuse.conf"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!is_mounted(&nobody.shell.path("mnt")));
}

#[test]
fn other_users_are_bound_by_owners_and_modes() {
    if lacks(&NEEDS) {
        return;
    }
    let shell = Shell::new();
    let home = Home::new();
    // Other users must be able to reach the mount point.
    std::fs::set_permissions(home.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mount = home.mount(&format!("oci:{}", fixtures().join("image-umoci/layout").display()), &["--allow-other"]);
    std::fs::set_permissions(mount.root().parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    assert!(shell.at(mount.root(), &format!("{nobody} cat $M/l1/etc/passwd")).contains("root:"));
    let refused = shell.attempt(&format!("{nobody} cat $M/l1/etc/shadow"), &[("M", mount.root())]);
    assert!(text(&refused).contains("Permission denied"), "{}", text(&refused));
    mount.unmount();
}

#[test]
fn root_mounts_where_fuse3_is_not_installed() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let shell = Shell::new();
    let home = Home::new();
    let layout = fixtures().join("image-umoci/layout");
    // Its own file system for the system's programs: the helper is absent from all its locations.
    let script = r#"for place in /usr/bin/fusermount3 /bin/fusermount3 /usr/local/bin/fusermount3; do
        if [ -e $place ]; then mount --bind /dev/null $place; fi
    done
    mkdir mnt; trap '"$OCIFS" umount mnt' EXIT
    "$OCIFS" mount "oci:$LAYOUT" mnt --cache-dir "$HOME_OF_TEST/cache" --state-dir "$HOME_OF_TEST/state"
    cat mnt/l1/etc/shadow"#;
    let variables = [
        ("SCRIPT", OsString::from(script)),
        ("OCIFS", env!("CARGO_BIN_EXE_ocifs").into()),
        ("LAYOUT", layout.into()),
        ("HOME_OF_TEST", home.path("").into()),
    ];
    assert_eq!(shell.run(r#"unshare --mount bash -euo pipefail -c "$SCRIPT""#, &variables), "root:*::\n");
}
